import type { ErrorCode } from '../core/errors.ts';
import { Grade_Value } from '../gen/lightkeeper/v1/types_pb.ts';

/** Exit codes; docs/errors.md describes them. */
export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  findings: 3,
  refused: 4,
  interrupted: 130,
} as const;

/** Sets the exit code "done with findings" if a grade is TORN or INVALID. */
export function exitByGrade(graded: readonly { readonly grade: Grade_Value }[]): void {
  const bad = [Grade_Value.TORN, Grade_Value.INVALID];
  if (graded.some(({ grade }) => bad.includes(grade))) process.exitCode = EXIT.findings;
}

/** Returns the exit code of an error. */
export function exitCodeOf(code: ErrorCode): number {
  switch (code) {
    case 'INVALID_ARGUMENT':
    case 'UNIMPLEMENTED':
      return EXIT.usage;
    case 'REFUSED':
    case 'IN_USE':
      return EXIT.refused;
    case 'CANCELLED':
      return EXIT.interrupted;
    default:
      return EXIT.failed;
  }
}
