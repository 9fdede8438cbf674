import { resolve } from 'node:path';
import { LightkeeperError } from '../../core/errors.ts';
import { parseDuration, parseSize } from '../quantity.ts';
import { type Mapping, type Node, type Origin, quoted } from './node.ts';
import type { ProblemReport } from './problem.ts';
import { nearest } from './suggest.ts';

/** A value that was given, and by whom. */
export interface Found<T> {
  readonly value: T;
  readonly origin: Origin;
  /** Its key: `graphs[0].dir`. */
  readonly path: string;
}

/** What reading needs to know. */
export interface Reading {
  readonly report: ProblemReport;
  /** Where relative paths of an origin begin. */
  readonly folder: (origin: Origin) => string;
}

/** A kind of value: how it is read, and what its flag takes. */
export interface ValueType<T> {
  /** What stands for it in the help; empty for a flag without a value. */
  readonly word: string;
  /** Its keys, of a map. */
  readonly keys?: Keys;
  /** Its flag may be given several times. */
  readonly repeats?: boolean;
  /** Its flag and its variable take YAML. */
  readonly structure?: boolean;
  /** What is set has no effect in this version, and is refused. */
  readonly later?: boolean;
  /** Checks and converts; what is wrong is reported, and undefined the answer. */
  readonly read: (node: Node, path: string, reading: Reading) => T | undefined;
}

/** A kind of value with what it means. */
export interface Key<T> extends ValueType<T> {
  readonly about: string;
}

export type Keys = Readonly<Record<string, Key<unknown>>>;

type ValueOf<K> = K extends ValueType<infer T> ? T : never;

/** The keys of a map that were given, and are what they must be. */
export type Fields<K extends Keys> = { readonly [N in keyof K]?: Found<ValueOf<K[N]>> };

/** A kind with its meaning. */
export function key<T>(kind: ValueType<T>, about: string): Key<T> {
  return { ...kind, about };
}

/** In a file a text is a text; a variable or a flag has only texts. */
function isLoose(node: Node): boolean {
  return node.origin.kind !== 'file';
}

function typeText(node: Node): string {
  if (node.kind !== 'scalar') return node.kind === 'map' ? 'it is a map' : 'it is a list';
  return typeof node.value === 'string' ? `${quoted(node.value)} is text` : `${quoted(node.value)} is none`;
}

/** Reports a value of another kind than `wanted`. */
export function reportWrongType(
  node: Node,
  path: string,
  { report }: Reading,
  wanted: string,
  hint = '',
): undefined {
  report.problem({ origin: node.origin, path }, `${wanted} is needed here, but ${typeText(node)}`, { hint });
  return undefined;
}

