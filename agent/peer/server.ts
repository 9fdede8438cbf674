import { create } from '@bufbuild/protobuf';
import type { HandlerContext } from '@connectrpc/connect';
import { LightkeeperError } from '../../core/errors.ts';
import { isGraphId, isWorkspaceOf } from '../../core/graph-id.ts';
import { UNIT_ID_BYTES } from '../../core/unit.ts';
import {
  type FetchUnitsRequest,
  type FetchUnitsResponse,
  FetchUnitsResponseSchema,
  GraphHeadSchema,
  PeerService,
  type WatchGraphsRequest,
  type WatchGraphsResponse,
  WatchGraphsResponseSchema,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import { now } from '../../host/clock.ts';
import { type GrpcService, grpcService, peerOf } from '../../host/grpc/server.ts';
import { FrameSender } from '../store/send/frame-sender.ts';
import type { Store } from '../store/store.ts';
import { BULK_CODECS } from './bulk-codec.ts';
import type { Followers } from './followers.ts';
import { lagOf } from './lag.ts';
import { type SourceParts, serveFollower } from './source-session.ts';
import { type AdmissionRules, admitFollower } from './targets.ts';
import { unitReplies } from './unit-replies.ts';
import { REQUEST_UNITS_MAX } from './unit-requests.ts';

/** Most graphs that one request watches. */
const WATCHED_MAX = 1000;

/** Most calls of FetchUnits at once by one target, and by all callers without one. */
// Each holds frames until they are read.
const FETCHES_MAX = 8;

/** Number of calls of FetchUnits that are open, by the names of targets. */
type Fetches = Map<string, number>;

/** What an agent serves to its followers. */
export interface PeerServerParts extends Pick<SourceParts, 'isGuarded' | 'onFrame'> {
  readonly store: Store;
  /** Name of this agent. */
  readonly agent: string;
  readonly followers: Followers;
  readonly admission: () => AdmissionRules;
}

/** Returns the service that agents call: follow a graph, watch heads, fetch units. */
export function peerService(parts: PeerServerParts): GrpcService {
  const fetches: Fetches = new Map();
  return grpcService(
    PeerService,
    {
      follow: (requests, context) => {
        const peer = peerOf(context);
        const admit: SourceParts['admit'] = ({ agent, graphId }) =>
          admitFollower(parts.admission(), { peer, agent, graphId });
        return serveFollower(requests, { ...parts, admit, address: peer.address }, context.signal);
      },
      watchGraphs: (requests, context) => watchGraphs(parts, requests, context),
      fetchUnits: (request, context) => fetchUnits({ ...parts, fetches }, request, context),
    },
    BULK_CODECS,
  );
}

async function* watchGraphs(
  parts: PeerServerParts,
  requests: AsyncIterable<WatchGraphsRequest>,
  context: HandlerContext,
): AsyncGenerator<WatchGraphsResponse> {
  for await (const { number, graphIds, agent } of requests) {
    if (graphIds.length > WATCHED_MAX || !graphIds.every(isGraphId))
      throw new LightkeeperError('PEER_INVALID', 'Cannot watch graphs: the request names too many, or none');
    const response = create(WatchGraphsResponseSchema, { number });
    for (const graphId of await watchedGraphs(parts.store, graphIds)) {
      const admitted = admitFollower(parts.admission(), { peer: peerOf(context), agent, graphId });
      const head = await parts.store.index.head(graphId);
      if (head?.epoch === undefined) continue;
      const follower = parts.followers.list(graphId).find(({ name }) => name === admitted.name);
      const lag = await lagOf(parts.store, graphId, follower?.held);
      const { epoch, sequence, digest } = head;
      const confirmedMs = await parts.store.index.local.confirmedAt(graphId);
      response.graphs.push(
        create(GraphHeadSchema, {
          graphId,
          epoch,
          sequence,
          digest,
          lag,
          ...(confirmedMs === undefined ? {} : { confirmedMsAgo: BigInt(Math.max(0, now() - confirmedMs)) }),
        }),
      );
    }
    yield response;
  }
}

/** Returns the graphs of a store that are named, and their workspaces. */
async function watchedGraphs(store: Store, named: readonly string[]): Promise<string[]> {
  const all = await store.index.graphs();
  return all.filter((graphId) => named.some((id) => graphId === id || isWorkspaceOf(graphId, id)));
}

async function* fetchUnits(
  { store, admission, fetches }: PeerServerParts & { readonly fetches: Fetches },
  { graphId, agent, unitIds }: FetchUnitsRequest,
  context: HandlerContext,
): AsyncGenerator<FetchUnitsResponse> {
  const { target } = admitFollower(admission(), { peer: peerOf(context), agent, graphId });
  const caller = target?.name ?? '';
  const open = (by: number) => fetches.set(caller, (fetches.get(caller) ?? 0) + by);
  const units = unitIds.length / UNIT_ID_BYTES;
  if (!Number.isInteger(units) || units > REQUEST_UNITS_MAX)
    throw new LightkeeperError('PEER_INVALID', 'Cannot fetch units: the request is too long, or cut');
  if ((fetches.get(caller) ?? 0) >= FETCHES_MAX) {
    throw new LightkeeperError('UNAVAILABLE', 'Cannot fetch units: too many such calls are open', {
      hint: 'try again',
    });
  }
  open(1);
  try {
    const wanted = { wantId: 1n, unitIds };
    for await (const message of unitReplies(store, new FrameSender(store), wanted))
      yield create(FetchUnitsResponseSchema, { message });
  } finally {
    open(-1);
  }
}
