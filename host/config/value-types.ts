import { resolve } from 'node:path';
import { LightkeeperError } from '../../core/errors.ts';
import { DURATION_UNITS, parseDuration, parseRate, parseSize, SIZE_UNITS } from '../quantity.ts';
import { anyCasePattern, type JsonSchema } from './json-schema.ts';
import {
  type Fields,
  type Found,
  type Keys,
  mapJsonSchema,
  readMap,
  reportWrongType,
  type ValueType,
} from './keys.ts';
import { type Node, quoted } from './node.ts';

/** Whether a value may be text of another type: variables and flags have only texts, a file has types. */
function isLoose(node: Node): boolean {
  return node.origin.kind !== 'file';
}

/** One line of text. `state` returns why a text cannot be used. */
export function text(
  word: string,
  state: (value: string) => string | undefined = () => undefined,
  jsonSchema: JsonSchema = {},
): ValueType<string> {
  return {
    word,
    jsonSchema: { type: 'string', minLength: 1, ...jsonSchema },
    read: (node, path, reading) => {
      if (node.kind !== 'scalar' || typeof node.value !== 'string') {
        return reportWrongType(node, path, reading, 'text', 'put the value in quotes');
      }
      const why =
        node.value === '' ? 'it is empty' : node.value.includes('\0') ? 'it holds a NUL' : state(node.value);
      if (why === undefined) return node.value;
      reading.report.problem({ origin: node.origin, path }, why);
      return undefined;
    },
  };
}

/** One of these words. */
export function oneOf<const W extends string>(word: string, words: readonly W[]): ValueType<W> {
  const base = text(word, (value) => {
    return words.some((one) => one === value) ? undefined : `${quoted(value)} is none of ${words.join(', ')}`;
  });
  return {
    word,
    jsonSchema: { type: 'string', enum: words },
    read: (node, path, reading) => {
      const given = base.read(node, path, reading);
      return words.find((one) => one === given);
    },
  };
}

/** A path, made absolute. */
export function path(word: string): ValueType<string> {
  const base = text(word);
  return {
    word,
    jsonSchema: base.jsonSchema,
    read: (node, at, reading) => {
      const given = base.read(node, at, reading);
      return given === undefined ? undefined : resolve(reading.folder(node.origin), given);
    },
  };
}

interface Quantity<T> {
  readonly word: string;
  /** Name of the type in problems. */
  readonly wanted: string;
  readonly jsonSchema: JsonSchema;
  readonly parse: (text: string) => T;
}

/** A text or number that a parser of quantities takes. */
function quantity<T>({ word, wanted, jsonSchema, parse }: Quantity<T>): ValueType<T> {
  return {
    word,
    jsonSchema,
    read: (node, at, reading) => {
      if (node.kind !== 'scalar' || !['string', 'number'].includes(typeof node.value)) {
        return reportWrongType(node, at, reading, wanted);
      }
      try {
        return parse(String(node.value));
      } catch (error) {
        if (!(error instanceof LightkeeperError)) throw error;
        const mend = error.hint === '' ? '' : `; ${error.hint}`;
        const state = `${error.message.replace(/^C/, 'c')}${mend}`;
        reading.report.problem({ origin: node.origin, path: at }, state);
        return undefined;
      }
    },
  };
}

/** Returns the schema of a number with a unit; zero needs none. */
function unitSchema(units: readonly string[]): JsonSchema {
  const decimal = '[0-9]+(?:\\.[0-9]+)?';
  const pattern = `^\\s*(?:${decimal}\\s*${anyCasePattern(units)}|0+(?:\\.0+)?)\\s*$`;
  return { type: ['string', 'integer'], pattern, minimum: 0, maximum: 0 };
}

/** Longest wait of a timer, in milliseconds. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** A duration in milliseconds. `longestMs` is what a timer can wait for, unless the value is not for a timer. */
export function duration({ atLeastMs = 0, longestMs = TIMER_MS_MAX } = {}): ValueType<number> {
  return quantity({
    word: '<duration>',
    wanted: 'a duration',
    jsonSchema: unitSchema(DURATION_UNITS),
    parse: (given) => {
      const ms = parseDuration(given);
      if (ms >= atLeastMs && ms <= longestMs) return ms;
      const state = ms < atLeastMs ? 'it is too short' : 'it is longer than 24 days';
      throw new LightkeeperError(
        'INVALID_ARGUMENT',
        `Cannot use ${quoted(given)} as this duration: ${state}`,
      );
    },
  });
}

/** A number of bytes. */
export function size(): ValueType<bigint> {
  return quantity({
    word: '<size>',
    wanted: 'a size',
    jsonSchema: unitSchema(SIZE_UNITS),
    parse: (given) => BigInt(parseSize(given)),
  });
}

/** A number of bytes per second. */
export function rate(): ValueType<bigint> {
  return quantity({
    word: '<rate>',
    wanted: 'a rate',
    jsonSchema: { type: 'string', pattern: '^.+/s$' },
    parse: parseRate,
  });
}

const PERCENT = '([0-9]{1,3}(?:\\.[0-9]{1,3})?)\\s*%';

