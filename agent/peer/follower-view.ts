import { create } from '@bufbuild/protobuf';
import { isAfter } from '../../core/following/schedule.ts';
import { hex } from '../../core/unit.ts';
import {
  type FollowerStatus,
  FollowerStatusSchema,
  FollowState_Value,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { PositionSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic } from '../../host/clock.ts';
import type { Store } from '../store/store.ts';
import type { Follower, Followers } from './followers.ts';
import { lagOf } from './lag.ts';

/** Returns the state of a follower as the API shows it. */
export async function followerView(
  store: Store,
  followers: Followers,
  follower: Follower,
): Promise<FollowerStatus> {
  const { name, graphId, address, version, held, isConnected, sentBytes, lastError, target } = follower;
  const lag = await lagOf(store, graphId, held);
  const entry = held === undefined ? undefined : await store.index.position(graphId, held.digest);
  return create(FollowerStatusSchema, {
    name,
    graphId,
    state: stateOf(isConnected, lag.snapshots),
    address,
    version,
    ...(held === undefined
      ? {}
      : {
          held: create(PositionSchema, {
            epoch: held.epoch,
            sequence: held.sequence,
            digest: hex(held.digest),
            mintId: hex(entry?.epoch?.mintId ?? new Uint8Array()),
          }),
        }),
    lag,
    sentBytes: BigInt(sentBytes),
    bytesPerSecond: BigInt(Math.round(followers.throughput(follower))),
    ...(follower.acknowledgedMs === undefined
      ? {}
      : { acknowledgedMsAgo: BigInt(Math.round(monotonic() - follower.acknowledgedMs)) }),
    lastError,
    standby: target?.standby ?? true,
  });
}

function stateOf(isConnected: boolean, behind: bigint): FollowState_Value {
  if (!isConnected) return FollowState_Value.DISCONNECTED;
  return behind === 0n ? FollowState_Value.CAUGHT_UP : FollowState_Value.CATCHING_UP;
}

/** Reports whether a follower holds the snapshot at a position, or a later one. */
export function holds(
  follower: Follower,
  position: { readonly epoch: bigint; readonly sequence: bigint },
): boolean {
  return follower.held !== undefined && !isAfter(position, follower.held);
}
