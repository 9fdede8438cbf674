import { create } from '@bufbuild/protobuf';
import { warning } from '../../core/finding.ts';
import { LayoutError } from '../../core/lightrag/chunk-reader.ts';
import { GRAPH_FILES, type GraphFile } from '../../core/lightrag/rules.ts';
import { pathFromBytes, pathText } from '../../core/path.ts';
import { idOf, type StoredSnapshot } from '../../core/snapshot.ts';
import { hex } from '../../core/unit.ts';
import type { FileEntry } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import {
  ChangeKind_Value,
  type DiffSnapshotsResponse,
  DiffSnapshotsResponseSchema,
  type FileChange,
  FileChangeSchema,
  RecordChangesSchema,
  VectorChangesSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { FileType_Value, type Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { contentKey, graphSources } from '../snapshots/graph-files.ts';
import type { Store } from '../store/store.ts';
import { compareRecords, type FileRecords } from './record-diff.ts';

/** Two snapshots to compare. */
export interface SnapshotPair {
  readonly from: StoredSnapshot;
  readonly to: StoredSnapshot;
}

/** Compares the files and records of two snapshots. */
export async function diffSnapshots(
  store: Store,
  { from, to, signal }: SnapshotPair & { readonly signal?: AbortSignal | undefined },
): Promise<DiffSnapshotsResponse> {
  const endRead = store.beginRead();
  try {
    const [before, after] = [
      await graphSources(store, from.manifest),
      await graphSources(store, to.manifest),
    ];
    const findings: Finding[] = [];
    const changes = new Map<string, FileRecords>();
    for (const path of new Set([...before, ...after].map((source) => source.path))) {
      const [old, now] = [before, after].map((sources) => sources.find((source) => source.path === path));
      if (old?.contentKey === now?.contentKey) continue;
      try {
        const records = await compareRecords(store, path, { before: old, after: now, signal });
        if (records !== undefined) changes.set(path, records);
      } catch (error) {
        if (!(error instanceof LayoutError)) throw error;
        const message = `it cannot be compared, as one state of it is malformed: ${error.message}`;
        findings.push(warning('not_compared', path, { message, hint: 'compare with another snapshot' }));
      }
    }
    const files = await diffFiles(store, { from, to });
    for (const [path, change] of files) {
      const counts = changes.get(path)?.counts;
      if (counts !== undefined) change.records = counts;
    }
    const changesOf = (file: GraphFile) => changes.get(GRAPH_FILES[file]);
    const noChanges = () => create(RecordChangesSchema);
    const noVectorChanges = () => create(VectorChangesSchema);
    return create(DiffSnapshotsResponseSchema, {
      fromSnapshotId: idOf(from),
      toSnapshotId: idOf(to),
      files: files.map(([, change]) => change),
      documents: changesOf('documents')?.records ?? noChanges(),
      chunks: changesOf('chunks')?.records ?? noChanges(),
      entities: changesOf('graph')?.records ?? noChanges(),
      relations: changesOf('graph')?.edges ?? noChanges(),
      answers: changesOf('answers')?.records ?? noChanges(),
      chunkVectors: changesOf('chunkVectors')?.vectors ?? noVectorChanges(),
      entityVectors: changesOf('entityVectors')?.vectors ?? noVectorChanges(),
      relationVectors: changesOf('relationVectors')?.vectors ?? noVectorChanges(),
      findings,
    });
  } finally {
    endRead();
  }
}

// ----- files -----

async function diffFiles(store: Store, { from, to }: SnapshotPair): Promise<[string, FileChange][]> {
  const before = new Map<string, FileEntry>();
  for await (const file of store.files(from.manifest.files)) before.set(pathFromBytes(file.path), file);
  const changes: [string, FileChange][] = [];
  for await (const file of store.files(to.manifest.files)) {
    const path = pathFromBytes(file.path);
    const old = before.get(path);
    before.delete(path);
    if (old !== undefined && sameContent(old, file)) continue;
    changes.push([path, await fileChange(store, path, { before: old, after: file })]);
  }
  for (const [path, old] of before)
    changes.push([path, await fileChange(store, path, { before: old, after: undefined })]);
  return changes.sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Reports whether two entries have the same type and content. */
// Times and modes are ignored, as every flush touches every file.
function sameContent(a: FileEntry, b: FileEntry): boolean {
  const same = contentKey(a.content) === contentKey(b.content) && hex(a.target) === hex(b.target);
  return same && a.type === b.type && a.size === b.size;
}

async function fileChange(
  store: Store,
  path: string,
  { before, after }: { readonly before: FileEntry | undefined; readonly after: FileEntry | undefined },
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
