import { create } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { epochOf } from '../../core/position.ts';
import { hex } from '../../core/unit.ts';
import {
  FollowState_Value,
  type ReplicateGraphResponse,
  ReplicateGraphResponseSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Position, PositionSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { followerView, holds } from '../peer/follower-view.ts';
import type { Follower, Followers } from '../peer/followers.ts';
import type { Store } from '../store/store.ts';
import type { FollowedGraph } from './followed-graph.ts';

/** Milliseconds that a call waits by default. */
const TIMEOUT_MS = 60_000;

/** What a replication waits for. */
export interface ReplicateOptions {
  readonly graphId: string;
  /** Name of a target; empty for all of them. */
  readonly target: string;
  /** Milliseconds to wait; 0 is the default. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Returns the newest position of a graph as the API shows it; undefined if it has no snapshot. */
export async function headView(store: Store, graphId: string): Promise<Position | undefined> {
  const head = await store.index.head(graphId);
  if (head === undefined) return undefined;
  const { number, mintId } = epochOf(head);
  const { sequence, digest } = head;
  return create(PositionSchema, { epoch: number, mintId: hex(mintId), sequence, digest: hex(digest) });
}

/** Waits until followers hold the newest snapshot of a graph. NOT_FOUND if none does, DEADLINE if it takes too long. */
// Followers dial: there is nothing to push, and new snapshots are offered at once.
export async function replicateToFollowers(
  store: Store,
  followers: Followers,
  { graphId, target, timeoutMs, signal }: ReplicateOptions,
): Promise<ReplicateGraphResponse> {
  const head = await store.index.head(graphId);
  if (head === undefined)
    throw new LightkeeperError('NOT_FOUND', `Cannot replicate "${graphId}": it has no snapshot`, {
      hint: 'take one with lightkeeper snapshot',
    });
  const place = { epoch: epochOf(head).number, sequence: head.sequence };
  const wanted = () => followers.list(graphId).filter(({ name }) => target === '' || name === target);
  const isDone = (list: readonly Follower[]) => list.length > 0 && list.every((one) => holds(one, place));
  const late = deadline(timeoutMs);
  const either = AbortSignal.any([signal, late]);
  while (!isDone(wanted()) && !either.aborted) await followers.changed(either);
  signal.throwIfAborted();
  const list = wanted();
  if (list.length === 0) {
    throw new LightkeeperError(
      'NOT_FOUND',
      `Cannot replicate "${graphId}": ${target === '' ? 'no agent' : `"${target}" does not`} ${target === '' ? 'follows it' : 'follow it'}`,
      {
        hint: 'start an agent with follow on the other machine, and add it as a target here',
      },
    );
  }
  const behind = list.filter((one) => !holds(one, place)).map(({ name }) => name);
  if (behind.length > 0) {
    throw new LightkeeperError(
      'DEADLINE',
      `Cannot replicate "${graphId}" in time: ${behind.join(', ')} lacks the newest snapshot`,
      {
        hint: 'see lightkeeper status; wait longer with --timeout',
      },
    );
  }
  const views = await Promise.all(list.map((one) => followerView(store, followers, one)));
  const position = await headView(store, graphId);
  return create(ReplicateGraphResponseSchema, {
    graphId,
    followers: views,
    ...(position === undefined ? {} : { head: position }),
  });
}

/** Waits until a followed graph has caught up with its source. DEADLINE if it takes too long. */
export async function catchUp(
  store: Store,
  graph: FollowedGraph,
  { graphId, timeoutMs, signal }: ReplicateOptions,
): Promise<ReplicateGraphResponse> {
  const either = AbortSignal.any([signal, deadline(timeoutMs)]);
  let source = await graph.source();
  while (source.state !== FollowState_Value.CAUGHT_UP && !either.aborted) {
    await graph.changed(either);
    source = await graph.source();
  }
  signal.throwIfAborted();
  if (source.state !== FollowState_Value.CAUGHT_UP) {
    const reason = source.lastError === '' ? 'it is still receiving' : source.lastError;
    throw new LightkeeperError('DEADLINE', `Cannot catch up with "${graphId}" in time: ${reason}`, {
      hint: 'see lightkeeper status; wait longer with --timeout',
    });
  }
  const position = await headView(store, graphId);
  return create(ReplicateGraphResponseSchema, {
    graphId,
    source,
    ...(position === undefined ? {} : { head: position }),
  });
}

function deadline(timeoutMs: number): AbortSignal {
  return AbortSignal.timeout(Math.max(1, timeoutMs === 0 ? TIMEOUT_MS : timeoutMs));
}
