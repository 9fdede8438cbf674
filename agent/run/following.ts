import { join } from 'node:path';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { normalise } from '../../core/errors.ts';
import { hex } from '../../core/unit.ts';
import { AcknowledgementRecordSchema } from '../../gen/lightkeeper/index/v1/index_pb.ts';
import type { GrpcService } from '../../host/grpc/server.ts';
import type { DialOptions } from '../../host/grpc/transport.ts';
import type { AgentSettings, FollowedSettings } from '../config/settings.ts';
import { runAsStandby, watchHeads } from '../graph/as-standby.ts';
import { FollowedGraph } from '../graph/followed-graph.ts';
import type { GraphEvents } from '../graph/graph.ts';
import type { AgentMetrics } from '../graph/metrics.ts';
import type { SnapshotTaker } from '../graph/take-snapshot.ts';
import { dialledSource } from '../peer/fetch-units.ts';
import { type Follower, Followers } from '../peer/followers.ts';
import { lagOf } from '../peer/lag.ts';
import { peerService } from '../peer/server.ts';
import { TARGETS_FILE, TargetList } from '../peer/target-list.ts';
import { UnitReception } from '../peer/unit-reception.ts';
import { followerSource, type UnitPeer } from '../peer/unit-source.ts';

/** Most graphs that an agent follows because they are workspaces of a followed one. */
const WORKSPACES_MAX = 500;

/** The parts of an agent that its following needs. */
export interface FollowingParts {
  readonly settings: AgentSettings;
  readonly taker: SnapshotTaker;
  readonly metrics: AgentMetrics;
  readonly events: GraphEvents;
  readonly isGuarded: (graphId: string) => boolean;
}

/** The graphs that an agent follows, and the agents that follow graphs of it. */
export class Following {
  readonly followers = new Followers((follower) => this.#start(follower.graphId, this.#store(follower)));
  readonly targets: TargetList;
  /** Stores what peers send for damaged points. */
  readonly reception: UnitReception;
  readonly #parts: FollowingParts;
  readonly #graphs = new Map<string, FollowedGraph>();
  readonly #running = new Set<Promise<void>>();
  /** Bytes sent to each follower that were counted. */
  readonly #sent = new Map<string, number>();
  #dial: DialOptions = {};

  constructor(parts: FollowingParts) {
    this.#parts = parts;
    const { settings, taker } = parts;
    this.targets = new TargetList(settings.targets, join(settings.state, TARGETS_FILE));
    this.reception = new UnitReception(taker.store, { reserveBytes: settings.reserveBytes });
  }

  /** The graphs that this agent follows. */
  get graphs(): ReadonlyMap<string, FollowedGraph> {
    return this.#graphs;
  }

  /** Name of this agent. */
  get agent(): string {
    return this.#parts.settings.name;
  }

  /** How other agents are dialled. */
  get dial(): DialOptions {
    return this.#dial;
  }

  /** Returns the peers that can be asked for the units of a graph now: followers that are connected, and the source. */
  readonly peersOf = (graphId: string): UnitPeer[] => {
    const peers = this.followers
      .list(graphId)
      .filter(({ requestUnits }) => requestUnits !== undefined)
      .map((follower) => ({
        name: follower.name,
        isSource: false,
        open: () => followerSource(follower),
      }));
    const graph = this.#graphs.get(graphId);
    if (graph?.isConnected !== true) return peers;
    const { follow } = graph.settings;
    const { receive } = this.reception;
    const open = () => dialledSource(follow, { dial: this.#dial, graphId, agent: this.agent, receive });
    return [...peers, { name: follow, isSource: true, open }];
  };

  /** Returns the service that followers call. */
  service(): GrpcService {
    const { settings, taker, isGuarded } = this.#parts;
    return peerService({
      store: taker.store,
      agent: settings.name,
      followers: this.followers,
      isGuarded: (graphId) => isGuarded(graphId) || this.#graphs.has(graphId),
      admission: () => ({ targets: this.targets.list(), hasTls: settings.grpc.secure }),
      onFrame: this.reception.receive,
    });
  }

  /** Follows the graphs of the settings and their workspaces until the signal. */
  async run(dial: DialOptions, signal: AbortSignal): Promise<void> {
    this.#dial = dial;
    for (const settings of this.#parts.settings.followed) this.#follow(settings, dial, signal);
    // A graph may have added a workspace just before it ended.
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  #follow(settings: FollowedSettings, dial: DialOptions, signal: AbortSignal): void {
    const { taker, metrics, events } = this.#parts;
    const graph = new FollowedGraph(settings, {
      taker,
      metrics,
      events,
      agent: this.#parts.settings.name,
      dial,
      reserveBytes: this.#parts.settings.reserveBytes,
    });
    this.#graphs.set(settings.graphId, graph);
    this.#start(settings.graphId, runAsStandby(graph, signal));
    const isTop = this.#parts.settings.followed.includes(settings);
    if (isTop)
      this.#start(
        settings.graphId,
        watchHeads(
          graph,
          (heads, ms) => {
            for (const head of heads) {
              const known = this.#graphs.get(head.graphId);
              if (known !== undefined) this.#start(head.graphId, known.heard(head, ms));
              else if (settings.split && this.#graphs.size < WORKSPACES_MAX && !signal.aborted)
                this.#follow({ ...settings, graphId: head.graphId, split: false }, dial, signal);
            }
          },
          signal,
        ),
      );
  }

  #start(graphId: string, work: Promise<void>): void {
    const running: Promise<void> = work
      .catch((error: unknown) => this.#parts.events.failed(graphId, normalise(error)))
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  /** Stores what a follower acknowledged. */
  async #store({ graphId, name, storeId, held }: Follower): Promise<void> {
    if (held === undefined) return;
    const { index } = this.#parts.taker.store;
    const record = create(AcknowledgementRecordSchema, { ...held, storeId: Buffer.from(storeId, 'hex') });
    const batch = index.batch();
    const value = Buffer.from(toBinary(AcknowledgementRecordSchema, record));
    index.local.putAcknowledgement(batch, { graphId, follower: name }, value);
    await index.write('index:acknowledge', batch);
  }

  /** Loads the targets, and what followers acknowledged before this start. */
  async load(): Promise<void> {
    await this.targets.load();
    for await (const { graphId, follower, value } of this.#parts.taker.store.index.local.acknowledgements()) {
      const { storeId, epoch, sequence, digest } = fromBinary(AcknowledgementRecordSchema, value);
      const target = this.targets.list().find(({ name }) => name === follower);
      // A follower that is no target any more has no say.
      if (target === undefined && this.targets.list().length > 0) continue;
      const held = { epoch, sequence, digest };
      this.followers.remember({ name: follower, graphId, storeId: hex(storeId), target, held });
    }
  }

  /** Sets the metrics of the followers, before they are read. */
  async observe(): Promise<void> {
    const { metrics, taker } = this.#parts;
    for (const follower of this.followers.list()) {
      const { graphId: graph_id, name: target, held, sentBytes } = follower;
      const lag = await lagOf(taker.store, graph_id, held);
      metrics.lagSnapshots.set({ graph_id, target }, Number(lag.snapshots));
      metrics.lagBytes.set({ graph_id, target }, Number(lag.bytes));
      metrics.lagSeconds.set({ graph_id, target }, Number(lag.ms) / 1000);
      const key = `${graph_id} ${target}`;
      metrics.replicationBytes.inc(
        { graph_id, target, direction: 'sent' },
        sentBytes - (this.#sent.get(key) ?? 0),
      );
      this.#sent.set(key, sentBytes);
    }
  }
}
