import { type DescMessage, type MessageShape, toJson } from '@bufbuild/protobuf';
import { type Timestamp, timestampMs } from '@bufbuild/protobuf/wkt';
import type { ErrorCode, LightkeeperError } from '../core/errors.ts';
import type { Progress } from '../gen/lightkeeper/v1/agent_pb.ts';
import { type Finding, Severity_Value } from '../gen/lightkeeper/v1/types_pb.ts';
import { durationText, sizeText } from '../host/quantity.ts';

/** Writes the one JSON document of a command. */
export function printJson<D extends DescMessage>(schema: D, message: MessageShape<D>): void {
  printJsonOf(schema, [message], undefined);
}

/** As `printJson`, of several messages under one name; without a name it is the first alone. */
export function printJsonOf<D extends DescMessage>(
  schema: D,
  messages: readonly MessageShape<D>[],
  name: string | undefined,
): void {
  const all = messages.map((message) => toJson(schema, message, { alwaysEmitImplicit: true }));
  writeJson(name === undefined ? all[0] : { [name]: all });
}

/** Writes the JSON document of a message with more fields beside its own. */
export function printJsonWith<D extends DescMessage>(
  schema: D,
  message: MessageShape<D>,
  more: Readonly<Record<string, unknown>>,
): void {
  writeJson({ ...(toJson(schema, message, { alwaysEmitImplicit: true }) as object), ...more });
}

function writeJson(json: unknown): void {
  process.stdout.write(`${JSON.stringify(json, null, 2)}\n`);
}

/** Writes a line for people. */
export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Text from outside, safe for a terminal: control characters as escapes. */
export function plain(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}

/** Local time to the second. */
export function timeText(at: Timestamp | undefined): string {
  if (at === undefined) return '-';
  const date = new Date(timestampMs(at));
  const two = (n: number) => String(n).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** Columns that line up; the last one is as long as it is. */
export function table(rows: readonly (readonly string[])[]): void {
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  for (const row of rows) {
    say(
      row
        .map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0)))
        .join('  ')
        .trimEnd(),
    );
  }
}

const SEVERITIES: Readonly<Record<Severity_Value, string>> = {
  [Severity_Value.UNSPECIFIED]: 'note',
  [Severity_Value.INFO]: 'note',
  [Severity_Value.WARNING]: 'warning',
  [Severity_Value.ERROR]: 'error',
};

/** Findings for people, at most `limit` of them. */
export function printFindings(findings: readonly Finding[], limit = 20): void {
  for (const { severity, code, object, message, hint, snapshots } of findings.slice(0, limit)) {
    const what = object === '' ? '' : ` "${plain(object)}"`;
    say(`${SEVERITIES[severity]} ${code}${what}: ${plain(message)}`);
    if (snapshots.length > 0) {
      const more = snapshots.length > 10 ? ` and ${snapshots.length - 10} more` : '';
      say(
        `  concerns: ${snapshots
          .slice(0, 10)
          .map((id) => id.slice(0, 12))
          .join(', ')}${more}`,
      );
    }
    if (hint !== '') say(`  hint: ${hint}`);
  }
  if (findings.length > limit) say(`and ${findings.length - limit} more findings (all with --json)`);
}

/** The mend where the one who failed knew none. */
const HINTS: Readonly<Record<ErrorCode, string>> = {
  INVALID_ARGUMENT: 'run lightkeeper --help',
  NOT_FOUND: 'check the name',
  REFUSED: 'do what the message asks for, then run it again',
  IN_USE: 'wait until the other process is done, or stop it',
  DAMAGED: 'run lightkeeper verify --level bytes to see what is concerned, then lightkeeper repair',
  TOO_NEW: 'use the version of Lightkeeper that wrote it, or a newer one',
  TOO_OLD: 'use the version of Lightkeeper that wrote it',
  UNIMPLEMENTED: 'run lightkeeper --help for what there is',
  IO: 'look at that disk and at the rights of this user',
  CANCELLED: 'run it again: what was not published is not there',
  DEADLINE: 'run it again, with more time if there is a flag for it',
  UNAVAILABLE: 'check that the other side runs and can be reached',
  INTERNAL: 'this is a fault in Lightkeeper: run it with LIGHTKEEPER_DEBUG=1 and report what it says',
};

/** Writes an error for people, and with `json` for programs too. */
export function printError({ code, message, hint, details }: LightkeeperError, json: boolean): void {
  const mend = hint === '' ? HINTS[code] : hint;
  const lines = details.length === 0 ? [message] : message.split('\n');
  const text = lines.map((line, i) => `${i === 0 ? 'error: ' : '  '}${plain(line)}\n`).join('');
  process.stderr.write(`${text}hint: ${plain(mend)}\n`);
  if (json) process.stdout.write(`${JSON.stringify({ error: { code, message, hint: mend } })}\n`);
}

/** Draws progress on a terminal's standard error; does nothing elsewhere. */
export function progressLine(): { show: (progress: Progress) => void; end: () => void } {
  if (!process.stderr.isTTY) return { show: () => {}, end: () => {} };
  const startedMs = performance.now();
  return {
    show: ({ phase, doneBytes, totalBytes }) => {
      const done = Number(doneBytes);
      const total = Number(totalBytes);
      const seconds = (performance.now() - startedMs) / 1000;
      const rate = seconds > 0 ? done / seconds : 0;
      const left = total > done && rate > 0 ? `, ${durationText(((total - done) / rate) * 1000)} left` : '';
      const of = total > 0 ? ` of ${sizeText(total)}` : '';
      process.stderr.write(`\r\x1b[K${phase}: ${sizeText(done)}${of}, ${sizeText(rate)}/s${left}`);
    },
    end: () => process.stderr.write('\r\x1b[K'),
  };
}
