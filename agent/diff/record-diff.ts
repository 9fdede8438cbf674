import { create } from '@bufbuild/protobuf';
import type { ChunkReader } from '../../core/lightrag/chunk-reader.ts';
import { DigestTable, graphDigests, RecordDigests } from '../../core/lightrag/digest.ts';
import { pairName } from '../../core/lightrag/facts.ts';
import { GraphReader } from '../../core/lightrag/graphml.ts';
import { nameNumber } from '../../core/lightrag/name-table.ts';
import { RecordPicker } from '../../core/lightrag/record-picker.ts';
import { type RowEvents, VectorRows } from '../../core/lightrag/row-reader.ts';
import { GRAPH_FILES } from '../../core/lightrag/rules.ts';
import { type VectorFile, vectorFileOf } from '../../core/lightrag/vector-reader.ts';
import {
  type RecordChanges,
  RecordChangesSchema,
  type RecordCounts,
  RecordCountsSchema,
  type VectorChanges,
  VectorChangesSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type FileSource, readSource } from '../snapshots/graph-files.ts';
import type { Store } from '../store/store.ts';
import { withoutCommonRecords } from './changed-records.ts';
import type { FilePair } from './file-pair.ts';

/** Most names listed of each kind of change. */
const NAMES_MAX = 1000;

/** Paths of the files of a graph. */
const KNOWN_PATHS: ReadonlySet<string> = new Set(Object.values(GRAPH_FILES));

/** Changes of the records in one file. */
export interface FileRecords {
  readonly counts: RecordCounts;
  /** Changes of the records; in the graph, of its nodes. */
  readonly records: RecordChanges;
  /** Changes of the edges; undefined for a file other than the graph. */
  readonly edges?: RecordChanges;
  /** Changes of the vectors; undefined for a file without vectors. */
  readonly vectors?: VectorChanges;
}

/**
 * Compares the records of two states of a graph's file. Returns undefined for a file without known records. Throws
 * `LayoutError` for a state that is not well-formed; the matrix of a vector file is checked only if it is compared.
 */
export async function compareRecords(
  store: Store,
  path: string,
  { before, after, signal }: FilePair & { readonly signal?: AbortSignal | undefined },
): Promise<FileRecords | undefined> {
  const pair = { before, after };
  const vectorFile = vectorFileOf(path);
  if (vectorFile !== undefined) return await compareVectors(vectorFile, pair, { store, signal });
  const layout =
    path === GRAPH_FILES.graph ? GRAPH_LAYOUT : KNOWN_PATHS.has(path) ? RECORD_LAYOUT : undefined;
  if (layout === undefined) return undefined;
  const [records = noChanges(), edges] = await compareFile(
    await withoutCommonRecords(store, pair),
    layout,
    signal,
  );
  const counts = countsOf(edges === undefined ? [records] : [records, edges], 0n);
  return { counts, records, ...(edges && { edges }) };
}

/** Compares the rows and the vectors of two states of a vector file. */
// Rows in both states are skipped, unless some rows have their vectors in the matrix only.
async function compareVectors(
  file: VectorFile,
  pair: FilePair,
  { store, signal }: { readonly store: Store; readonly signal: AbortSignal | undefined },
): Promise<FileRecords> {
  const seen = { bare: false };
  const different = await withoutCommonRecords(store, pair);
  let changes = await compareFile(different, vectorLayout(file, false, seen), signal);
  if (seen.bare) changes = await compareFile(pair, vectorLayout(file, true, seen), signal);
  const [records = noChanges(), { changedCount, changed } = noChanges()] = changes;
  const vectors = create(VectorChangesSchema, {
    addedCount: records.addedCount,
    removedCount: records.removedCount,
    reembeddedCount: changedCount,
    reembedded: changed.map(({ name }) => name),
  });
  return { counts: countsOf([records], changedCount), records, vectors };
}

function noChanges(): RecordChanges {
  return create(RecordChangesSchema);
}

function countsOf(all: readonly RecordChanges[], reembedded: bigint): RecordCounts {
  const counts = create(RecordCountsSchema, { reembedded });
  for (const { addedCount, removedCount, changedCount } of all) {
    counts.added += addedCount;
    counts.removed += removedCount;
    counts.changed += changedCount;
  }
  return counts;
}

/** One state of a record: its name, and a hash of each field's value. */
interface Sample {
  readonly name: string;
  readonly fields: ReadonlyMap<string, number>;
}
type Samples = ReadonlyMap<number, Sample>;

/** Readers of a file layout, with one table for each kind of record in it. */
interface RecordLayout {
  /** Number of kinds of record. */
  readonly tables: number;
  /** Returns a reader that fills tables with the digests of all records. */
  digests(tables: readonly DigestTable[]): ChunkReader;
  /** Returns a reader that collects the wanted records. */
  samples(wanted: readonly ReadonlySet<number>[], tables: readonly Map<number, Sample>[]): ChunkReader;
}

const RECORD_LAYOUT: RecordLayout = {
  tables: 1,
  digests: ([table]) => new RecordDigests((name, content) => table?.add(nameNumber(name), content)),
  samples: ([wanted], [table]) =>
    new RecordPicker(
      (id) => wanted?.has(nameNumber(Buffer.from(id))) === true,
      (id, value) => {
        const fields = typeof value === 'object' && value !== null ? Object.entries(value) : [];
        const numbers = fields.map(
          ([key, field]) => [key, nameNumber(Buffer.from(JSON.stringify(field)))] as const,
        );
        table?.set(nameNumber(Buffer.from(id)), { name: id, fields: new Map(numbers) });
      },
    ),
};

