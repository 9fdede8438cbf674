import { DEFAULT, type Origin, originText } from './node.ts';

/** A setting that holds, and where it comes from; never a secret. */
export interface EffectiveSetting {
  readonly key: string;
  readonly value: string | number | boolean | readonly string[];
  readonly origin: string;
}

const UNITS = [
  ['w', 604_800_000],
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
] as const;

/** A duration exactly as it may be written. */
export function formatDuration(ms: number): string {
  const unit = UNITS.find(([, one]) => ms >= one && ms % one === 0);
  return unit === undefined ? `${ms}ms` : `${ms / unit[1]}${unit[0]}`;
}

/** A share as it may be written. */
export function formatPercent(share: number): string {
  return `${Number((share * 100).toFixed(3))}%`;
}

/** A size exactly as it may be written. */
export function formatSize(bytes: bigint): string {
  const names = ['TiB', 'GiB', 'MiB', 'KiB'];
  for (const [i, name] of names.entries()) {
    const unit = 1n << BigInt(10 * (names.length - i));
    if (bytes >= unit && bytes % unit === 0n) return `${bytes / unit}${name}`;
  }
  return bytes === 0n ? '0' : `${bytes}B`;
}

/** Gathers the settings that hold while they are put together. */
export class EffectiveSettings {
  readonly rows: EffectiveSetting[] = [];

  /** Notes a value of an origin. */
  add(key: string, value: EffectiveSetting['value'], origin: Origin = DEFAULT): void {
    this.rows.push({ key, value, origin: originText(origin) });
  }

  /** The value that was given, or what holds without; notes it. */
  take<T>(
    key: string,
    found: { readonly value: T; readonly origin: Origin } | undefined,
    otherwise: T,
    word: (value: T) => EffectiveSetting['value'],
  ): T {
    const value = found === undefined ? otherwise : found.value;
    this.add(key, word(value), found?.origin ?? DEFAULT);
    return value;
  }
}
