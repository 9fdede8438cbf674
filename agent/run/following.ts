import { join } from 'node:path';
import { normalise } from '../../core/errors.ts';
import type { GrpcService } from '../../host/grpc/server.ts';
import type { DialOptions } from '../../host/grpc/transport.ts';
import type { AgentSettings, FollowedSettings } from '../config/settings.ts';
import { runAsStandby, watchHeads } from '../graph/as-standby.ts';
import { FollowedGraph } from '../graph/followed-graph.ts';
import type { GraphEvents } from '../graph/graph.ts';
import type { AgentMetrics } from '../graph/metrics.ts';
import type { SnapshotTaker } from '../graph/take-snapshot.ts';
import { Followers } from '../peer/followers.ts';
import { peerService } from '../peer/server.ts';
import { TARGETS_FILE, TargetList } from '../peer/target-list.ts';

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
  readonly followers = new Followers();
  readonly targets: TargetList;
  readonly #parts: FollowingParts;
  readonly #graphs = new Map<string, FollowedGraph>();
  readonly #running = new Set<Promise<void>>();

  constructor(parts: FollowingParts) {
    this.#parts = parts;
    const { targets, state } = parts.settings;
    this.targets = new TargetList(targets, join(state, TARGETS_FILE));
  }

  /** The graphs that this agent follows. */
  get graphs(): ReadonlyMap<string, FollowedGraph> {
    return this.#graphs;
  }

  /** Returns the service that followers call. */
  service(): GrpcService {
    const { settings, taker, isGuarded } = this.#parts;
    return peerService({
      store: taker.store,
      agent: settings.name,
      followers: this.followers,
      isGuarded: (graphId) => isGuarded(graphId) || this.#graphs.has(graphId),
      admission: () => ({ targets: this.targets.list(), hasTls: settings.grpc.secure }),
      onFrame: () => Promise.resolve([]),
    });
  }

  /** Follows the graphs of the settings and their workspaces until the signal. */
  async run(dial: DialOptions, signal: AbortSignal): Promise<void> {
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
    this.#start(runAsStandby(graph, signal));
    const isTop = this.#parts.settings.followed.includes(settings);
    if (isTop)
      this.#start(
        watchHeads(
          graph,
          (heads, ms) => {
            for (const head of heads) {
              const known = this.#graphs.get(head.graphId);
              if (known !== undefined) known.heard(head, ms);
              else if (settings.split && this.#graphs.size < WORKSPACES_MAX && !signal.aborted)
                this.#follow({ ...settings, graphId: head.graphId, split: false }, dial, signal);
            }
          },
          signal,
        ),
      );
  }

  #start(work: Promise<void>): void {
    const { events, settings } = this.#parts;
    const running: Promise<void> = work
      .catch((error: unknown) => events.failed(settings.followed[0]?.graphId ?? '', normalise(error)))
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
  }
}
