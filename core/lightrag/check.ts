import { create } from '@bufbuild/protobuf';
import { type Finding, type GraphStats, GraphStatsSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { warning } from '../finding.ts';
import { pathText } from '../path.ts';
import type { ChunkReader, LayoutError } from './chunk-reader.ts';
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
import { otherRecords, RECORD_FILES, RECORD_KINDS } from './kv-files.ts';
import { KEYS_MAX, keyText, Lack, type LackText } from './lack.ts';
import { NameTable, NumberPool, nameNumber } from './name-table.ts';
import { type FileState, PromiseCheck } from './promise.ts';
import { RecordReader } from './record-reader.ts';
import { FLAWS, fileOf, GRAPH_FILES, type GraphFile, MAY_BE_EMPTY, TABLES_OF, UNIQUE } from './rules.ts';
import { NO_NUMBERS, without } from './sorted-numbers.ts';
import type { StandingKeys } from './standing.ts';
import { VectorReader, vectorFileOf } from './vector-reader.ts';
import {
  layoutFinding,
  lostNamesFinding,
  missingFileText,
  mixedDimensions,
  unfinishedFinding,
} from './wording.ts';

/** Most names that are stored with the facts of one file. */
const NAMES_MAX = 500;

/** Codes of names that occur twice, where a server loses something. Relations have a row for each order of their ends. */
const DUPLICATE_CODES: Readonly<Partial<Record<TableName, string>>> = {
  chunkVectors: 'duplicate_row',
  entityVectors: 'duplicate_row',
  edges: 'duplicate_edge',
};
const DUPLICATES: ReadonlySet<string> = new Set(['duplicate_id', ...Object.values(DUPLICATE_CODES)]);

/** What earlier states of the graph showed. */
export interface CheckContext {
  /** Paths of the files in the newest usable state; undefined if there is none. */
  readonly before?: ReadonlySet<string> | undefined;
  /** Broken promises that stand. */
  readonly standing?: StandingKeys | undefined;
}

/** A finding of the checks with the numbers of all its names. */
export interface CheckFinding {
  readonly finding: Finding;
  /** Empty for findings that never stand. */
  readonly numbers: Float64Array;
  readonly stands: boolean;
}

/** Reports whether a path in a directory is a file of a LightRAG graph. */
export function isGraphFile(path: string): boolean {
  return /^(?:kv_store_.+\.json|vdb_.+\.json|graph_.+\.graphml|_lightrag_config\/.+\.json|faiss_index_.+\.index(?:\.meta\.json)?)$/.test(
    path,
  );
}

/** Pattern of a file of a graph in a direct subfolder, and of the subfolder. */
const WORKSPACE_FILE = /^([^/]+)\/(?:kv_store_.+\.json|vdb_.+\.json|graph_.+\.graphml|faiss_index_.+)$/;

/** Returns the workspace in which a path is a file of a graph; undefined if it is none. */
export function workspaceOf(path: string): string | undefined {
  const workspace = WORKSPACE_FILE.exec(path)?.[1];
  return workspace?.startsWith('.') === true ? undefined : workspace;
}

/** Returns the finding of workspaces whose graphs were not checked; undefined if there are none. */
export function unsplitFinding(paths: Iterable<string>): Finding | undefined {
  const workspaces = new Set<string>();
  for (const path of paths) {
    const workspace = workspaceOf(path);
    if (workspace !== undefined) workspaces.add(pathText(workspace));
  }
  if (workspaces.size === 0) return undefined;
  const keys = [...workspaces].sort().slice(0, KEYS_MAX);
  return warning('workspaces_unchecked', keys[0] ?? '', {
    message: `the graphs in ${workspaces.size} workspaces were not checked: ${keys.join(', ')}`,
    hint: 'use --split, so that each workspace is a graph of its own',
    count: workspaces.size,
    keys,
  });
}

function readerOf(path: string, facts: FactSink, options: { rowsOnly?: boolean } = {}): ChunkReader {
  if (path.endsWith('.graphml')) return graphReader(facts, path === GRAPH_FILES.graph);
  const [, records = ''] = /^kv_store_(.+)\.json$/.exec(path) ?? [];
  const known = Object.hasOwn(RECORD_FILES, records) ? RECORD_FILES[records] : undefined;
  const kinds = Object.hasOwn(RECORD_KINDS, records) ? RECORD_KINDS[records] : undefined;
  if (known !== undefined || kinds !== undefined)
    return new RecordReader(known?.(facts) ?? otherRecords(facts), { records: kinds ?? 'maps' });
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
 * Each file is read once by its reader, in any order. Then `compare` returns the files to read again by `rereader`,
 * until there are none, and `findings` returns what was found.
 */
// Names are held as numbers of eight bytes each, so their texts need another read.
export class GraphCheck {
  readonly #tables: Record<TableName, NameTable>;
  readonly #whole = new Set<string>();
  readonly #seen = new Set<string>();
  readonly #broken: CheckFinding[] = [];
  readonly #flaws = new Map<string, FlawCount>();
  readonly #dimensions = new Map<string, number>();
  readonly #vectors = new Map<string, number>();
  readonly #matrices = new Map<string, number>();
  #promises: PromiseCheck | undefined;
  #lacks: Lack[] | undefined;
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
    const named = new Map(this.#known.get(path)?.names.map((one) => [one.number, one]));
    for (const lack of this.#lacks ?? [])
      if (lack.path === path) for (const one of lack.names()) named.set(one.number, one);
    return {
      tables: new Map(tables.map((name) => [name, this.#tables[name].numbers])),
      repeated: new Map(
        tables.filter((name) => UNIQUE.includes(name)).map((name) => [name, this.#tables[name].repeated]),
      ),
      flaws: [...this.#flaws.values()].filter(({ file }) => file === path),
      vectors: this.#vectors.get(path) ?? 0,
      dimension: this.#dimensions.get(path) ?? 0,
      matrixAt: this.#matrices.get(path) ?? 0,
      incrementalChecks: this.#known.get(path)?.incrementalChecks ?? 0,
      names: [...named.values()].slice(-NAMES_MAX),
    };
  }

  /** Records that a file could not be read. */
  failed(path: string, error: LayoutError): void {
    const isHarmless = error.flaw === 'empty' && MAY_BE_EMPTY.has(path);
    this.#broken.push(unlisted(layoutFinding(path, error, isHarmless)));
    if (isHarmless) this.#whole.add(path);
  }

  #flaw(file: string, code: string, key: string): void {
    const known = this.#flaws.get(`${file} ${code}`) ?? { file, code, count: 0, keys: [] };
    known.count += 1;
    if (known.keys.length < KEYS_MAX) known.keys.push(key);
    this.#flaws.set(`${file} ${code}`, known);
  }

  /**
   * Compares the files. Returns those that must be read again by `rereader`. Call it until there are none, and then
   * `findings`.
   */
  compare(context: CheckContext = {}): string[] {
    if (this.#lacks !== undefined) return [];
    this.#promises ??= new PromiseCheck({
      numbers: (table) => this.#numbers(table),
      state: (file) => this.#state(file),
    });
    const reads = this.#promises.nextReads();
    if (reads.length > 0) return reads.map((file) => GRAPH_FILES[file]);
    this.#lacks = this.#findLacks(this.#promises, context);
    const unnamed = this.#lacks.filter((lack) => !this.#reuseNames(lack));
    return [...new Set(unnamed.flatMap((lack) => lack.sources()))].filter((path) => this.#whole.has(path));
  }

  #numbers(table: TableName): Float64Array {
    return this.#state(fileOf(table)) === 'read' ? this.#tables[table].numbers : NO_NUMBERS;
  }

  #state(file: GraphFile): FileState {
    const path = GRAPH_FILES[file];
    if (this.#whole.has(path)) return 'read';
    // A Faiss index stands in place of a file of vectors. Its names are not read.
    return this.#seen.has(path) || this.#seen.has(faissInPlaceOf(path)) ? 'unknown' : 'absent';
  }

  #findLacks(promises: PromiseCheck, { before, standing }: CheckContext): Lack[] {
    const missing = promises.missingFiles(before);
    const lacks: Lack[] = [];
    const add = (text: LackText, numbers: Float64Array) => lacks.push(...Lack.split(text, numbers, standing));
    for (const { file, state } of missing) add(missingFileText(file, state), Float64Array.of(nameNumber()));
    for (const { rule, broken, left } of promises.violations(new Set(missing.map(({ file }) => file)))) {
      const { code, items, from } = rule;
      const place = { code, path: GRAPH_FILES[from], table: items };
      if (broken.length > 0 && rule.broken !== undefined)
        add({ ...place, ...rule.broken, class: 'promise' }, broken);
      if (left.length > 0 && rule.left !== undefined) add({ ...place, ...rule.left }, left);
    }
    for (const table of UNIQUE) {
      const path = GRAPH_FILES[fileOf(table)];
      const repeated = this.#whole.has(path) ? this.#tables[table].repeated : [];
      const code = DUPLICATE_CODES[table] ?? 'duplicate_id';
      const flaw = FLAWS[code];
      if (repeated.length > 0 && flaw !== undefined)
        add({ ...flaw, code, path, table }, Float64Array.from(repeated));
    }
    return lacks;
  }

  /** Uses the stored names for a violated rule. Returns false if files must be read for them. */
  // Of two names with the same number only one is stored.
  #reuseNames(lack: Lack): boolean {
    if (lack.text.table === undefined) return true;
    const names = new Map(this.#known.get(lack.path)?.names.map((one) => [one.number, one]));
    if (DUPLICATES.has(lack.text.code) || lack.first.some((number) => !names.has(number))) return false;
    for (const number of lack.first) lack.reuse(names.get(number));
    return true;
  }

  /** Returns the reader of a file that `compare` returned. */
  rereader(path: string): ChunkReader {
    if (this.#lacks === undefined && this.#promises !== undefined)
      return readerOf(path, this.#promises.sink());
    const sinks = (this.#lacks ?? []).flatMap((lack) => lack.sink(path));
    const name = (table: TableName, ...parts: readonly Buffer[]) => {
      const number = nameNumber(...parts);
      for (const take of sinks) take(table, number, parts);
    };
    return readerOf(path, { name, flaw: () => {}, vectors: () => {} });
  }

  /** Returns all findings, errors first. */
  findings(): CheckFinding[] {
    const lacks = (this.#lacks ?? []).flatMap((lack) => {
      // Two names with the same number are no duplicate.
      if (DUPLICATES.has(lack.text.code) && lack.isCollision) return [];
      return [{ finding: lack.finding(), numbers: lack.numbers, stands: lack.stands }];
    });
    const flaws = [...this.#flaws.values()].flatMap(({ file, code, count, keys }) => {
      const flaw = FLAWS[code];
      const text = flaw && { ...flaw, code, path: file, table: undefined };
      return text === undefined ? [] : [unlisted(Lack.flaw(text, count, keys))];
    });
    const all = [...this.#broken, ...flaws, ...lacks];
    const faiss = faissFindings({ seen: this.#seen, whole: this.#whole, vectors: this.#vectors });
    all.push(...faiss.map(unlisted));
    all.push(...(this.#promises?.lostNames() ?? []).map((file) => unlisted(lostNamesFinding(file))));
    const mixed = mixedDimensions(this.#dimensions);
    if (mixed !== undefined) all.push(unlisted(mixed));
    const unfinished = this.#unfinished;
    if (unfinished > 0) all.push(unlisted(unfinishedFinding(unfinished)));
    return all.sort((a, b) => b.finding.severity - a.finding.severity);
  }

  get #unfinished(): number {
    return without(this.#numbers('statuses'), this.#numbers('processed')).length;
  }

  get stats(): GraphStats {
    const size = (table: TableName) => BigInt(this.#numbers(table).length);
    const [dimension = 0] = this.#dimensions.values();
    return create(GraphStatsSchema, {
      documents: size('documents'),
      processed: size('processed'),
      unfinished: BigInt(this.#unfinished),
      chunks: size('chunks'),
      entities: size('nodes'),
      relations: size('edges'),
      vectors: BigInt(
        [...this.#vectors].reduce((sum, [path, count]) => sum + (faissMetaOf(path) ? 0 : count), 0),
      ),
      dimension,
    });
  }
}

function unlisted(finding: Finding): CheckFinding {
  return { finding, numbers: NO_NUMBERS, stands: false };
}
