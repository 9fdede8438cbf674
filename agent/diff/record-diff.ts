import { create } from '@bufbuild/protobuf';
import type { ChunkReader } from '../../core/lightrag/chunk-reader.ts';
import { DigestTable, graphDigests, RecordDigests } from '../../core/lightrag/digest.ts';
import { pairName } from '../../core/lightrag/facts.ts';
import { GraphReader } from '../../core/lightrag/graphml.ts';
import { nameNumber } from '../../core/lightrag/name-table.ts';
import { RecordPicker } from '../../core/lightrag/record-picker.ts';
import { type RowEvents, VectorRows } from '../../core/lightrag/row-reader.ts';
import { GRAPH_FILES, TABLES_OF } from '../../core/lightrag/rules.ts';
import { type VectorFile, vectorFileOf } from '../../core/lightrag/vector-reader.ts';
import {
  type RecordChanges,
  RecordChangesSchema,
  type RecordCounts,
  RecordCountsSchema,
  type VectorChanges,
  VectorChangesSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { feedAll, type GraphSource } from '../snapshots/graph-files.ts';
import type { Store } from '../store/store.ts';
import { withoutCommon } from './changed-records.ts';

const NAMES_MAX = 1000;

/** What became of the records of a file. */
export interface FileRecords {
  readonly counts: RecordCounts;
  /** Of a graph: its nodes. */
  readonly records: RecordChanges;
  readonly edges?: RecordChanges;
  /** Of a file of vectors. */
  readonly vectors?: VectorChanges;
}

/**
 * Compares two states of a file of a graph, either of which may not be there. Undefined for files of which nothing is known
 * but their names. Throws `LayoutError` for one that is not whole, as far as it is looked into: of vectors, not the matrix.
 */
export async function compareRecords(
  store: Store,
  path: string,
  before: GraphSource | undefined,
  after: GraphSource | undefined,
  signal?: AbortSignal,
): Promise<FileRecords | undefined> {
  const vectorFile = vectorFileOf(path);
  if (vectorFile !== undefined) return await compareVectors(store, vectorFile, before, after, signal);
  const kind = path === GRAPH_FILES.graph ? GRAPH : TABLES_OF.has(path) ? RECORDS : undefined;
  if (kind === undefined) return undefined;
  const [one, other] = await withoutCommon(store, before, after);
  const [records = none(), edges] = await compareFile(one, other, kind, signal);
  const counts = countsOf(edges === undefined ? [records] : [records, edges], 0n);
  return { counts, records, ...(edges && { edges }) };
}

/** Rows that are the same on both sides are left out, unless the vectors of some are in the matrix alone. */
async function compareVectors(
  store: Store,
  file: VectorFile,
  before: GraphSource | undefined,
  after: GraphSource | undefined,
  signal: AbortSignal | undefined,
): Promise<FileRecords> {
  const seen = { bare: false };
  const [one, other] = await withoutCommon(store, before, after);
  let changes = await compareFile(one, other, vectorKind(file, false, seen), signal);
  if (seen.bare) changes = await compareFile(before, after, vectorKind(file, true, seen), signal);
  const [records = none(), { changedCount, changed } = none()] = changes;
  const vectors = create(VectorChangesSchema, {
    addedCount: records.addedCount,
    removedCount: records.removedCount,
    reembeddedCount: changedCount,
    reembedded: changed.map(({ name }) => name),
  });
  return { counts: countsOf([records], changedCount), records, vectors };
}

function none(): RecordChanges {
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

/** One side of a record: its name, and a number for each of its fields. */
interface Sample {
  readonly name: string;
  readonly fields: ReadonlyMap<string, number>;
}
type Samples = ReadonlyMap<number, Sample>;

/** How a file of one layout is read: a table of digests, and of samples, for each kind of record in it. */
interface Kind {
  readonly tables: number;
  digests(tables: readonly DigestTable[]): ChunkReader;
  samples(wanted: readonly ReadonlySet<number>[], tables: readonly Map<number, Sample>[]): ChunkReader;
}

const RECORDS: Kind = {
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

const GRAPH: Kind = {
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

/** Rows without their vectors, and the vectors. `seen` says whether rows have none of their own. */
function vectorKind(file: VectorFile, withMatrix: boolean, seen: { bare: boolean }): Kind {
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
  before: GraphSource | undefined,
  after: GraphSource | undefined,
  kind: Kind,
  signal: AbortSignal | undefined,
): Promise<RecordChanges[]> {
  const tablesOf = <T>(make: () => T) => Array.from({ length: kind.tables }, make);
  const digestsOf = async (source: GraphSource | undefined) => {
    const tables = tablesOf(() => new DigestTable());
    if (source !== undefined) await feedAll(source, kind.digests(tables), signal);
    return tables;
  };
  const [old, now] = [await digestsOf(before), await digestsOf(after)];
  const changes = old.map((table, i) => compareTables(table, now[i] ?? new DigestTable()));
  const samplesOf = async (source: GraphSource | undefined, pick: (change: Changes) => number[]) => {
    const tables = tablesOf((): Map<number, Sample> => new Map());
    const wanted = changes.map((change) => new Set(pick(change)));
    if (source !== undefined) await feedAll(source, kind.samples(wanted, tables), signal);
    return tables;
  };
  const was = await samplesOf(before, ({ removed, changed }) => [...removed.first, ...changed.first]);
  const is = await samplesOf(after, ({ added, changed }) => [...added.first, ...changed.first]);
  return changes.map((change, i) => told(change, was[i] ?? new Map(), is[i] ?? new Map()));
}

/** Records of one fate: how many, and the first of them. */
interface Counted {
  count: number;
  readonly first: number[];
}

interface Changes {
  readonly added: Counted;
  readonly removed: Counted;
  readonly changed: Counted;
}

function compareTables(before: DigestTable, after: DigestTable): Changes {
  const changes = { added: counted(), removed: counted(), changed: counted() };
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

function counted(): Counted {
  return { count: 0, first: [] };
}

function add(list: Counted, name: number): void {
  if (list.count++ < NAMES_MAX) list.first.push(name);
}

function told({ added, removed, changed }: Changes, was: Samples, is: Samples): RecordChanges {
  const names = ({ first }: Counted, samples: Samples) =>
    first.flatMap((number) => samples.get(number)?.name ?? []).sort();
  const differing = changed.first.flatMap((number) => {
    const [old, now] = [was.get(number), is.get(number)];
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
    added: names(added, is),
    removed: names(removed, was),
    changed: differing.sort((a, b) => (a.name < b.name ? -1 : 1)),
  });
}
