import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { capturedMs } from '../../core/manifest.ts';
import { idOf, isOnLine, isStored, isUsable, type StoredSnapshot } from '../../core/snapshot.ts';
import { sameBytes } from '../../core/unit.ts';
import {
  type GetSnapshotRequest,
  type GetSnapshotResponse,
  GetSnapshotResponseSchema,
  type GetStatsResponse,
  GetStatsResponseSchema,
  type GraphStatus,
  GraphStatusSchema,
  type ListSnapshotsRequest,
  type ListSnapshotsResponse,
  ListSnapshotsResponseSchema,
  type SnapshotSummary,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { now } from '../../host/clock.ts';
import type { Store } from '../store/store.ts';
import { resolveSnapshot } from './resolve.ts';
import { allFindings, fileView, snapshotView, summaryView } from './views.ts';

const PAGE_SNAPSHOTS = 1000;
const PAGE_FILES = 1000;
const PAGE_MAX = 10_000;

/** Lists snapshots, newest first; side snapshots come after all others. */
export async function listSnapshots(
  store: Store,
  { graphId, pageSize, pageToken }: ListSnapshotsRequest,
): Promise<ListSnapshotsResponse> {
  const limit = Math.min(pageSize === 0 ? PAGE_SNAPSHOTS : pageSize, PAGE_MAX);
  const snapshots: SnapshotSummary[] = [];
  const fromSide = pageToken.startsWith('x');
  const before = pageToken === '' || pageToken === 'x' ? undefined : Buffer.from(pageToken.slice(1), 'hex');
  const scope = graphId === '' ? {} : { graphId };
  for (const side of fromSide ? [true] : [false, true]) {
    const from = side === fromSide && before !== undefined ? { before } : {};
    for await (const [at, snapshot] of store.index.records({ ...scope, side, ...from })) {
      if (!isStored(snapshot)) continue;
      if (snapshots.length >= limit) {
        // The record at the token is the first of the next page.
        const next = Buffer.concat([at, Buffer.from([0])]).toString('hex');
        const nextPageToken = `${side ? 'x' : 's'}${next}`;
        return create(ListSnapshotsResponseSchema, { snapshots, nextPageToken });
      }
      snapshots.push(summaryView(snapshot));
    }
  }
  return create(ListSnapshotsResponseSchema, { snapshots });
}

/** Returns one snapshot with a page of its files. */
export async function getSnapshot(store: Store, request: GetSnapshotRequest): Promise<GetSnapshotResponse> {
  const snapshot = await resolveSnapshot(store, request.snapshotId, request.graphId);
  const limit = Math.min(request.pageSize === 0 ? PAGE_FILES : request.pageSize, PAGE_MAX);
  const from = request.pageToken === '' ? 0 : Number(request.pageToken);
  const response = create(GetSnapshotResponseSchema, {
    snapshot: snapshotView(snapshot, { confirmedAtMs: await confirmedAtMs(store, snapshot) }),
    findings: allFindings(snapshot),
    ...(snapshot.graded?.stats === undefined ? {} : { stats: snapshot.graded.stats }),
  });
  let place = 0;
  for await (const file of store.files(snapshot.manifest.files)) {
    if (place >= from + limit) {
      response.nextPageToken = String(place);
      break;
    }
    if (place >= from) response.files.push(fileView(file));
    place += 1;
  }
  return response;
}

/** Returns when a directory was last found equal to this snapshot; undefined unless it is the head of its graph. */
async function confirmedAtMs(
  store: Store,
  { manifest, digest }: StoredSnapshot,
): Promise<number | undefined> {
  const head = await store.index.head(manifest.graphId);
  if (head === undefined || !sameBytes(head.digest, digest)) return undefined;
  return await store.index.local.confirmedAt(manifest.graphId);
}

/** Counts the snapshots of a graph, or of all graphs if `graphId` is empty, and the size of the whole store. */
export async function storeStats(store: Store, graphId: string): Promise<GetStatsResponse> {
  const stats = create(GetStatsResponseSchema);
  const scope = graphId === '' ? {} : { graphId };
  for (const side of [false, true]) {
    for await (const [, snapshot] of store.index.records({ ...scope, side })) {
      if (!isStored(snapshot)) continue;
      stats.snapshots += 1;
      stats.rawBytes += snapshot.manifest.totals?.rawBytes ?? 0n;
    }
  }
  let unitBytes = 0n;
  for await (const [, pack] of store.index.packs()) {
    stats.packs += 1;
    stats.storedBytes += pack.size;
    stats.units += BigInt(pack.units);
    unitBytes += pack.rawBytes;
  }
  const [raw, stored, units] = [Number(stats.rawBytes), Number(stats.storedBytes), Number(unitBytes)];
  stats.dedupRatio = units === 0 ? 0 : raw / units;
  stats.compressionRatio = stored === 0 ? 0 : units / stored;
  stats.savedRatio = raw === 0 ? 0 : 1 - stored / raw;
  return stats;
}

/** Returns the newest usable point of a graph and the work that a loss of its directory would cost now. */
export async function graphStatus(store: Store, graphId: string, dir: string): Promise<GraphStatus> {
  const status = create(GraphStatusSchema, { graphId, dir, findings: [...store.health.findings] });
  const usable = await newestUsable(store, graphId);
  if (usable === undefined) return status;
  status.lastUsableId = idOf(usable);
  if (usable.manifest.capturedAt !== undefined) status.lastUsableAt = usable.manifest.capturedAt;
  const confirmedMs = Math.max((await confirmedAtMs(store, usable)) ?? 0, capturedMs(usable.manifest));
  status.confirmedAt = timestampFromMs(confirmedMs);
  status.rpoMs = BigInt(Math.max(0, Math.round(now() - confirmedMs)));
  return status;
}

/** Counts the snapshots of a graph, side snapshots left out. */
export async function countSnapshots(store: Store, graphId: string): Promise<number> {
  let count = 0;
  for await (const [, snapshot] of store.index.records({ graphId })) if (isStored(snapshot)) count += 1;
  return count;
}

async function newestUsable(store: Store, graphId: string): Promise<StoredSnapshot | undefined> {
  for await (const [, snapshot] of store.index.records({ graphId }))
    if (isOnLine(snapshot) && isUsable(snapshot)) return snapshot;
  return undefined;
}
