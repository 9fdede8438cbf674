import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { snapshotIdOf } from '../../core/manifest.ts';
import { isBeyond, positionView } from '../../core/position.ts';
import { idOf, isStored, type StoredSnapshot } from '../../core/snapshot.ts';
import { hex, sameBytes } from '../../core/unit.ts';
import { type Forked, ForkedSchema, ForkState_Value } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import {
  type AcceptForkRequest,
  type DropForkRequest,
  type DropForkResponse,
  DropForkResponseSchema,
  type Fork,
  ForkSchema,
  type ListForksResponseSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { now } from '../../host/clock.ts';
import type { Store } from '../store/store.ts';
import { Transaction } from '../store/transaction.ts';
import { commitDeletions } from '../store/upkeep/collect-garbage.ts';
import { missingReason } from './annotate.ts';

/** Fewest digits of an abbreviated id. */
const PREFIX_DIGITS_MIN = 8;

/** A fork and the snapshots on it, newest first. */
interface ForkedLine {
  readonly fork: Fork;
  readonly snapshots: readonly StoredSnapshot[];
}

/**
 * Marks the points of a graph that lie after `ancestorDigest` as a fork, and moves the head back to it. An empty digest
 * means that all points are on the fork. Returns the fork; undefined if no snapshot lies after it.
 */
// Positions of deleted snapshots are marked too: none of them may be the head.
export async function recordFork(
  store: Store,
  graphId: string,
  ancestorDigest: Uint8Array,
): Promise<Fork | undefined> {
  return await store.exclusively(async () => {
    const ancestor =
      ancestorDigest.length === 0 ? undefined : await store.index.position(graphId, ancestorDigest);
    if (ancestorDigest.length > 0 && ancestor === undefined) {
      throw new LightkeeperError(
        'NOT_FOUND',
        `Cannot record a fork of "${graphId}": its history has no position ${hex(ancestorDigest).slice(0, 12)}`,
      );
    }
    const digests: Uint8Array[] = [];
    let headDigest: Uint8Array | undefined;
    for await (const { digest, ...entry } of store.index.positions(graphId, { reverse: true })) {
      if (ancestor !== undefined && !isBeyond({ digest, ...entry }, ancestor)) break;
      const state = (await store.index.find(digest))?.state;
      if (state?.forked !== undefined) continue;
      digests.push(digest);
      if (state !== undefined && isStored(state)) headDigest ??= digest;
    }
    const [newest] = digests;
    if (newest === undefined) return undefined;
    const forked = { state: ForkState_Value.KEPT, ancestorDigest, headDigest: headDigest ?? newest };
    await commitForked(store, digests, forked);
    const lines = await forkedLines(store, graphId);
    return lines.find(({ fork }) => fork.forkId === snapshotIdOf(forked.headDigest))?.fork;
  });
}

async function commitForked(
  store: Store,
  digests: readonly Uint8Array[],
  forked: Pick<Forked, 'state' | 'ancestorDigest' | 'headDigest'> & { reason?: string },
): Promise<void> {
  const fact = { case: 'forked' as const, value: create(ForkedSchema, forked) };
  await Transaction.run(store, (transaction) =>
    transaction.commitFacts(
      digests.map((digest) => ({ digest, fact })),
      now(),
    ),
  );
}

/** Lists the forks of a graph, or of all graphs if `graphId` is empty. */
export async function listForks(
  store: Store,
  graphId: string,
): Promise<MessageInitShape<typeof ListForksResponseSchema>> {
  return { forks: (await forkedLines(store, graphId)).map(({ fork }) => fork) };
}

/** Gives the points of a fork to retention. INVALID_ARGUMENT without a reason, NOT_FOUND if there is no such fork. */
export async function acceptFork(
  store: Store,
  { forkId, graphId, reason }: Pick<AcceptForkRequest, 'forkId' | 'graphId' | 'reason'>,
): Promise<Fork> {
  if (reason === '') throw missingReason(`accept fork "${forkId}"`);
  return await store.exclusively(async () => {
    const { fork, snapshots } = await findFork(store, forkId, graphId);
    const [newest] = snapshots;
    if (newest?.forked === undefined) return fork;
    const { ancestorDigest, headDigest } = newest.forked;
    const digests = snapshots.map(({ digest }) => digest);
    await commitForked(store, digests, {
      state: ForkState_Value.ACCEPTED,
      ancestorDigest,
      headDigest,
      reason,
    });
    return { ...fork, accepted: true, reason };
  });
}

/** Deletes the points of a fork. INVALID_ARGUMENT without a reason; REFUSED if one of them is pinned. */
export async function dropFork(
  store: Store,
  { forkId, graphId, reason, dryRun }: Pick<DropForkRequest, 'forkId' | 'graphId' | 'reason' | 'dryRun'>,
): Promise<DropForkResponse> {
  if (reason === '') throw missingReason(`drop fork "${forkId}"`);
  return await store.exclusively(async () => {
    const { fork, snapshots } = await findFork(store, forkId, graphId);
    const pinned = snapshots.find((snapshot) => snapshot.pinned);
    if (pinned !== undefined) {
      const id = idOf(pinned).slice(0, 12);
      throw new LightkeeperError('REFUSED', `Cannot drop fork "${fork.forkId}": snapshot ${id} is pinned`, {
        hint: `run lightkeeper unpin ${id} first`,
      });
    }
    const removed = snapshots.map(({ digest }) => ({ digest, reason: `fork dropped: ${reason}` }));
    if (!dryRun) await commitDeletions(store, removed);
    return create(DropForkResponseSchema, { fork, dryRun });
  });
}

async function findFork(store: Store, forkId: string, graphId: string): Promise<ForkedLine> {
  if (!/^[0-9a-f]+$/i.test(forkId) || forkId.length < PREFIX_DIGITS_MIN) {
    throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use "${forkId}" as a fork: it is not an id`, {
      hint: `give at least ${PREFIX_DIGITS_MIN} digits of an id from lightkeeper forks list`,
    });
  }
  const lines = await forkedLines(store, graphId);
  const [line, other] = lines.filter(({ fork }) => fork.forkId.startsWith(forkId.toLowerCase()));
  if (line === undefined) {
    throw new LightkeeperError('NOT_FOUND', `Cannot find the fork "${forkId}": there is none`, {
      hint: 'run lightkeeper forks list',
    });
  }
  if (other !== undefined) {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      `Cannot use "${forkId}" as a fork: several begin with it`,
      {
        hint: 'give more digits',
      },
    );
  }
  return line;
}

/** Returns the forks that have a snapshot. */
async function forkedLines(store: Store, graphId: string): Promise<ForkedLine[]> {
  const lines: { graphId: string; head: Uint8Array; snapshots: StoredSnapshot[] }[] = [];
  const scope = graphId === '' ? {} : { graphId };
  for await (const [, state] of store.index.records(scope)) {
    const { forked } = state;
    if (forked === undefined || !isStored(state)) continue;
    const known = lines.find(
      (line) => line.graphId === state.manifest.graphId && sameBytes(line.head, forked.headDigest),
    );
    if (known === undefined)
      lines.push({ graphId: state.manifest.graphId, head: forked.headDigest, snapshots: [state] });
    else known.snapshots.push(state);
  }
  return lines.map(({ snapshots }) => ({ fork: forkView(snapshots), snapshots }));
}

function forkView(snapshots: readonly StoredSnapshot[]): Fork {
  const [newest] = snapshots;
  const forked = newest?.forked;
  if (newest === undefined || forked === undefined) return create(ForkSchema);
  const { manifest, digest } = newest;
  const fork = create(ForkSchema, {
    forkId: snapshotIdOf(forked.headDigest),
    graphId: manifest.graphId,
    head: positionView(manifest, digest),
    ancestorId: forked.ancestorDigest.length === 0 ? '' : snapshotIdOf(forked.ancestorDigest),
    snapshotIds: snapshots.map(idOf),
    accepted: forked.state === ForkState_Value.ACCEPTED,
    reason: forked.reason,
  });
  if (manifest.capturedAt !== undefined) fork.capturedAt = manifest.capturedAt;
  return fork;
}
