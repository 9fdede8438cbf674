import type { JsonSchema, SettingsJsonSchema } from './json-schema.ts';
import { type Mapping, type Node, type Origin, quoted } from './node.ts';
import type { ProblemReport } from './problem.ts';
import { nearest } from './suggest.ts';

/** A value that was read, with its origin. */
export interface Found<T> {
  readonly value: T;
  readonly origin: Origin;
  /** Its key: `graphs[0].dir`. */
  readonly path: string;
}

/** What every read of a value needs. */
export interface Reading {
  readonly report: ProblemReport;
  /** Folder in which relative paths of an origin begin. */
  readonly folder: (origin: Origin) => string;
}

/** A type of value: how it is read, what its flag takes, and its JSON Schema. */
export interface ValueType<T> {
  /** Placeholder of the value in the help; empty for a flag without a value. */
  readonly word: string;
  /** Keys, if the value is a map. */
  readonly keys?: Keys;
  /** Whether the flag may be given several times. */
  readonly repeats?: boolean;
  /** Whether the flag and the variable take YAML. */
  readonly structure?: boolean;
  /** Whether this version refuses values that would have an effect. */
  readonly later?: boolean;
  readonly jsonSchema: JsonSchema;
  /** Checks and converts a value. Returns undefined if it is wrong, which is reported. */
  readonly read: (node: Node, path: string, reading: Reading) => T | undefined;
}

/** A type of value with the meaning of its key. */
export interface Key<T> extends ValueType<T> {
  readonly about: string;
}

export type Keys = Readonly<Record<string, Key<unknown>>>;

type ValueOf<K> = K extends ValueType<infer T> ? T : never;

/** The keys of a map that were given with a right value. */
export type Fields<K extends Keys> = { readonly [N in keyof K]?: Found<ValueOf<K[N]>> };

/** Returns a key of this type. */
export function key<T>(type: ValueType<T>, about: string): Key<T> {
  return { ...type, about };
}

/** Reports a value of another type than `wanted`. */
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

function typeText(node: Node): string {
  if (node.kind !== 'scalar') return node.kind === 'map' ? 'it is a map' : 'it is a list';
  if (node.value === null) return 'it is empty';
  const type = typeof node.value;
  return `${quoted(node.value)} is ${type === 'string' ? 'text' : type === 'boolean' ? 'a boolean' : 'a number'}`;
}

/** Reads the keys of a map. `elsewhere` returns the right place of a misplaced key. */
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
      const state = unknownKeyText(name, Object.keys(keys), elsewhere);
      reading.report.problem({ origin: node.origin, path: place }, state);
      continue;
    }
    if (node.kind === 'scalar' && node.value === null) continue;
    const value = known.read(node, place, reading);
    if (value !== undefined) fields[name] = { value, origin: node.origin, path: place };
  }
  return fields as Fields<K>;
}

function unknownKeyText(
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

/** Returns the JSON Schema of a map that has these keys and no others. */
export function mapJsonSchema(keys: Keys): JsonSchema {
  const properties = Object.entries(keys).map(([name, { about, later = false, jsonSchema }]) => {
    return [name, { description: later ? `${about} (not in this version)` : about, ...jsonSchema }];
  });
  return { type: 'object', properties: Object.fromEntries(properties), additionalProperties: false };
}

/** Returns the JSON Schema (draft 2020-12) of a settings file with these keys. */
export function settingsJsonSchema(title: string, keys: Keys): SettingsJsonSchema {
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', title, ...mapJsonSchema(keys) };
}
