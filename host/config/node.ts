/** Where a setting comes from. */
export type Origin =
  | { readonly kind: 'default' }
  | { readonly kind: 'file'; readonly file: string; readonly line: number }
  /** `whole`: the value is a structure written as YAML, so problems inside it must name their key too. */
  | { readonly kind: 'environment' | 'flag'; readonly name: string; readonly whole?: boolean };

/** One value as given; null if it is unset. */
export interface Scalar {
  readonly kind: 'scalar';
  readonly value: string | number | bigint | boolean | null;
  readonly origin: Origin;
}

/** Several values. */
export interface List {
  readonly kind: 'list';
  readonly items: readonly Node[];
  readonly origin: Origin;
}

/** Values by name. */
export interface Mapping {
  readonly kind: 'map';
  readonly entries: ReadonlyMap<string, Node>;
  readonly origin: Origin;
}

/** A given value with its origin, before any check. */
export type Node = Scalar | List | Mapping;

export const DEFAULT: Origin = { kind: 'default' };

/** Returns a map without entries. */
export function emptyMap(origin: Origin = DEFAULT): Mapping {
  return { kind: 'map', entries: new Map(), origin };
}

/** Returns the map with one more value, at the end of a path of keys. */
export function withValue({ entries, origin }: Mapping, path: readonly string[], node: Node): Mapping {
  const [key = '', ...rest] = path;
  const old = entries.get(key);
  const below = old?.kind === 'map' ? old : emptyMap(node.origin);
  const value = rest.length === 0 ? overlay(old, node) : withValue(below, rest, node);
  return { kind: 'map', entries: new Map([...entries, [key, value]]), origin };
}

/** Lays `upper` over `lower`: maps are merged, lists and scalars replaced. */
export function overlay(lower: Node | undefined, upper: Node): Node {
  if (lower?.kind !== 'map' || upper.kind !== 'map') return upper;
  const entries = new Map(lower.entries);
  for (const [key, node] of upper.entries) entries.set(key, overlay(entries.get(key), node));
  return { kind: 'map', entries, origin: upper.origin };
}

/** Lays one map over another. */
export function overlayMap(lower: Mapping, upper: Mapping): Mapping {
  const merged = overlay(lower, upper);
  return merged.kind === 'map' ? merged : upper;
}

/** Formats an origin for people: `config.yaml:7`, `environment WORKING_DIR`, `flag --dir`, `default`. */
export function originText(origin: Origin): string {
  switch (origin.kind) {
    case 'default':
      return 'default';
    case 'file':
      return `${origin.file}:${origin.line}`;
    default:
      return `${origin.kind} ${origin.name}`;
  }
}

/** Formats the place of a problem: its origin and, unless the origin implies it, its key. */
export function placeText(origin: Origin, path: string): string {
  const where = [];
  if (origin.kind === 'file') where.push(originText(origin));
  else if (origin.kind !== 'default') where.push(origin.name);
  if (origin.kind === 'default' || origin.kind === 'file' || origin.whole === true) where.push(path);
  return where.filter((part) => part !== '').join(': ');
}

const QUOTED_CHARACTERS_MAX = 80;

/** Quotes a value for a message: on one line, and cut if it is long. */
export function quoted(value: unknown): string {
  const text = String(value);
  const cut = text.length > QUOTED_CHARACTERS_MAX ? `${text.slice(0, QUOTED_CHARACTERS_MAX)}…` : text;
  return `"${oneLine(cut)}"`;
}

/** Escapes the control characters of a text. */
export function oneLine(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}