const GRAPH_LAYOUT: RecordLayout = {
  tables: 2,
  digests: ([nodes, edges]) =>
    graphDigests(
      (name, content) => nodes?.add(nameNumber(name), content),
      (name, content) => edges?.add(nameNumber(name), content),
    ),
  samples: (wanted, tables) => {
    let fields: Map<string, number> | undefined;
    const begin = (kind: number, name: Buffer) => {
      const number = nameNumber(name);
      fields = wanted[kind]?.has(number) === true ? new Map() : undefined;
      if (fields !== undefined) tables[kind]?.set(number, { name: name.toString('utf8'), fields });
    };
    const events = {
      node: (id: Buffer) => begin(0, id),
      edge: (source: Buffer, target: Buffer) => begin(1, pairName(source, target)),
      data: (name: string, text: Buffer) => fields?.set(name, nameNumber(text)),
    };
    return new GraphReader(events, 'all');
  },
};

/** Returns the layout of a vector file. Sets `seen.bare` if a row has its vector in the matrix only. */
function vectorLayout(file: VectorFile, withMatrix: boolean, seen: { bare: boolean }): RecordLayout {
  const reader = (row: RowEvents['row'], vector: RowEvents['vector']): ChunkReader => {
    const bare = () => {
      seen.bare = true;
    };
    return new VectorRows(file, { row, vector, bare }, withMatrix);
  };
  return {
    tables: 2,
    digests: ([rows, vectors]) =>
      reader(
        (name, fields) => rows?.add(nameNumber(name), fieldsNumber(fields)),
        (name, content) => vectors?.add(name, content),
      ),
    samples: ([wantedRows, wantedVectors], [rows, vectors]) =>
      reader(
        (bytes, fields) => {
          const number = nameNumber(bytes);
          const name = bytes.toString('utf8');
          if (wantedRows?.has(number) === true) rows?.set(number, { name, fields: new Map(fields) });
          if (wantedVectors?.has(number) === true) vectors?.set(number, { name, fields: new Map() });
        },
        () => {},
      ),
  };
}

function fieldsNumber(fields: ReadonlyMap<string, number>): number {
  return nameNumber(Buffer.from([...fields].join('\0')));
}

async function compareFile(
  { before, after }: FilePair,
  layout: RecordLayout,
  signal: AbortSignal | undefined,
): Promise<RecordChanges[]> {
  const tablesOf = <T>(make: () => T) => Array.from({ length: layout.tables }, make);
  const digestsOf = async (source: FileSource | undefined) => {
    const tables = tablesOf(() => new DigestTable());
    if (source !== undefined) await readSource(source, layout.digests(tables), signal);
    return tables;
  };
  const [old, now] = [await digestsOf(before), await digestsOf(after)];
  const changes = old.map((table, i) => compareTables(table, now[i] ?? new DigestTable()));
  const samplesOf = async (source: FileSource | undefined, pick: (change: Changes) => number[]) => {
    const tables = tablesOf((): Map<number, Sample> => new Map());
    const wanted = changes.map((change) => new Set(pick(change)));
    if (source !== undefined) await readSource(source, layout.samples(wanted, tables), signal);
    return tables;
  };
  const older = await samplesOf(before, ({ removed, changed }) => [...removed.first, ...changed.first]);
  const newer = await samplesOf(after, ({ added, changed }) => [...added.first, ...changed.first]);
  return changes.map((change, i) => toRecordChanges(change, older[i] ?? new Map(), newer[i] ?? new Map()));
}

/** Records with one kind of change, by the hashes of their names. */
interface NumberList {
  count: number;
  /** The first of them, at most `NAMES_MAX`. */
  readonly first: number[];
}

interface Changes {
  readonly added: NumberList;
  readonly removed: NumberList;
  readonly changed: NumberList;
}

function compareTables(before: DigestTable, after: DigestTable): Changes {
  const changes = { added: emptyList(), removed: emptyList(), changed: emptyList() };
  const [old, now] = [before.sorted(), after.sorted()];
  let at = 0;
  const removeUpTo = (name: number) => {
    while (at < old.names.length && (old.names[at] as number) < name)
      add(changes.removed, old.names[at++] as number);
  };
  for (const [i, name] of now.names.entries()) {
    removeUpTo(name);
    if (old.names[at] !== name) add(changes.added, name);
    else if (old.contents[at++] !== now.contents[i]) add(changes.changed, name);
  }
  removeUpTo(Number.POSITIVE_INFINITY);
  return changes;
}

function emptyList(): NumberList {
  return { count: 0, first: [] };
}

function add(list: NumberList, name: number): void {
  if (list.count++ < NAMES_MAX) list.first.push(name);
}

function toRecordChanges(
  { added, removed, changed }: Changes,
  older: Samples,
  newer: Samples,
): RecordChanges {
  const names = ({ first }: NumberList, samples: Samples) =>
    first.flatMap((number) => samples.get(number)?.name ?? []).sort();
  const differing = changed.first.flatMap((number) => {
    const [old, now] = [older.get(number), newer.get(number)];
    if (old === undefined || now === undefined) return [];
    const fields = [...new Set([...old.fields.keys(), ...now.fields.keys()])];
    return [
      { name: now.name, fields: fields.filter((key) => old.fields.get(key) !== now.fields.get(key)).sort() },
    ];
  });
  return create(RecordChangesSchema, {
    addedCount: BigInt(added.count),
    removedCount: BigInt(removed.count),
    changedCount: BigInt(changed.count),
    added: names(added, newer),
    removed: names(removed, older),
    changed: differing.sort((a, b) => (a.name < b.name ? -1 : 1)),
  });
}
