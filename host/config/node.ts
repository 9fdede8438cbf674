/** Where a setting comes from. */
export type Origin =
  | { readonly kind: 'default' }
  | { readonly kind: 'file'; readonly file: string; readonly line: number }
  /** `whole`: a structure was written as YAML, so that a place inside of it must be named too. */
  | { readonly kind: 'environment' | 'flag'; readonly name: string; readonly whole?: boolean };

/** One value as it was given; an unset one is null. */
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

/** What was given, whoever gave it, with its origin; nothing is checked yet. */
export type Node = Scalar | List | Mapping;

export const DEFAULT: Origin = { kind: 'default' };

/** A map without entries. */
export function emptyMap(origin: Origin = DEFAULT): Mapping {
  return { kind: 'map', entries: new Map(), origin };
}

/** A map with one more value, put at the end of a path of keys. */
export function withValue({ entries, origin }: Mapping, path: readonly string[], node: Node): Mapping {
  const [key = '', ...rest] = path;
  const old = entries.get(key);
  const below = old?.kind === 'map' ? old : emptyMap(node.origin);
  const value = rest.length === 0 ? overlay(old, node) : withValue(below, rest, node);
  return { kind: 'map', entries: new Map([...entries, [key, value]]), origin };
}

/** `upper` where it says something, `lower` elsewhere. Maps are joined; lists and values replace each other. */
export function overlay(lower: Node | undefined, upper: Node): Node {
  if (lower?.kind !== 'map' || upper.kind !== 'map') return upper;
  const entries = new Map(lower.entries);
  for (const [key, node] of upper.entries) entries.set(key, overlay(entries.get(key), node));
  return { kind: 'map', entries, origin: upper.origin };
}

/** An origin for people: `config.yaml:7`, `environment WORKING_DIR`, `flag --dir`, `default`. */
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

/** The place of a problem: where it was written and, unless that says it, at which key. */
export function placeText(origin: Origin, path: string): string {
  const where = [];
  if (origin.kind === 'file') where.push(originText(origin));
  else if (origin.kind !== 'default') where.push(origin.name);
  if (origin.kind === 'default' || origin.kind === 'file' || origin.whole === true) where.push(path);
  return where.filter((part) => part !== '').join(': ');
}

const SHOWN_CHARACTERS = 80;

/** A value in a message: quoted, on one line, not too long. */
export function quoted(value: unknown): string {
  const text = String(value);
  const cut = text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text;
  return `"${oneLine(cut)}"`;
}

/** Text from outside without control characters. */
export function oneLine(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}
