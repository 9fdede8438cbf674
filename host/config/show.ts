import { DEFAULT, type Origin, originText } from './node.ts';

/** A setting in effect and its origin. Secrets are never shown. */
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

/** Formats a duration exactly, as a settings file may write it. */
export function formatDuration(ms: number): string {
  const unit = UNITS.find(([, one]) => ms >= one && ms % one === 0);
  return unit === undefined ? `${ms}ms` : `${ms / unit[1]}${unit[0]}`;
}

/** Formats a share as a settings file may write it. */
export function formatPercent(share: number): string {
  return `${Number((share * 100).toFixed(3))}%`;
}

/** Formats a size exactly, as a settings file may write it. */
export function formatSize(bytes: bigint): string {
  const names = ['TiB', 'GiB', 'MiB', 'KiB'];
  for (const [i, name] of names.entries()) {
    const unit = 1n << BigInt(10 * (names.length - i));
    if (bytes >= unit && bytes % unit === 0n) return `${bytes / unit}${name}`;
  }
  return bytes === 0n ? '0' : `${bytes}B`;
}

/** Collects the settings in effect while a schema builds them. */
export class EffectiveSettings {
  readonly rows: EffectiveSetting[] = [];

  /** Adds a value with its origin. */
  add(key: string, value: EffectiveSetting['value'], origin: Origin = DEFAULT): void {
    this.rows.push({ key, value, origin: originText(origin) });
  }

  /** Returns the given value or else the default, and adds it to the list. */
  take<T>(
    key: string,
    found: { readonly value: T; readonly origin: Origin } | undefined,
    fallback: T,
    word: (value: T) => EffectiveSetting['value'],
  ): T {
    const value = found === undefined ? fallback : found.value;
    this.add(key, word(value), found?.origin ?? DEFAULT);
    return value;
  }
}
