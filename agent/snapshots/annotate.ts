import { create } from '@bufbuild/protobuf';
import type { Fact } from '../../core/annotations.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { alarmsOf, idOf, isStored, type StoredSnapshot, snapshotState } from '../../core/snapshot.ts';
import {
  AcknowledgedSchema,
  PinnedSchema,
  TaggedSchema,
} from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import type {
  AcknowledgeSnapshotRequest,
  PinSnapshotRequest,
  TagSnapshotRequest,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { now } from '../../host/clock.ts';
import type { Store } from '../store/store.ts';
import { Transaction } from '../store/transaction.ts';
import { resolveSnapshot } from './resolve.ts';

/** The fields of a request that identify a snapshot. */
interface SnapshotName {
  readonly snapshotId: string;
  readonly graphId: string;
}

/** Pins or unpins a snapshot. */
export async function pinSnapshot(store: Store, request: PinSnapshotRequest): Promise<StoredSnapshot> {
  const value = create(PinnedSchema, { pinned: request.pinned });
  return await annotate(store, request, () => ({ case: 'pinned', value }));
}

/** Sets and removes tags of a snapshot. */
export async function tagSnapshot(
  store: Store,
  request: Pick<TagSnapshotRequest, 'snapshotId' | 'graphId' | 'set' | 'remove'>,
): Promise<StoredSnapshot> {
  return await annotate(store, request, (snapshot) => {
    const tags = { ...snapshot.tags, ...request.set };
    for (const name of request.remove) delete tags[name];
    return { case: 'tagged', value: create(TaggedSchema, { tags }) };
  });
}

/** Records why the alarms of a snapshot need no attention. INVALID_ARGUMENT without a reason or an alarm. */
export async function acknowledgeSnapshot(
  store: Store,
  request: AcknowledgeSnapshotRequest,
): Promise<StoredSnapshot> {
  const { reason } = request;
  return await annotate(store, request, (snapshot) => {
    const id = idOf(snapshot).slice(0, 12);
    if (reason === '') throw missingReason(`acknowledge snapshot "${id}"`);
    if (alarmsOf(snapshot).length === 0) {
      throw new LightkeeperError('INVALID_ARGUMENT', `Cannot acknowledge snapshot "${id}": it has no alarm`, {
        hint: 'find the one with an alarm: lightkeeper list',
      });
    }
    return { case: 'acknowledged', value: create(AcknowledgedSchema, { reason }) };
  });
}

/** Returns the error of a call that needs a reason. */
export function missingReason(doing: string): LightkeeperError {
  return new LightkeeperError('INVALID_ARGUMENT', `Cannot ${doing} without a reason`, {
    hint: 'give one with --reason',
  });
}

/** Commits one fact about a snapshot and returns the snapshot with it. */
async function annotate(
  store: Store,
  { snapshotId, graphId }: SnapshotName,
  factFor: (snapshot: StoredSnapshot) => Fact,
): Promise<StoredSnapshot> {
  return await store.exclusively(async () => {
    const snapshot = await resolveSnapshot(store, snapshotId, graphId);
    const fact = { digest: snapshot.digest, fact: factFor(snapshot) };
    const [record] = await Transaction.run(store, (transaction) => transaction.commitFacts([fact], now()));
    const annotated = record === undefined ? snapshot : snapshotState(record, store.config.storeId);
    return isStored(annotated) ? annotated : snapshot;
  });
}