/** A share above 0 % and up to 100 %, as a fraction. */
export function percent(): ValueType<number> {
  return quantity({
    word: '<percent>',
    wanted: 'a share',
    jsonSchema: { type: 'string', pattern: `^${PERCENT}$` },
    parse: (given) => {
      const [, digits] = new RegExp(`^${PERCENT}$`).exec(given) ?? [];
      const value = Number(digits);
      if (value > 0 && value <= 100) return value / 100;
      throw new LightkeeperError(
        'INVALID_ARGUMENT',
        `Cannot use ${quoted(given)} as a share: it is no percentage`,
        {
          hint: 'write it like 25%, up to 100%',
        },
      );
    },
  });
}

const COUNT_MAX = 999_999_999;

/** A whole number, 0 or more. */
export function count(): ValueType<number> {
  return {
    word: '<n>',
    jsonSchema: { type: 'integer', minimum: 0, maximum: COUNT_MAX },
    read: (node, at, reading) => {
      const given = node.kind === 'scalar' ? node.value : undefined;
      const value =
        typeof given === 'string' && isLoose(node) && /^[0-9]{1,10}$/.test(given) ? Number(given) : given;
      if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= COUNT_MAX)
        return value;
      return reportWrongType(node, at, reading, `a whole number from 0 to ${COUNT_MAX}`);
    },
  };
}

/** Parses the usual words for true and false; undefined if the word is neither. */
export function parseBoolean(word: string): boolean | undefined {
  if (/^(?:true|1|yes|on)$/i.test(word)) return true;
  return /^(?:false|0|no|off)$/i.test(word) ? false : undefined;
}

/** True or false. */
export function boolean(): ValueType<boolean> {
  return {
    word: '',
    jsonSchema: { type: 'boolean' },
    read: (node, at, reading) => {
      const given = node.kind === 'scalar' ? node.value : undefined;
      const value = typeof given === 'string' && isLoose(node) ? parseBoolean(given) : given;
      return typeof value === 'boolean' ? value : reportWrongType(node, at, reading, 'true or false');
    },
  };
}

/** An address to listen on. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

const ADDRESS = '(.+):([0-9]{1,5})';

/** `host:port`. */
export function address(): ValueType<Address> {
  return quantity({
    word: '<host:port>',
    wanted: 'host:port',
    jsonSchema: { type: 'string', pattern: `^${ADDRESS}$` },
    parse: (given) => {
      const [, host = '', port = ''] = new RegExp(`^${ADDRESS}$`).exec(given) ?? [];
      if (host !== '' && Number(port) <= 65535) {
        return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
      }
      throw new LightkeeperError(
        'INVALID_ARGUMENT',
        `Cannot listen on ${quoted(given)}: it is not host:port`,
        {
          hint: 'write it like 127.0.0.1:9701',
        },
      );
    },
  });
}

/** A list. A variable or flag may give a single value. */
export function list<T>(item: ValueType<T>): ValueType<readonly T[]> {
  return {
    word: item.word,
    repeats: item.structure !== true,
    structure: item.structure === true,
    // The keys of the items are not keys of the list: they have no flags.
    jsonSchema: { type: 'array', items: item.jsonSchema },
    read: (node, at, reading) => {
      if (node.kind === 'map' || (node.kind === 'scalar' && !isLoose(node))) {
        return reportWrongType(node, at, reading, 'a list');
      }
      const items = node.kind === 'scalar' ? [node] : node.items;
      return items.flatMap((one, i) => item.read(one, `${at}[${i}]`, reading) ?? []);
    },
  };
}

/** A map that has these keys and no others. */
export function map<const K extends Keys>(keys: K): ValueType<Fields<K>> {
  return {
    word: '<yaml>',
    keys,
    structure: true,
    jsonSchema: mapJsonSchema(keys),
    read: (node, at, reading) => {
      if (node.kind !== 'map') return reportWrongType(node, at, reading, 'a map');
      return readMap(keys, node, at, reading);
    },
  };
}

/** A map of maps that have these keys, by any names. `state` returns why a name cannot be used. */
export function namedMaps<const K extends Keys>(
  keys: K,
  state: (name: string) => string | undefined = () => undefined,
): ValueType<ReadonlyMap<string, Found<Fields<K>>>> {
  const one = map(keys);
  return {
    word: '<yaml>',
    structure: true,
    jsonSchema: { type: 'object', additionalProperties: one.jsonSchema },
    read: (node, at, reading) => {
      if (node.kind !== 'map') return reportWrongType(node, at, reading, 'a map');
      const found = new Map<string, Found<Fields<K>>>();
      for (const [name, below] of node.entries) {
        const path = `${at}.${name}`;
        const { origin } = below;
        const why = state(name);
        if (why !== undefined) reading.report.problem({ origin, path }, why);
        const value = one.read(below, path, reading);
        if (value !== undefined) found.set(name, { value, origin, path });
      }
      return found;
    },
  };
}

/** A type whose part is not in this version: values are checked, and refused if they would have an effect. */
export function later<T>(type: ValueType<T>, hasEffect: (value: T) => boolean = () => true): ValueType<T> {
  return {
    ...type,
    later: true,
    read: (node, at, reading) => {
      const value = type.read(node, at, reading);
      if (value !== undefined && hasEffect(value)) {
        reading.report.problem({ origin: node.origin, path: at }, 'not in this version', {
          code: 'UNIMPLEMENTED',
          hint: 'leave it out',
        });
      }
      return value;
    },
  };
}
