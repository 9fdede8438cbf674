import { create } from '@bufbuild/protobuf';
import { warning } from '../core/finding.ts';
import { graphDigests, RecordDigests } from '../core/lightrag/digest.ts';
import { pairName } from '../core/lightrag/facts.ts';
import { GraphReader } from '../core/lightrag/graphml.ts';
import { nameNumber } from '../core/lightrag/names.ts';
import { RecordPicker } from '../core/lightrag/pick.ts';
import { GRAPH_FILES } from '../core/lightrag/rules.ts';
import { type ChunkReader, LayoutError } from '../core/lightrag/text.ts';
import { pathFromBytes, pathText } from '../core/path.ts';
import { hex } from '../core/unit.ts';
import {
  ChangeKind_Value,
  type DiffResponse,
  DiffResponseSchema,
  type FileChange,
  FileChangeSchema,
  type RecordChanges,
  RecordChangesSchema,
} from '../gen/lightkeeper/v1/agent_pb.ts';
import { type FileEntry, FileType_Value, type Finding } from '../gen/lightkeeper/v1/types_pb.ts';
import { contentName, graphFiles } from './captured.ts';
import { withoutCommon } from './differing.ts';
import { feedAll, type GraphSource } from './inspect.ts';
import { type Found, idOf } from './select.ts';
import type { Store } from './store/store.ts';

const NAMES_MAX = 1000;

/** Numbers of records by the numbers of their names. */
type Digests = Map<number, number>;

/** One side of a record: its name, and a number for each of its fields. */
interface Sample {
  readonly name: string;
  readonly fields: ReadonlyMap<string, number>;
}
type Samples = ReadonlyMap<number, Sample>;

/** What changed from one snapshot to another. */
export async function diffSnapshots(
  store: Store,
  from: Found,
  to: Found,
  signal?: AbortSignal,
): Promise<DiffResponse> {
  const endRead = store.beginRead();
  try {
    const [before, after] = [await graphFiles(store, from.manifest), await graphFiles(store, to.manifest)];
    const findings: Finding[] = [];
    const compare = async (path: string, kind: Kind): Promise<RecordChanges[]> => {
      const sides = [before, after].map((sources) => sources.find((source) => source.path === path));
      try {
        if (sides[0]?.content === sides[1]?.content) return [];
        const [one, other] = await withoutCommon(store, sides[0], sides[1]);
        return await compareFile(one, other, kind, signal);
      } catch (error) {
        if (!(error instanceof LayoutError)) throw error;
        const message = `what changed in it is not known, as one side of it is not whole: ${error.message}`;
        findings.push(warning('not_compared', path, { message, hint: 'compare with another snapshot' }));
        return [];
      }
    };
    const [documents] = await compare(GRAPH_FILES.documents, RECORDS);
    const [chunks] = await compare(GRAPH_FILES.chunks, RECORDS);
    const [entities, relations] = await compare(GRAPH_FILES.graph, GRAPH);
    const [answers] = await compare(GRAPH_FILES.answers, RECORDS);
    const none = () => create(RecordChangesSchema);
    return create(DiffResponseSchema, {
      fromSnapshotId: idOf(from),
      toSnapshotId: idOf(to),
      files: await diffFiles(store, from, to),
      documents: documents ?? none(),
      chunks: chunks ?? none(),
      entities: entities ?? none(),
      relations: relations ?? none(),
      answers: answers ?? none(),
      findings,
    });
  } finally {
    endRead();
  }
}

// ----- files -----

async function diffFiles(store: Store, from: Found, to: Found): Promise<FileChange[]> {
  const before = new Map<string, FileEntry>();
  for await (const file of store.files(from.manifest.files)) before.set(pathFromBytes(file.path), file);
  const changes: [string, FileChange][] = [];
  for await (const file of store.files(to.manifest.files)) {
    const path = pathFromBytes(file.path);
    const old = before.get(path);
    before.delete(path);
    if (old !== undefined && sameContent(old, file)) continue;
    changes.push([path, await fileChange(store, path, old, file)]);
  }
  for (const [path, old] of before) changes.push([path, await fileChange(store, path, old, undefined)]);
  return changes.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, change]) => change);
}

/** Times and rights are not looked at: every flush touches every file. */
function sameContent(a: FileEntry, b: FileEntry): boolean {
  const same = contentName(a.content) === contentName(b.content) && hex(a.target) === hex(b.target);
  return same && a.type === b.type && a.size === b.size;
}

async function fileChange(
  store: Store,
  path: string,
  before: FileEntry | undefined,
  after: FileEntry | undefined,
): Promise<FileChange> {
  const known = new Set<string>();
  if (after !== undefined)
    for await (const refs of store.units(before?.content)) for (const { id } of refs) known.add(hex(id));
  let newUnits = 0;
  let newBytes = 0;
  for await (const refs of store.units(after?.content)) {
    for (const { id, span } of refs) {
      const name = hex(id);
      if (known.has(name)) continue;
      known.add(name);
      newUnits += 1;
      newBytes += span;
    }
  }
  const kind =
    before === undefined
      ? ChangeKind_Value.ADDED
      : after === undefined
        ? ChangeKind_Value.REMOVED
        : ChangeKind_Value.CHANGED;
  const sizeOf = (file: FileEntry | undefined) => (file?.type === FileType_Value.REGULAR ? file.size : 0n);
  return create(FileChangeSchema, {
    path: pathText(path),
    kind,
    sizeBefore: sizeOf(before),
    sizeAfter: sizeOf(after),
    newUnits,
    newBytes: BigInt(newBytes),
  });
}

// ----- records -----

/** How a file of one layout is read: a table of digests, and of samples, for each kind of record in it. */
interface Kind {
  readonly tables: number;
  digests(tables: readonly Digests[]): ChunkReader;
  samples(wanted: readonly ReadonlySet<number>[], tables: readonly Map<number, Sample>[]): ChunkReader;
}

const RECORDS: Kind = {
  tables: 1,
  digests: ([table]) => new RecordDigests((name, content) => table?.set(nameNumber(name), content)),
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
      (name, content) => nodes?.set(nameNumber(name), content),
      (name, content) => edges?.set(nameNumber(name), content),
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

async function compareFile(
  before: GraphSource | undefined,
  after: GraphSource | undefined,
  kind: Kind,
  signal: AbortSignal | undefined,
): Promise<RecordChanges[]> {
  const tablesOf = <T>(make: () => T) => Array.from({ length: kind.tables }, make);
  const digestsOf = async (source: GraphSource | undefined) => {
    const tables = tablesOf((): Digests => new Map());
    if (source !== undefined) await feedAll(source, kind.digests(tables), signal);
    return tables;
  };
  const [old, now] = [await digestsOf(before), await digestsOf(after)];
  const changes = old.map((table, i) => compareTables(table, now[i] ?? new Map()));
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

function compareTables(before: Digests, after: Digests): Changes {
  const changes = { added: counted(), removed: counted(), changed: counted() };
  for (const [name, content] of after) {
    const old = before.get(name);
    if (old === undefined) add(changes.added, name);
    else if (old !== content) add(changes.changed, name);
  }
  for (const name of before.keys()) if (!after.has(name)) add(changes.removed, name);
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
