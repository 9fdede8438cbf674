import { escapeJson } from './control-characters.ts';

/** Escapes what could begin a new line or change a terminal. */
function escaped(text: string): string {
  return escapeJson(text).replace(/[\x00-\x1f]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

const BARE_VALUE = /^[^\s"=\\\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+$/;

/** Formats a value of a log line: bare if it is one word, else as JSON. */
function valueText(value: unknown): string {
  if (typeof value === 'string' && BARE_VALUE.test(value)) return value;
  return escaped(JSON.stringify(value) ?? 'undefined');
}

/** Formats a record of the log as text: time, level, message, key=value. */
export function logText(record: Readonly<Record<string, unknown>>): string {
  const { time, level, message, ...fields } = record;
  const pairs = Object.entries(fields).map(([key, value]) => ` ${key}=${valueText(value)}`);
  return `${time} ${String(level).padEnd(5)} ${escaped(String(message))}${pairs.join('')}\n`;
}
