import { type ErrorCode, LightkeeperError } from '../../core/errors.ts';
import { type Origin, oneLine, placeText } from './node.ts';

/** Why settings cannot be used. */
export interface Problem {
  /** One line: the place and what is wrong there. */
  readonly text: string;
  readonly code: ErrorCode;
  readonly hint: string;
  /** Line number in the file; undefined if the value is not from the file. */
  readonly line: number | undefined;
}

/** Collects problems and warnings, so that one report names all of them. */
export class ProblemReport {
  readonly problems: Problem[] = [];
  readonly warnings: string[] = [];

  /** Adds a problem of the value at a key. */
  problem(
    at: { readonly origin: Origin; readonly path: string },
    state: string,
    { code = 'INVALID_ARGUMENT', hint = '' }: { code?: ErrorCode; hint?: string } = {},
  ): void {
    const place = placeText(at.origin, at.path);
    const line = at.origin.kind === 'file' ? at.origin.line : undefined;
    this.problems.push({ text: oneLine(place === '' ? state : `${place}: ${state}`), code, hint, line });
  }

  /** Returns the problems: those of the file by line, then the others. */
  sorted(): Problem[] {
    const rank = ({ line }: Problem) => line ?? Number.MAX_SAFE_INTEGER;
    return [...this.problems].sort((a, b) => rank(a) - rank(b));
  }

  /** Adds a warning, which does not prevent the start. */
  warn(text: string): void {
    this.warnings.push(oneLine(text));
  }
}

const HINT = 'lightkeeper config check shows where each setting comes from';

/** Returns all problems as one error. */
export function problemsError(problems: readonly Problem[]): LightkeeperError {
  const [first] = problems;
  const code =
    first !== undefined && problems.every((one) => one.code === first.code) ? first.code : undefined;
  const options = { hint: problems.length === 1 && first?.hint ? first.hint : HINT };
  if (problems.length === 1 && first !== undefined) {
    return new LightkeeperError(
      code ?? 'INVALID_ARGUMENT',
      `Cannot use the settings: ${first.text}`,
      options,
    );
  }
  return new LightkeeperError(
    code ?? 'INVALID_ARGUMENT',
    `Cannot use the settings: ${problems.length} problems`,
    { ...options, details: problems.map(({ text }) => text) },
  );
}
