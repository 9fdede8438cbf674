import { create } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { capturedMs, snapshotIdOf } from '../../core/manifest.ts';
import { epochOf } from '../../core/position.ts';
import type { OnProgress } from '../../core/progress.ts';
import {
  applyRetention,
  type Candidate,
  type Decision,
  isEmptyPolicy,
  type RetentionPlan,
} from '../../core/retention.ts';
import {
  gradeOf,
  idOf,
  isAlarming,
  isChangedCut,
  isOnLine,
  isProtectedFork,
  isStored,
  isUsable,
  isUsableGrade,
  type StoredSnapshot,
} from '../../core/snapshot.ts';
import { hex } from '../../core/unit.ts';
import {
  type DeleteSnapshotRequest,
  type DeleteSnapshotResponse,
  DeleteSnapshotResponseSchema,
  type PruneResult,
  PruneResultSchema,
  type PruneSnapshotsRequest,
  PruneSnapshotsRequestSchema,
  type RetentionPolicy,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../../host/clock.ts';
import type { Store } from '../store/store.ts';
import {
  checkClock,
  collectGarbage,
  commitDeletions,
  newestCaptureMs,
  planCollection,
} from '../store/upkeep/collect-garbage.ts';
import { resolveSnapshot } from './resolve.ts';

/** A snapshot to delete, with the reason. */
interface Removal {
  readonly digest: Uint8Array;
  readonly reason: string;
}

/** Applies a policy to one graph or to all, then frees space. REFUSED for an empty policy or a wrong clock. */
export async function pruneSnapshots(
  store: Store,
  { graphId, policy, dryRun }: PruneSnapshotsRequest,
  onProgress: OnProgress,
): Promise<PruneResult> {
  if (policy === undefined || isEmptyPolicy(policy)) {
    throw new LightkeeperError(
      'REFUSED',
      'Cannot prune as the policy is empty: it would delete all but the last points',
      { hint: 'set a rule, for instance --keep-within 1d --keep-daily 30' },
    );
  }
  return await store.exclusively(async () => {
    const plan: RetentionPlan = { keep: [], remove: [] };
    const removals: Removal[] = [];
    for (const graph of graphId === '' ? await store.index.graphs() : [graphId]) {
      checkClock(await newestCaptureMs(store, graph));
      const one = await planGraph(store, graph, policy);
      plan.keep.push(...one.plan.keep);
      plan.remove.push(...one.plan.remove);
      removals.push(...one.removals);
    }
    const result = create(PruneResultSchema, { ...plan, dryRun });
    if (dryRun) {
      const removed = new Set(plan.remove.map(({ snapshotId }) => snapshotId));
      const { plan: packs } = await planCollection(store, removed);
      result.bytesFreed = BigInt(packs.freedBytes);
      return result;
    }
    const before = await packBytes(store);
    await commitDeletions(store, removals);
    await collectGarbage(store, (done, total) => onProgress('rewriting packs', done, total));
    const freed = before - (await packBytes(store));
    result.bytesFreed = freed > 0n ? freed : 0n;
    return result;
  });
}

/** Reports whether a policy would remove any snapshot of a graph. */
// It reads the records only, and no units.
export async function wouldPrune(store: Store, graphId: string, policy: RetentionPolicy): Promise<boolean> {
  checkClock(await newestCaptureMs(store, graphId));
  return (await planGraph(store, graphId, policy)).removals.length > 0;
}

/** Applies a policy to a graph if it would remove anything. Returns what it removed; undefined if that is nothing. */
export async function pruneIfNeeded(
  store: Store,
  graphId: string,
  policy: RetentionPolicy,
): Promise<PruneResult | undefined> {
  if (!(await wouldPrune(store, graphId, policy))) return undefined;
  const result = await pruneSnapshots(
    store,
    create(PruneSnapshotsRequestSchema, { graphId, policy }),
    () => {},
  );
  return result.remove.length > 0 ? result : undefined;
}

/** Frees the space of deleted snapshots and of captures that were killed. */
export async function sweepStore(store: Store): Promise<void> {
  await store.exclusively(() => collectGarbage(store, () => {}));
}

/** Deletes one snapshot. REFUSED for a pinned one and for the last usable point of its graph. */
export async function deleteSnapshot(
  store: Store,
  { snapshotId: name, graphId, reason, dryRun }: DeleteSnapshotRequest,
): Promise<DeleteSnapshotResponse> {
  return await store.exclusively(async () => {
    const snapshot = await resolveSnapshot(store, name, graphId);
    const snapshotId = idOf(snapshot);
    if (snapshot.pinned) {
      throw new LightkeeperError('REFUSED', `Cannot delete snapshot "${snapshotId}": it is pinned`, {
        hint: `run lightkeeper unpin ${snapshotId.slice(0, 8)} first`,
      });
    }
    if (isProtectedFork(snapshot)) {
      throw new LightkeeperError('REFUSED', `Cannot delete snapshot "${snapshotId}": it is on a fork`, {
        hint: 'see lightkeeper forks list; accept the fork or drop it as a whole',
      });
    }
    if (snapshot.forked === undefined && !(await hasAnother(store, snapshot))) {
      const what = isUsable(snapshot) ? 'last usable point' : 'last point that may be usable';
      throw new LightkeeperError(
        'REFUSED',
        `Cannot delete snapshot "${snapshotId}": it is the ${what} of "${snapshot.manifest.graphId}"`,
        { hint: 'take another snapshot first' },
      );
    }
    const removal = { digest: snapshot.digest, reason: reason === '' ? 'deleted by hand' : reason };
    if (!dryRun) await commitDeletions(store, [removal]);
    return create(DeleteSnapshotResponseSchema, { snapshotId, dryRun });
  });
}

async function packBytes(store: Store): Promise<bigint> {
  let bytes = 0n;
  for await (const [, pack] of store.index.packs()) bytes += pack.size;
  return bytes;
}

async function planGraph(
  store: Store,
  graphId: string,
  policy: RetentionPolicy,
): Promise<{ plan: RetentionPlan; removals: Removal[] }> {
  const digests = new Map<string, Uint8Array>();
  const candidates: Candidate[] = [];
  const forks: Decision[] = [];
  for (const side of [false, true]) {
    for await (const [, snapshot] of store.index.records({ graphId, side })) {
      if (!isStored(snapshot)) continue;
      if (isProtectedFork(snapshot)) {
        forks.push({ snapshotId: idOf(snapshot), reasons: ['fork'] });
        continue;
      }
      digests.set(idOf(snapshot), snapshot.digest);
      candidates.push(candidate(snapshot));
    }
  }
  const plan = applyRetention(candidates, policy, now());
  plan.keep.push(...forks);
  const removals = plan.remove.flatMap(({ snapshotId, reasons }) => {
    const digest = digests.get(snapshotId);
    return digest === undefined ? [] : [{ digest, reason: `prune: ${reasons.join(', ')}` }];
  });
  return { plan, removals };
}

/** Reports whether the graph has another snapshot of at least the same worth. */
async function hasAnother(store: Store, snapshot: StoredSnapshot): Promise<boolean> {
  const worths = ['broken', 'ungraded', 'usable'];
  const own = worths.indexOf(worthOf(snapshot));
  if (own === 0) return true;
  for await (const [, other] of store.index.records({ graphId: snapshot.manifest.graphId })) {
    if (!isOnLine(other) || idOf(other) === idOf(snapshot)) continue;
    if (worths.indexOf(worthOf(other)) >= own) return true;
  }
  return false;
}

function candidate(snapshot: StoredSnapshot): Candidate {
  return {
    snapshotId: idOf(snapshot),
    capturedMs: capturedMs(snapshot.manifest),
    tags: snapshot.tags,
    pinned: snapshot.pinned,
    worth: worthOf(snapshot),
    side: isChangedCut(snapshot.manifest),
    alarming: isAlarming(snapshot),
  };
}

function worthOf(snapshot: StoredSnapshot): Candidate['worth'] {
  if (isUsable(snapshot)) return 'usable';
  const grade = gradeOf(snapshot);
  // Damage may be healed and an alarm acknowledged: then the point is usable again.
  return grade === Grade_Value.UNGRADED || isUsableGrade(grade) ? 'ungraded' : 'broken';
}

/** A snapshot of another store, as retention sees it. */
export interface ListedCandidate {
  readonly digest: Uint8Array;
  readonly epoch: bigint;
  readonly sequence: bigint;
  readonly capturedMs: bigint;
  readonly usable: boolean;
  readonly pinned: boolean;
  readonly tags: Readonly<Record<string, string>>;
}

/** A candidate with its place in the history. */
interface PlacedCandidate {
  readonly epoch: bigint;
  readonly sequence: bigint;
  readonly candidate: Candidate;
}

/**
 * Returns those of the listed snapshots, by their digests in hex, that a policy would keep beside what the store
 * holds.
 */
// What it would not keep would be fetched again after every prune.
export async function retainedOf(
  store: Store,
  { graphId, policy }: { readonly graphId: string; readonly policy: RetentionPolicy },
  listed: readonly ListedCandidate[],
): Promise<Set<string>> {
  const names = new Map<string, string>();
  const placed = new Map<string, PlacedCandidate>();
  for (const one of listed) {
    const snapshotId = snapshotIdOf(one.digest);
    names.set(snapshotId, hex(one.digest));
    placed.set(snapshotId, { ...one, candidate: listedCandidate(snapshotId, one) });
  }
  for await (const [, snapshot] of store.index.records({ graphId })) {
    if (!isStored(snapshot)) continue;
    const { number } = epochOf(snapshot.manifest);
    const { sequence } = snapshot.manifest;
    placed.set(idOf(snapshot), { epoch: number, sequence, candidate: candidate(snapshot) });
  }
  const newestFirst = [...placed.values()].sort((a, b) =>
    a.epoch === b.epoch ? Number(b.sequence - a.sequence) : Number(b.epoch - a.epoch),
  );
  const { keep } = applyRetention(
    newestFirst.map((one) => one.candidate),
    policy,
    now(),
  );
  return new Set(keep.flatMap(({ snapshotId }) => names.get(snapshotId) ?? []));
}

function listedCandidate(
  snapshotId: string,
  { capturedMs: at, usable, pinned, tags }: ListedCandidate,
): Candidate {
  return {
    snapshotId,
    capturedMs: Number(at),
    tags,
    pinned,
    worth: usable ? 'usable' : 'ungraded',
    side: false,
    alarming: false,
  };
}
