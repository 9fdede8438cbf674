import { type Fields, type Keys, key } from './keys.ts';
import type { Origin } from './node.ts';
import type { EffectiveSettings } from './show.ts';
import { oneOf } from './value-types.ts';

const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
const LOG_FORMATS = ['text', 'json'] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];
export type LogFormat = (typeof LOG_FORMATS)[number];

/** Settings of the log of a process. */
export interface LogSettings {
  /** Least level that is written. */
  readonly level: LogLevel;
  readonly format: LogFormat;
}

/** Keys of the log, which both daemons have. */
export const LOG_KEYS = {
  level: key(oneOf('<level>', LOG_LEVELS), 'least level that is logged: debug, info, warn or error'),
  format: key(oneOf('<format>', LOG_FORMATS), 'text or json, a line per event'),
} as const satisfies Keys;

/** Settings of the log, and whether a format was asked for. */
export interface GivenLogSettings extends LogSettings {
  readonly isFormatGiven: boolean;
}

/** Builds the settings of the log from its keys. */
export function buildLogSettings(
  found: { readonly value: Fields<typeof LOG_KEYS>; readonly origin: Origin } | undefined,
  effective: EffectiveSettings,
): GivenLogSettings {
  const { level, format } = found?.value ?? {};
  const word = (value: string) => value;
  return {
    level: effective.take('log.level', level, 'info', word),
    format: effective.take('log.format', format, 'text', word),
    isFormatGiven: format !== undefined,
  };
}
