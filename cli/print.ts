import { type DescMessage, type MessageShape, toJson } from '@bufbuild/protobuf';
import { type Timestamp, timestampMs } from '@bufbuild/protobuf/wkt';
import type { Progress } from '../gen/lightkeeper/v1/agent_pb.ts';
import { type Finding, Severity_Value } from '../gen/lightkeeper/v1/types_pb.ts';
import { escapeControls, escapeJson } from '../host/control-characters.ts';
import { durationText, sizeText } from '../host/quantity.ts';

/** Prints a message as the JSON document of a command. */
export function printJson<D extends DescMessage>(schema: D, message: MessageShape<D>): void {
  printJsonOf(schema, [message], undefined);
}

/** Prints messages as a JSON document, as a list with a name; without a name it prints the first alone. */
export function printJsonOf<D extends DescMessage>(
  schema: D,
  messages: readonly MessageShape<D>[],
  name: string | undefined,
): void {
  const all = messages.map((message) => toJson(schema, message, { alwaysEmitImplicit: true }));
  writeJson(name === undefined ? all[0] : { [name]: all });
}

/** Prints a message as a JSON document with more fields. */
export function printJsonWith<D extends DescMessage>(
  schema: D,
  message: MessageShape<D>,
  more: Readonly<Record<string, unknown>>,
): void {
  writeJson({ ...(toJson(schema, message, { alwaysEmitImplicit: true }) as object), ...more });
}

function writeJson(json: unknown): void {
  process.stdout.write(`${escapeJson(JSON.stringify(json, null, 2))}\n`);
}

/** Prints a line on standard output. */
export function printLine(line: string): void {
  process.stdout.write(`${line}\n`);
}

// Text from outside could otherwise control the terminal.
export { escapeControls } from '../host/control-characters.ts';

/** Formats a time as local time to the second. */
export function timeText(at: Timestamp | undefined): string {
  if (at === undefined) return '-';
  const date = new Date(timestampMs(at));
  const two = (n: number) => String(n).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** Prints rows in aligned columns. */
export function printTable(rows: readonly (readonly string[])[]): void {
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  for (const row of rows) {
    printLine(
      row
        .map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0)))
        .join('  ')
        .trimEnd(),
    );
  }
}

const SEVERITY_WORDS: Readonly<Record<Severity_Value, string>> = {
  [Severity_Value.UNSPECIFIED]: 'note',
  [Severity_Value.INFO]: 'note',
  [Severity_Value.WARNING]: 'warning',
  [Severity_Value.ERROR]: 'error',
};

/** Prints at most `limit` findings. */
export function printFindings(findings: readonly Finding[], limit = 20): void {
  for (const { severity, code, object, message, hint, snapshots } of findings.slice(0, limit)) {
    const what = object === '' ? '' : ` "${escapeControls(object)}"`;
    printLine(`${SEVERITY_WORDS[severity]} ${code}${what}: ${escapeControls(message)}`);
    if (snapshots.length > 0) {
      const more = snapshots.length > 10 ? ` and ${snapshots.length - 10} more` : '';
      printLine(
        `  snapshots: ${snapshots
          .slice(0, 10)
          .map((id) => id.slice(0, 12))
          .join(', ')}${more}`,
      );
    }
    if (hint !== '') printLine(`  hint: ${escapeControls(hint)}`);
  }
  if (findings.length > limit) printLine(`and ${findings.length - limit} more findings (--json prints all)`);
}

/** Returns a line of progress on standard error; it prints nothing if that is not a terminal. */
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
