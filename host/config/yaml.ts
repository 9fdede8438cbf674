import {
  type Alias,
  type Document,
  isAlias,
  isCollection,
  isMap,
  isNode,
  isScalar,
  LineCounter,
  type Pair,
  parseDocument,
} from 'yaml';
import type { Node, Origin } from './node.ts';
import type { ProblemReport } from './problem.ts';

const NODES_MAX = 20_000;
const ALIASES_MAX = 100;
const DEPTH_MAX = 20;

/** Origin of a YAML text. */
export type YamlSource =
  | { readonly kind: 'file'; readonly name: string }
  | { readonly kind: 'environment' | 'flag'; readonly name: string };

/** Parses YAML 1.2 with origins. Returns undefined if it is empty, or if it is invalid, which is reported. */
export function parseYaml(text: string, source: YamlSource, report: ProblemReport): Node | undefined {
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    version: '1.2',
    schema: 'core',
    strict: true,
    uniqueKeys: true,
    merge: false,
    resolveKnownTags: false,
    // Pretty errors quote the text, in which there may be secrets.
    prettyErrors: false,
    logLevel: 'error',
  });
  for (const { message, pos } of document.errors) {
    const { line, col } = lines.linePos(pos[0]);
    const [first = ''] = message.split('\n');
    report.problem(
      { origin: { kind: 'environment', name: `${source.name}:${line}:${col}` }, path: '' },
      `this is not YAML: ${first}`,
    );
  }
  if (document.errors.length > 0) return undefined;
  return new Conversion(document, lines, source, report).root();
}

/** Converts the tree of the YAML library into nodes. */
class Conversion {
  readonly #document: Document;
  readonly #lines: LineCounter;
  readonly #source: YamlSource;
  readonly #report: ProblemReport;
  #nodes = 0;
  #aliases = 0;
  /** Whether the document was too large, which is reported once. */
  #givenUp = false;

  constructor(document: Document, lines: LineCounter, source: YamlSource, report: ProblemReport) {
    this.#document = document;
    this.#lines = lines;
    this.#source = source;
    this.#report = report;
  }

  root(): Node | undefined {
    return this.#node(this.#document.contents, this.#origin(0), 0);
  }

  #origin(offset: number): Origin {
    const { kind, name } = this.#source;
    if (kind !== 'file') return { kind, name, whole: true };
    return { kind, file: name, line: this.#lines.linePos(offset).line };
  }

  #giveUp(origin: Origin, state: string): undefined {
    if (!this.#givenUp) this.#report.problem({ origin, path: '' }, state);
    this.#givenUp = true;
    return undefined;
  }

  #node(value: unknown, origin: Origin, depth: number): Node | undefined {
    if (this.#givenUp) return undefined;
    this.#nodes += 1;
    if (this.#nodes > NODES_MAX) return this.#giveUp(origin, `there are more than ${NODES_MAX} values`);
    if (depth > DEPTH_MAX) return this.#giveUp(origin, `it is more than ${DEPTH_MAX} levels deep`);
    if (!isNode(value)) return undefined;
    if (isAlias(value)) return this.#alias(value, origin, depth);
    if (value.tag !== undefined) {
      this.#report.problem({ origin, path: '' }, `the tag ${value.tag} is not known`, {
        hint: 'write the value without a tag',
      });
      return undefined;
    }
    if (isScalar(value)) return { kind: 'scalar', value: scalarOf(value.value), origin };
    if (!isCollection(value)) return undefined;
    if (isMap(value)) return this.#map(value.items, origin, depth);
    const items = value.items.flatMap((item) => {
      const offset = isNode(item) ? (item.range?.[0] ?? 0) : 0;
      return this.#node(item, this.#origin(offset), depth + 1) ?? [];
    });
    return { kind: 'list', items, origin };
  }

  #alias(alias: Alias, origin: Origin, depth: number): Node | undefined {
    this.#aliases += 1;
    if (this.#aliases > ALIASES_MAX)
      return this.#giveUp(origin, `there are more than ${ALIASES_MAX} aliases`);
    const target = alias.resolve(this.#document);
    if (target !== undefined) return this.#node(target, origin, depth + 1);
    this.#report.problem({ origin, path: '' }, `the alias *${alias.source} names nothing`);
    return undefined;
  }

  #map(pairs: readonly Pair[], origin: Origin, depth: number): Node {
    const entries = new Map<string, Node>();
    for (const { key, value } of pairs) {
      if (!isScalar(key) || key.tag !== undefined || typeof key.value !== 'string') {
        this.#report.problem({ origin, path: '' }, 'a key is not a word');
        continue;
      }
      const own = this.#origin(key.range?.[0] ?? 0);
      const node = value === null ? undefined : this.#node(value, own, depth + 1);
      entries.set(key.value, node ?? { kind: 'scalar', value: null, origin: own });
    }
    return { kind: 'map', entries, origin };
  }
}

function scalarOf(value: unknown): string | number | bigint | boolean | null {
  switch (typeof value) {
    case 'string':
    case 'number':
    case 'bigint':
    case 'boolean':
      return value;
    default:
      return null;
  }
}
