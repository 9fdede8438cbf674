import { create } from '@bufbuild/protobuf';
import {
  type Finding,
  type GraphStats,
  GraphStatsSchema,
  Severity_Value,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { errorFinding, finding, warning } from '../finding.ts';
import type { ChunkReader, LayoutError, LayoutFlaw } from './chunk-reader.ts';
import { type FactSink, TABLES, type TableName } from './facts.ts';
import type { FileFacts } from './facts-codec.ts';
import {
  FaissIndexReader,
  FaissMetaReader,
  faissFindings,
  faissIndexOf,
  faissInPlaceOf,
  faissMetaOf,
} from './faiss.ts';
import { graphReader } from './graph-facts.ts';
import { otherRecords, RECORD_FILES } from './kv-files.ts';
import { missingNames, NameTable, NumberPool, nameNumber } from './name-table.ts';
import { RecordReader } from './record-reader.ts';
import { FLAWS, GRAPH_FILES, type GraphFile, IMPLIED, RULES, TABLES_OF, UNIQUE } from './rules.ts';
import { VectorReader, vectorFileOf } from './vector-reader.ts';

/** Most names in one finding. */
const KEYS_MAX = 20;
const KEYS_IN_MESSAGE = 3;
const KEY_BYTES_MAX = 200;
/** Most names that are stored with the facts of one file. */
const NAMES_MAX = 500;

const FLAW_WORDS: Readonly<Record<LayoutFlaw, string>> = {
  empty: 'empty_file',
  cut: 'cut_file',
  malformed: 'malformed_file',
};

/** Conditions under which the files were read. */
export interface CheckContext {
  /** Whether the instance was idle; undefined if unknown. */
  readonly idle: boolean | undefined;
  /** Names of the files in the state before; undefined if there is none. */
  readonly before?: ReadonlySet<string>;
}

type Gravity = 'error' | 'warning' | 'sign';
const SEVERITIES: Readonly<Record<Gravity, Severity_Value>> = {
  error: Severity_Value.ERROR,
  warning: Severity_Value.WARNING,
  sign: Severity_Value.INFO,
};

/** A violated rule, before the names are known. */
interface Lack {
  readonly code: string;
  readonly weight: Gravity;
  readonly file: string;
  readonly table: TableName;
  readonly state: string;
  readonly hint: string;
  readonly count: number;
  readonly first: readonly number[];
}

/** Reports whether a path in a directory is a file of a LightRAG graph. */
export function isGraphFile(path: string): boolean {
  return /^(?:kv_store_.+\.json|vdb_.+\.json|graph_.+\.graphml|_lightrag_config\/.+\.json|faiss_index_.+\.index(?:\.meta\.json)?)$/.test(
    path,
  );
}

function readerOf(path: string, facts: FactSink, options: { rowsOnly?: boolean } = {}): ChunkReader {
  if (path.endsWith('.graphml')) return graphReader(facts, path === GRAPH_FILES.graph);
  const [, records = ''] = /^kv_store_(.+)\.json$/.exec(path) ?? [];
  const known = Object.hasOwn(RECORD_FILES, records) ? RECORD_FILES[records] : undefined;
  if (known !== undefined) return new RecordReader(known(facts));
  if (faissIndexOf(path) !== undefined) return new FaissIndexReader(facts);
  const namespace = faissMetaOf(path);
  if (namespace !== undefined) return new FaissMetaReader(facts, namespace);
  const vectors = vectorFileOf(path);
  if (vectors !== undefined) return new VectorReader(facts, vectors, options);
  return new RecordReader(otherRecords(facts), { any: true });
}

/** Number and names of the flaws of one kind in one file. */
interface FlawCount {
  readonly file: string;
  readonly code: string;
  count: number;
  readonly keys: string[];
}

/**
 * The checks of a LightRAG directory.
 *
 * Each file is read once by its reader, in any order. Then `compare` returns the files to read again for the names
 * in the findings.
 */
// Names are held as numbers of eight bytes each, so their texts need a second read.
export class GraphCheck {
  readonly #tables: Record<TableName, NameTable>;
  readonly #whole = new Set<string>();
  readonly #seen = new Set<string>();
  readonly #broken: Finding[] = [];
  readonly #flaws = new Map<string, FlawCount>();
  readonly #dimensions = new Map<string, number>();
  readonly #vectors = new Map<string, number>();
  readonly #matrices = new Map<string, number>();
  #lacks: Lack[] = [];
  readonly #names = new Map<number, Set<string>>();
  /** Stored facts of the files that were not read. */
  readonly #known = new Map<string, FileFacts>();

  constructor(rooms = new NumberPool()) {
    const tables = TABLES.map((name) => [name, new NameTable(rooms)] as const);
    this.#tables = Object.fromEntries(tables) as Record<TableName, NameTable>;
  }

  /**
   * Returns the reader of a file. Call `finished` after its end, or `failed`. With `rowsOnly` only the rows of a
   * vector file are read.
   */
  reader(path: string, options: { rowsOnly?: boolean } = {}): ChunkReader {
    this.#seen.add(path);
    const facts: FactSink = {
      name: (table, ...parts) => this.#tables[table].add(nameNumber(...parts)),
      flaw: (code, name) => this.#flaw(path, code, keyText(name)),
      vectors: (count, dimension, matrixAt) => {
        if (dimension > 0) this.#dimensions.set(path, dimension);
        this.#vectors.set(path, count);
        this.#matrices.set(path, matrixAt);
      },
    };
    return readerOf(path, facts, options);
  }

  /** Records that a file was read to its end. */
  finished(path: string): void {
    this.#whole.add(path);
  }

  /** Uses the stored facts of the same bytes instead of reading a file. */
  reuse(path: string, facts: FileFacts): void {
    this.#seen.add(path);
    this.#whole.add(path);
    this.#known.set(path, facts);
    for (const [name, numbers] of facts.tables)
      this.#tables[name] = NameTable.of(numbers, facts.repeated.get(name) ?? []);
    for (const { code, count, keys } of facts.flaws)
      this.#flaws.set(`${path} ${code}`, { file: path, code, count, keys: [...keys] });
    if (facts.dimension > 0) this.#dimensions.set(path, facts.dimension);
    if (facts.dimension > 0 || facts.vectors > 0) this.#vectors.set(path, facts.vectors);
    this.#matrices.set(path, facts.matrixAt);
  }

  /** Returns the facts of a file to be stored; undefined if it is malformed. */
  facts(path: string): FileFacts | undefined {
    if (!this.#whole.has(path)) return undefined;
    const tables = TABLES_OF.get(path) ?? [];
    const named = new Map(this.#known.get(path)?.names);
    for (const { file, first } of this.#lacks) {
      if (file !== path) continue;
      for (const number of first) {
        const [name] = this.#names.get(number) ?? [];
        if (name !== undefined) named.set(number, name);
      }
    }
    return {
      tables: new Map(tables.map((name) => [name, this.#tables[name].numbers])),
      repeated: new Map(
        tables
          .filter((name) => Object.hasOwn(UNIQUE, name))
          .map((name) => [name, this.#tables[name].repeated]),
      ),
      flaws: [...this.#flaws.values()].filter(({ file }) => file === path),
      vectors: this.#vectors.get(path) ?? 0,
      dimension: this.#dimensions.get(path) ?? 0,
      matrixAt: this.#matrices.get(path) ?? 0,
      incrementalChecks: this.#known.get(path)?.incrementalChecks ?? 0,
      names: [...named].slice(-NAMES_MAX),
    };
  }

  /** Records that a file could not be read. */
  failed(path: string, error: LayoutError): void {
    this.#broken.push(
      errorFinding(FLAW_WORDS[error.flaw], path, {
        message: error.message.replace('Cannot read the file', 'it cannot be read'),
        hint: 'restore an earlier point: the instance does not start with this file, or loses its contents',
      }),
    );
  }

  #flaw(file: string, code: string, key: string): void {
    const known = this.#flaws.get(`${file} ${code}`) ?? { file, code, count: 0, keys: [] };
    known.count += 1;
    if (known.keys.length < KEYS_MAX) known.keys.push(key);
    this.#flaws.set(`${file} ${code}`, known);
  }

  /** Compares the files. Returns those that must be read again, by `nameReader`, before `findings`. */
  compare({ idle, before }: CheckContext): string[] {
    this.#lacks = [];
    for (const { code, weight, items, from, known, to, state, hint } of RULES) {
      const [fromFile, toFile] = [GRAPH_FILES[from], GRAPH_FILES[to]];
      if (!this.#whole.has(fromFile) || !this.#whole.has(toFile)) continue;
      const { count, first } = missingNames(this.#tables[items], this.#tables[known], KEYS_MAX);
      if (count === 0) continue;
      const heavy = weight === 'error' || (weight === 'under way' && idle === true);
      const lack = { code, file: fromFile, table: items, state, hint, count, first };
      this.#lacks.push({ ...lack, weight: heavy ? 'error' : weight === 'sign' ? 'sign' : 'warning' });
    }
    for (const [table, from] of Object.entries(UNIQUE) as [TableName, GraphFile][]) {
      const file = GRAPH_FILES[from];
      const first = this.#whole.has(file) ? this.#tables[table].repeated : [];
      const { state = '', hint = '' } = FLAWS.duplicate_id ?? {};
      if (first.length === 0) continue;
      this.#lacks.push({
        code: 'duplicate_id',
        weight: 'error',
        file,
        table,
        state,
        hint,
        count: first.length,
        first,
      });
    }
    this.#findMissingFiles(before);
    this.#findMixedDimensions();
    this.#broken.push(...faissFindings({ seen: this.#seen, whole: this.#whole, vectors: this.#vectors }));
    return [...new Set(this.#lacks.filter((lack) => !this.#reuseNames(lack)).map(({ file }) => file))];
  }

  /** Uses the stored names for a violated rule. Returns false if the file must be read for them. */
  // Of two names with the same number only one is stored.
  #reuseNames({ file, first, code }: Lack): boolean {
    const names = new Map(this.#known.get(file)?.names);
    if (code === 'duplicate_id' || first.some((number) => !names.has(number))) return false;
    for (const number of first) this.#names.set(number, new Set([names.get(number) ?? '']));
    return true;
  }

  /** Returns a reader that collects the names of violated rules in a file. */
  nameReader(path: string): ChunkReader {
    const wanted = new Map<TableName, Set<number>>();
    for (const { file, table, first } of this.#lacks) {
      if (file !== path) continue;
      const numbers = wanted.get(table) ?? new Set();
      for (const number of first) numbers.add(number);
      wanted.set(table, numbers);
    }
    const collect = (table: TableName, ...parts: readonly Buffer[]) => {
      const numbers = wanted.get(table);
      if (numbers === undefined) return;
      const number = nameNumber(...parts);
      if (!numbers.has(number)) return;
      const names = this.#names.get(number) ?? new Set();
      if (names.size < KEYS_MAX) names.add(keyText(Buffer.concat(parts)));
      this.#names.set(number, names);
    };
    return readerOf(path, { name: collect, flaw: () => {}, vectors: () => {} });
  }

  /** Returns all findings, errors first. */
  findings(): Finding[] {
    const lacks = this.#lacks.flatMap((lack) => {
      const named = lack.first.flatMap((number) => [...(this.#names.get(number) ?? [])]);
      // Two names with the same number are no duplicate.
      const isOne = (number: number) => (this.#names.get(number)?.size ?? 0) < 2;
      if (lack.code === 'duplicate_id' && !lack.first.some(isOne)) return [];
      return [lackFinding(lack, named)];
    });
    const flaws = [...this.#flaws.values()].flatMap(({ file, code, count, keys }) => {
      const flaw = FLAWS[code];
      return flaw === undefined ? [] : [lackFinding({ ...flaw, code, file, count }, keys)];
    });
    const all = [...this.#broken, ...flaws, ...lacks];
    return all.sort((a, b) => b.severity - a.severity);
  }

  get stats(): GraphStats {
    const size = (table: TableName) => BigInt(this.#tables[table].size);
    const [dimension = 0] = this.#dimensions.values();
    return create(GraphStatsSchema, {
      documents: size('documents'),
      chunks: size('chunks'),
      entities: size('nodes'),
      relations: size('edges'),
      vectors: BigInt(
        [...this.#vectors].reduce((sum, [path, count]) => sum + (faissMetaOf(path) ? 0 : count), 0),
      ),
      dimension,
    });
  }

  #findMissingFiles(before: ReadonlySet<string> | undefined): void {
    const reported = new Set<string>();
    for (const { table, in: from, file, state } of IMPLIED) {
      const name = GRAPH_FILES[file];
      if (
        this.#seen.has(name) ||
        this.#seen.has(faissInPlaceOf(name)) ||
        reported.has(name) ||
        !this.#whole.has(GRAPH_FILES[from])
      )
        continue;
      if (this.#tables[table].size === 0) continue;
      reported.add(name);
      const lost = before?.has(name) === true;
      this.#broken.push(
        (lost ? errorFinding : warning)('missing_file', name, {
          message: `it is not there, though ${state}${lost ? '; the point before had it' : ''}`,
          hint: lost ? 'restore it from the point before' : 'let the instance write it again, or leave it',
        }),
      );
    }
  }

  #findMixedDimensions(): void {
    const dimensions = new Set(this.#dimensions.values());
    if (dimensions.size < 2) return;
    const sizes = [...this.#dimensions].map(([path, dimension]) => `${path} ${dimension}`);
    this.#broken.push(
      errorFinding('mixed_dimensions', [...this.#dimensions.keys()].sort()[0] ?? '', {
        message: `its vectors do not have the dimension of the others: ${sizes.sort().join(', ')}`,
        hint: 'let the instance embed everything again with one model, or restore an earlier point',
      }),
    );
  }
}

function lackFinding(
  what: {
    weight: Gravity;
    code: string;
    file: string;
    state: string;
    hint: string;
    count: number;
  },
  names: readonly string[],
): Finding {
  const keys = [...names].sort().slice(0, KEYS_MAX);
  const first = keys.slice(0, KEYS_IN_MESSAGE).map((key) => `"${key}"`);
  const shown = first.length === 0 ? '' : `: ${first.join(', ')}${what.count > first.length ? ', …' : ''}`;
  return finding(what.code, SEVERITIES[what.weight], what.file, {
    message: `${what.state} (${what.count})${shown}`,
    hint: what.hint,
    count: what.count,
    keys,
  });
}

/** Returns the first line of a name, shortened for a message. */
function keyText(text: Buffer): string {
  const end = text.indexOf('\n');
  const bytes = end < 0 ? text : text.subarray(0, end);
  return bytes.length <= KEY_BYTES_MAX
    ? bytes.toString('utf8')
    : `${bytes.toString('utf8', 0, KEY_BYTES_MAX)}…`;
}