/** Words of one line. `state` says why a word cannot be used. */
export function text(
  word: string,
  state: (value: string) => string | undefined = () => undefined,
): ValueType<string> {
  return {
    word,
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

/** A path, made absolute. */
export function path(word: string): ValueType<string> {
  const base = text(word);
  return {
    word,
    read: (node, at, reading) => {
      const given = base.read(node, at, reading);
      return given === undefined ? undefined : resolve(reading.folder(node.origin), given);
    },
  };
}

/** A text or number that one of our readers of quantities takes. */
function quantity<T>(word: string, wanted: string, parse: (text: string) => T): ValueType<T> {
  return {
    word,
    read: (node, at, reading) => {
      if (node.kind !== 'scalar' || !['string', 'number'].includes(typeof node.value)) {
        return reportWrongType(node, at, reading, wanted);
      }
      try {
        return parse(String(node.value));
      } catch (error) {
        if (!(error instanceof LightkeeperError)) throw error;
        const mend = error.hint === '' ? '' : `; ${error.hint}`;
        reading.report.problem(
          { origin: node.origin, path: at },
          `${error.message.replace(/^C/, 'c')}${mend}`,
        );
        return undefined;
      }
    },
  };
}

/** What a timer can wait for at most. */
const DURATION_MS_MAX = 2 ** 31 - 1;

/** A duration in milliseconds. `longest` is what a timer can wait for, unless it is not for a timer. */
export function duration({ atLeastMs = 0, longestMs = DURATION_MS_MAX } = {}): ValueType<number> {
  return quantity('<duration>', 'a duration', (given) => {
    const ms = parseDuration(given);
    if (ms >= atLeastMs && ms <= longestMs) return ms;
    const state = ms < atLeastMs ? 'it is too short' : 'it is longer than 24 days';
    throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use ${quoted(given)} as this duration: ${state}`);
  });
}

/** A number of bytes. */
export function size(): ValueType<bigint> {
  return quantity('<size>', 'a size', (given) => BigInt(parseSize(given)));
}

/** A number of bytes in a second. */
export function rate(): ValueType<bigint> {
  return quantity('<rate>', 'a rate', (given) => {
    const [, bytes] = /^(.*)\/s$/.exec(given) ?? [];
    if (bytes !== undefined) return BigInt(parseSize(bytes));
    throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use ${quoted(given)} as a rate: it has no /s`, {
      hint: 'write it like 50MB/s',
    });
  });
}

/** A share of something, above nothing and up to all of it. */
export function percent(): ValueType<number> {
  return quantity('<percent>', 'a share', (given) => {
    const [, digits] = /^([0-9]{1,3}(?:\.[0-9]{1,3})?)\s*%$/.exec(given) ?? [];
    const value = Number(digits);
    if (value > 0 && value <= 100) return value / 100;
    throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use ${quoted(given)} as a share: it is none`, {
      hint: 'write it like 25%, up to 100%',
    });
  });
}

const COUNT_MAX = 999_999_999;

/** A whole number, 0 or more. */
export function count(): ValueType<number> {
  return {
    word: '<n>',
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

/** The truth of a word as variables have them; undefined if it is none. */
export function parseBoolean(word: string): boolean | undefined {
  if (/^(?:true|1|yes|on)$/i.test(word)) return true;
  return /^(?:false|0|no|off)$/i.test(word) ? false : undefined;
}

/** True or false. */
export function boolean(): ValueType<boolean> {
  return {
    word: '',
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

/** `host:port`. */
export function address(): ValueType<Address> {
  return quantity('<host:port>', 'host:port', (given) => {
    const [, host = '', port = ''] = /^(.+):([0-9]{1,5})$/.exec(given) ?? [];
    if (host !== '' && Number(port) <= 65535) {
      return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
    }
    throw new LightkeeperError('INVALID_ARGUMENT', `Cannot listen on ${quoted(given)}: it is no host:port`, {
      hint: 'write it like 127.0.0.1:9701',
    });
  });
}

/** A list; one value is a list too where there are only texts. */
export function list<T>(item: ValueType<T>): ValueType<readonly T[]> {
  return {
    word: item.word,
    repeats: item.structure !== true,
    structure: item.structure === true,
    read: (node, at, reading) => {
      if (node.kind === 'map' || (node.kind === 'scalar' && !isLoose(node))) {
        return reportWrongType(node, at, reading, 'a list');
      }
      const items = node.kind === 'scalar' ? [node] : node.items;
      return items.flatMap((one, i) => item.read(one, `${at}[${i}]`, reading) ?? []);
    },
  };
}

/** A map with these keys and no others. */
export function map<const K extends Keys>(keys: K): ValueType<Fields<K>> {
  return {
    word: '<yaml>',
    keys,
    structure: true,
    read: (node, at, reading) => {
      if (node.kind !== 'map') return reportWrongType(node, at, reading, 'a map');
      return readMap(keys, node, at, reading);
    },
  };
}

/** Reads the keys of a map; `elsewhere` names the place of a key that is known there. */
export function readMap<K extends Keys>(
  keys: K,
  { entries }: Mapping,
  at: string,
  reading: Reading,
  elsewhere: (name: string) => string | undefined = () => undefined,
): Fields<K> {
  const fields: Record<string, Found<unknown>> = {};
  for (const [name, node] of entries) {
    const place = at === '' ? name : `${at}.${name}`;
    const known = Object.hasOwn(keys, name) ? keys[name] : undefined;
    if (known === undefined) {
      reading.report.problem(
        { origin: node.origin, path: place },
        unknown(name, Object.keys(keys), elsewhere),
      );
      continue;
    }
    if (node.kind === 'scalar' && node.value === null) continue;
    const value = known.read(node, place, reading);
    if (value !== undefined) fields[name] = { value, origin: node.origin, path: place };
  }
  return fields as Fields<K>;
}

function unknown(
  name: string,
  known: readonly string[],
  elsewhere: (name: string) => string | undefined,
): string {
  const place = elsewhere(name);
  if (place !== undefined) return `unknown key; it belongs ${place}`;
  const near = nearest(name, known);
  return near === undefined
    ? `unknown key; there are ${known.join(', ')}`
    : `unknown key; did you mean "${near}"?`;
}

/** A kind whose part is not in this version: its values are checked, and refused if they would do something. */
export function later<T>(kind: ValueType<T>, does: (value: T) => boolean = () => true): ValueType<T> {
  return {
    ...kind,
    later: true,
    read: (node, at, reading) => {
      const value = kind.read(node, at, reading);
      if (value !== undefined && does(value)) {
        reading.report.problem({ origin: node.origin, path: at }, 'not in this version', {
          code: 'UNIMPLEMENTED',
          hint: 'leave it out',
        });
      }
      return value;
    },
  };
}
