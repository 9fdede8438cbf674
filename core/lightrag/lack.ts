import { type Finding, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { finding } from '../finding.ts';
import type { TableName } from './facts.ts';
import type { NamedNumber } from './facts-codec.ts';
import { fileOf, GRAPH_FILES, type RuleClass } from './rules.ts';
import { has } from './sorted-numbers.ts';
import { type StandingKeys, splitStanding } from './standing.ts';

/** Most names in one finding. */
export const KEYS_MAX = 20;
const KEYS_IN_MESSAGE = 3;
const KEY_BYTES_MAX = 200;

const SEVERITIES: Readonly<Record<RuleClass, Severity_Value>> = {
  load: Severity_Value.ERROR,
  promise: Severity_Value.ERROR,
  leftover: Severity_Value.WARNING,
  note: Severity_Value.INFO,
};

/** Where a rule is violated, and the words for it. */
export interface LackText {
  readonly code: string;
  readonly class: RuleClass;
  readonly path: string;
  /** Table of the names; undefined for a finding about the file itself. */
  readonly table: TableName | undefined;
  readonly state: string;
  readonly hint: string;
}

/** The table of the document that lists names of a table, and the table in the same file in which they occur. */
const LISTED_BY: Readonly<Partial<Record<TableName, { documents: TableName; names: TableName }>>> = {
  promised: { documents: 'statuses', names: 'promised' },
  chunks: { documents: 'chunkDocuments', names: 'chunks' },
  nodes: { documents: 'entityDocuments', names: 'namedEntities' },
  entityVectors: { documents: 'entityDocuments', names: 'namedEntities' },
  edges: { documents: 'relationDocuments', names: 'namedRelations' },
  relationVectors: { documents: 'relationDocuments', names: 'namedRelations' },
};

/** Receives the names of a file that is read again. */
type TakeName = (table: TableName, number: number, parts: readonly Buffer[]) => void;

/** Names that violate a rule, of which some are looked up. */
export class Lack {
  readonly text: LackText;
  /** All of them, sorted. */
  readonly numbers: Float64Array;
  readonly stands: boolean;
  /** Those of which the names are looked up. */
  readonly first: readonly number[];
  readonly #names = new Map<number, Set<string>>();
  readonly #documents = new Map<number, Set<string>>();

  constructor(text: LackText, numbers: Float64Array, stands: boolean) {
    this.text = text;
    this.numbers = numbers;
    this.stands = stands;
    this.first = [...numbers.subarray(0, KEYS_MAX)];
  }

  /** Makes a lack of the names that stand and one of the others. Only broken promises stand. */
  static split(text: LackText, numbers: Float64Array, standing: StandingKeys | undefined): Lack[] {
    if (text.class !== 'promise') return [new Lack(text, numbers, false)];
    const { standing: old, others } = splitStanding(standing, { code: text.code, file: text.path, numbers });
    return [
      ...(old.length > 0 ? [new Lack(text, old, true)] : []),
      ...(others.length > 0 ? [new Lack(text, others, false)] : []),
    ];
  }

  /** Returns the finding of flaws of single records. */
  static flaw(text: LackText, count: number, keys: readonly string[]): Finding {
    return lackFinding(text, { count, keys, documents: [] });
  }

  get path(): string {
    return this.text.path;
  }

  /** Whether each looked up number has several names: they only share their number. */
  get isCollision(): boolean {
    return this.first.every((number) => (this.#names.get(number)?.size ?? 0) > 1);
  }

  /** Paths of the files in which the names are looked up. */
  sources(): string[] {
    const { table, path } = this.text;
    if (table === undefined) return [];
    const listed = this.#listedBy;
    return listed === undefined ? [path] : [...new Set([path, GRAPH_FILES[fileOf(listed.documents)]])];
  }

  get #listedBy(): { documents: TableName; names: TableName } | undefined {
    const { table } = this.text;
    return table === undefined || this.text.class !== 'promise' ? undefined : LISTED_BY[table];
  }

  /** Uses a name that was looked up before. */
  reuse(known: NamedNumber | undefined): void {
    if (known === undefined) return;
    this.#names.set(known.number, new Set([known.name]));
    this.#documents.set(known.number, new Set(known.documents));
  }

  /** Returns the names that were looked up. */
  names(): NamedNumber[] {
    return this.first.flatMap((number) => {
      const [name] = this.#names.get(number) ?? [];
      const documents = [...(this.#documents.get(number) ?? [])];
      return name === undefined ? [] : [{ number, name, documents }];
    });
  }

  /** Returns what takes the names of a file that is read again; none if it does not concern this lack. */
  sink(path: string): TakeName[] {
    const wanted = Float64Array.from(this.first);
    const sinks: TakeName[] = [];
    const { table } = this.text;
    if (table === undefined) return sinks;
    if (path === this.path)
      sinks.push((from, number, parts) => {
        if (from === table && has(wanted, number)) addTo(this.#names, number, keyText(Buffer.concat(parts)));
      });
    const listed = this.#listedBy;
    if (listed !== undefined && path === GRAPH_FILES[fileOf(listed.documents)]) {
      let last = { document: '', number: 0 };
      sinks.push((from, number, parts) => {
        if (from === listed.names) last = { ...last, number };
        else if (from === listed.documents) last = { ...last, document: keyText(Buffer.concat(parts)) };
        // A chunk is followed by its document; elsewhere the document comes first.
        const isLink = listed.names === 'chunks' ? from === listed.documents : from === listed.names;
        if (isLink && has(wanted, last.number)) addTo(this.#documents, last.number, last.document);
      });
    }
    return sinks;
  }

  finding(): Finding {
    const keys = this.first.flatMap((number) => [...(this.#names.get(number) ?? [])]);
    const documents = new Set(this.first.flatMap((number) => [...(this.#documents.get(number) ?? [])]));
    return lackFinding(this.text, { count: this.numbers.length, keys, documents: [...documents] });
  }
}

function addTo(map: Map<number, Set<string>>, number: number, text: string): void {
  const texts = map.get(number) ?? new Set();
  if (texts.size < KEYS_MAX) texts.add(text);
  map.set(number, texts);
}

function lackFinding(
  { code, class: ruleClass, path, table, state, hint }: LackText,
  names: { count: number; keys: readonly string[]; documents: readonly string[] },
): Finding {
  const { count } = names;
  const keys = [...names.keys].sort().slice(0, KEYS_MAX);
  const isOfFile = table === undefined && keys.length === 0;
  const documents = shown(names.documents, names.documents.length);
  const message = `${state}${isOfFile ? '' : ` (${count})`}${keys.length === 0 ? '' : `: ${shown(keys, count)}`}`;
  return finding(code, SEVERITIES[ruleClass], path, {
    message:
      documents === '' || table === 'processed' ? message : `${message}; documents concerned: ${documents}`,
    hint,
    count,
    keys,
  });
}

/** Returns the first of some names, quoted. */
function shown(names: readonly string[], count: number): string {
  const first = [...names].sort().slice(0, KEYS_IN_MESSAGE);
  return `${first.map((name) => `"${name}"`).join(', ')}${count > first.length ? ', …' : ''}`;
}

/** Returns the first line of a name, shortened for a message. */
export function keyText(text: Buffer): string {
  const end = text.indexOf('\n');
  const bytes = end < 0 ? text : text.subarray(0, end);
  return bytes.length <= KEY_BYTES_MAX
    ? bytes.toString('utf8')
    : `${bytes.toString('utf8', 0, KEY_BYTES_MAX)}…`;
}
