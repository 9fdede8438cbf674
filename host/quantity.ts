import { LightkeeperError } from '../core/errors.ts';

const MS_PER_UNIT: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

const BYTES_PER_UNIT: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** Units of a duration, in lower case. */
export const DURATION_UNITS: readonly string[] = Object.keys(MS_PER_UNIT);

/** Units of a size, in lower case. */
export const SIZE_UNITS: readonly string[] = Object.keys(BYTES_PER_UNIT);

function parse(text: string, units: Readonly<Record<string, number>>, what: string, example: string): number {
  const [, digits = '', unit = ''] = /^([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)$/i.exec(text.trim()) ?? [];
  if (digits !== '' && Number(digits) === 0 && unit === '') return 0;
  const name = unit.toLowerCase();
  const factor = Object.hasOwn(units, name) ? units[name] : undefined;
  const value = digits === '' || factor === undefined ? undefined : Math.round(Number(digits) * factor);
  if (value === undefined || !Number.isSafeInteger(value)) {
    throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use "${text}" as ${what}`, {
      hint: `write it like ${example}`,
    });
  }
  return value;
}

/** Parses "300ms", "30s", "5m", "2h", "30d" or "1w" as milliseconds. */
export function parseDuration(text: string): number {
  return parse(text, MS_PER_UNIT, 'a duration', '300ms, 30s, 2h or 30d');
}

/** Parses "1GiB", "500MB" or "0" as bytes. */
export function parseSize(text: string): number {
  return parse(text, BYTES_PER_UNIT, 'a size', '1GiB or 500MB');
}

/** Parses "50MB/s" as bytes per second. */
export function parseRate(text: string): bigint {
  const [, bytes] = /^(.*)\/s$/.exec(text) ?? [];
  if (bytes !== undefined) return BigInt(parseSize(bytes));
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use "${text}" as a rate: it has no /s`, {
    hint: 'write it like 50MB/s',
  });
}

/** Formats bytes for people: "3.9 MB". */
export function sizeText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let value = bytes;
  let unit = 0;
  // A value that rounds to 1000 is shown in the next unit.
  while (value >= (unit === 0 ? 1000 : 999.5) && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return unit === 0 ? `${value} B` : `${value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`;
}

/** Formats a duration for people: "45 ms", "2.1 s", "3 min", "5 h", "2 d". */
export function durationText(duration: number | bigint): string {
  const ms = Number(duration);
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 59.5 * 60_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 47.5 * 3_600_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} d`;
}
