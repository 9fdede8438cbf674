import { create } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { protectedPlace } from '../../core/following/protection.ts';
import { exceededLimits } from '../../core/limits.ts';
import { snapshotIdOf } from '../../core/manifest.ts';
import {
  type GetStatusResponse,
  GetStatusResponseSchema,
  type GraphStatus,
  type ReplicateGraphRequest,
  type ReplicateGraphResponse,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Role_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { GRAPH_DEFAULTS } from '../config/settings.ts';
import type { FollowedGraph } from '../graph/followed-graph.ts';
import type { GuardedDirectory } from '../graph/guarded-directory.ts';
import { catchUp, headView, replicateToFollowers } from '../graph/replicate.ts';
import type { SnapshotTaker } from '../graph/take-snapshot.ts';
import { followerView } from '../peer/follower-view.ts';
import type { Follower, Followers } from '../peer/followers.ts';
import { lineOf } from '../peer/line.ts';
import { countSnapshots, graphStatus } from '../snapshots/queries.ts';
import { onlyGraph } from '../snapshots/resolve.ts';

/** What an agent knows of its peers. */
export interface FollowingState {
  readonly followers: Followers;
  readonly graphs: ReadonlyMap<string, FollowedGraph>;
}

/** The parts of an agent that the status is made of. */
export interface StatusParts {
  readonly taker: SnapshotTaker;
  readonly guarded?: () => readonly GuardedDirectory[];
  readonly following?: FollowingState;
}

/** Returns the graphs of a store, how old their newest usable points are, and who follows whom. */
export async function getStatus(parts: StatusParts): Promise<GetStatusResponse> {
  const { taker, guarded, following } = parts;
  const { store } = taker;
  const guards = guarded?.() ?? [];
  const own = guards.map(({ settings }) => settings.graphId);
  const followed = following?.graphs ?? new Map<string, FollowedGraph>();
  const graphIds = new Set([...own, ...followed.keys(), ...(await store.index.graphs())]);
  const status = create(GetStatusResponseSchema, { store: store.root });
  for (const graphId of [...graphIds].sort()) {
    const guard = guards.find(({ settings }) => settings.graphId === graphId);
    const dir = guard === undefined ? '' : Buffer.from(guard.settings.dir).toString();
    const graph = await graphStatus(store, graphId, dir);
    graph.findings.push(...(guard?.findings ?? []));
    graph.snapshots = await countSnapshots(store, graphId);
    await addPeers(parts, graph, guard);
    status.graphs.push(graph);
  }
  return status;
}

/** Adds role, followers and source to the status of a graph. */
async function addPeers(
  { taker: { store }, following }: StatusParts,
  graph: GraphStatus,
  guard: GuardedDirectory | undefined,
): Promise<void> {
  const { graphId } = graph;
  const head = await headView(store, graphId);
  if (head !== undefined) graph.head = head;
  const source = following?.graphs.get(graphId);
  if (source !== undefined) {
    graph.role = Role_Value.STANDBY;
    graph.source = await source.source();
  } else if (guard !== undefined) graph.role = Role_Value.PRIMARY;
  if (following === undefined) return;
  const followers = following.followers.list(graphId);
  for (const follower of followers)
    graph.followers.push(await followerView(store, following.followers, follower));
  const { ack } = guard?.settings ?? GRAPH_DEFAULTS;
  const { limits } = guard?.settings ?? source?.settings ?? GRAPH_DEFAULTS;
  graph.exceededLimits = exceededLimits(limits, graph);
  const standbys = followers.filter(({ target }) => target?.standby ?? true);
  const digest = await protectedDigest(graphId, { store, ack, standbys });
  if (digest !== undefined) graph.protectedId = snapshotIdOf(digest);
}

/** Returns the digest of the newest snapshot that counts as protected; undefined if none does. */
async function protectedDigest(
  graphId: string,
  {
    store,
    ack,
    standbys,
  }: {
    readonly store: SnapshotTaker['store'];
    readonly ack: Parameters<typeof protectedPlace>[0];
    readonly standbys: readonly Follower[];
  },
): Promise<Uint8Array | undefined> {
  const head = await store.index.head(graphId);
  if (head === undefined || ack.kind === 'async') return head?.digest;
  // Places count backwards from the head, which has place 0.
  const digests: Uint8Array[] = [];
  const places = standbys.map(() => Number.NEGATIVE_INFINITY);
  for await (const { digest } of lineOf(store, graphId)) {
    for (const [i, { held }] of standbys.entries())
      if (held !== undefined && Buffer.from(held.digest).equals(digest)) places[i] = -digests.length;
    digests.push(digest);
    if (places.every(Number.isFinite)) break;
  }
  const place = protectedPlace(ack, places, 0);
  return Number.isFinite(place) && place <= 0 ? digests[-place] : undefined;
}

/** Waits until followers of a graph hold its newest snapshot, or until this follower has caught up. */
export async function replicate(
  { taker: { store }, following }: StatusParts,
  { graphId: named, target, timeoutMs }: ReplicateGraphRequest,
  signal: AbortSignal,
): Promise<ReplicateGraphResponse> {
  if (following === undefined) {
    throw new LightkeeperError('REFUSED', 'Cannot replicate: no agent runs on this store', {
      hint: 'start one with lightkeeper up or lightkeeper agent',
    });
  }
  const [followedId] = following.graphs.keys();
  const graphId = named !== '' ? named : (followedId ?? (await onlyGraph(store)));
  const options = { graphId, target, timeoutMs: Number(timeoutMs), signal };
  const graph = following.graphs.get(graphId);
  if (graph === undefined) return await replicateToFollowers(store, following.followers, options);
  return await catchUp(store, graph, options);
}
