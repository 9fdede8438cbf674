import { setMaxListeners } from 'node:events';
import { normalise } from '../../core/errors.ts';
import { checkGraphId } from '../../core/manifest.ts';
import { type BytePath, pathText } from '../../core/path.ts';
import type { Snapshot } from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, waited } from '../../host/clock.ts';
import type { AgentSettings, GraphSettings } from '../config/settings.ts';
import { Grader } from '../grade/grader.ts';
import { runAsPrimary } from '../graph/as-primary.ts';
import { checkStart, Graph, type GraphEvents } from '../graph/graph.ts';
import { AgentMetrics } from '../graph/metrics.ts';
import type { SnapshotTaker } from '../graph/take-snapshot.ts';
import { loadZstd } from '../pack/zstd.ts';
import { storeStats } from '../snapshots/queries.ts';
import { sweepStore } from '../snapshots/retention.ts';
import { Store } from '../store/store.ts';
import { below } from '../watch/names.ts';
import { workspaceId } from '../watch/workspaces.ts';
import { serveHttp } from './probes.ts';
import { serveStore } from './socket.ts';

/** Between two applications of the retention policy. */
const PRUNE_EVERY_MS = 10 * 60 * 1000;
const FIRST_PRUNE_MS = 60 * 1000;

/** Between two looks for space that nothing needs: what was deleted, or a killed capture left. */
const SWEEP_EVERY_MS = 60 * 60 * 1000;

/** Counting goes over every record of the store: scrapes in between get the last figures. */
const COUNT_EVERY_MS = 30_000;

/** Workspaces that one agent guards by itself; each is watched. */
const WORKSPACES_MAX = 500;

/** What an agent tells whoever started it. */
export interface AgentEvents extends GraphEvents {
  readonly started: (about: { store: string; port: number; socket: string }) => void;
  /** A graph is guarded from now on: one of the settings, or a workspace that has been found. */
  readonly guarding: (graphId: string, dir: Uint8Array) => void;
  /** A restore in place that was cut off has been finished or undone. */
  readonly settled: (findings: readonly Finding[]) => void;
}

/** Guards graphs until the signal, then takes a last snapshot of each and ends. */
export async function runAgent(
  settings: AgentSettings,
  events: AgentEvents,
  signal: AbortSignal,
): Promise<void> {
  // Each graph waits for the one signal in several places.
  setMaxListeners(0, signal);
  for (const graph of settings.graphs) {
    checkGraphId(graph.graphId);
    await checkStart(graph, settings.store);
  }
  // An agent that could never capture does not start.
  loadZstd();
  const store = await Store.open(settings.store, { create: true });
  try {
    await new Agent(store, settings, events).run(signal);
  } finally {
    await store.close();
  }
}

class Agent {
  readonly #settings: AgentSettings;
  readonly #events: AgentEvents;
  readonly #metrics = new AgentMetrics();
  readonly #taker: SnapshotTaker;
  readonly #graphs = new Map<string, Graph>();
  readonly #running = new Set<Promise<void>>();
  #countedMs = Number.NEGATIVE_INFINITY;
  /** When the store is next swept, on the monotonic clock. */
  #sweepMs = monotonic() + PRUNE_EVERY_MS;

  constructor(store: Store, settings: AgentSettings, events: AgentEvents) {
    this.#settings = settings;
    this.#events = events;
    this.#taker = {
      store,
      grader: new Grader(store),
      onTaken: (snapshot, retries) => this.#report(snapshot, retries),
      onRecovered: (findings) => this.#events.settled(findings),
    };
  }

  async run(signal: AbortSignal): Promise<void> {
    const http = await serveHttp(this.#settings.http, {
      metrics: () => this.#metricsText(),
      readiness: () => this.#readiness(),
      health: () => this.#readiness(),
      role: (role, graphId) => this.#role(role, graphId),
    });
    try {
      const served = await serveStore(this.#taker.store, {
        taker: this.#taker,
        guarded: () => [...this.#graphs.values()],
        onRestored: (durationMs) => this.#metrics.restoreDuration.observe(durationMs / 1000),
      });
      try {
        this.#events.started({
          store: this.#taker.store.root,
          port: http.port,
          socket: served.socket,
        });
        for (const graph of this.#settings.graphs) this.#guard(graph, signal);
        await this.#pruneNowAndThen(signal);
        // A guard that ends may have found a workspace just before.
        while (this.#running.size > 0) await Promise.all(this.#running);
      } finally {
        await served.close();
      }
    } finally {
      await http.close();
    }
  }

  #guard(settings: GraphSettings, signal: AbortSignal): void {
    const { graphId, dir } = settings;
    const graph = new Graph(settings, {
      taker: this.#taker,
      metrics: this.#metrics,
      events: this.#events,
      common: this.#settings,
      onWorkspaces: (found) => this.#guardWorkspaces(settings, found, signal),
    });
    this.#graphs.set(graphId, graph);
    this.#events.guarding(graphId, dir);
    if (!this.#settings.captures) return;
    const running: Promise<void> = runAsPrimary(graph, signal).finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  #guardWorkspaces(parent: GraphSettings, found: readonly BytePath[], signal: AbortSignal): void {
    for (const workspace of found) {
      const graphId = workspaceId(parent.graphId, workspace);
      if (this.#graphs.has(graphId) || this.#graphs.size >= WORKSPACES_MAX || signal.aborted) continue;
      this.#guard({ ...parent, graphId, dir: below(parent.dir, workspace), split: false }, signal);
    }
  }

  #report(snapshot: Snapshot, retries: number): void {
    const graph = this.#graphs.get(snapshot.graphId);
    // Commands may use this store for other directories too.
    if (graph === undefined) this.#events.snapshot(snapshot);
    else graph.report(snapshot, retries);
  }

  async #metricsText(): Promise<string> {
    if (monotonic() - this.#countedMs >= COUNT_EVERY_MS) {
      this.#countedMs = monotonic();
      const stats = await storeStats(this.#taker.store, '');
      this.#metrics.units.set(Number(stats.units));
      this.#metrics.packs.set(stats.packs);
      this.#metrics.dedupRatio.set(stats.dedupRatio);
    }
    return await this.#metrics.registry.metrics();
  }

  async #readiness(): Promise<{ ok: boolean; body: unknown }> {
    const graphs = await Promise.all([...this.#graphs.values()].map((graph) => graph.readiness()));
    const ok = graphs.every((graph) => graph.ok);
    return { ok, body: { ready: ok, graphs: graphs.map(({ body }) => body) } };
  }

  /** Without a controller and without peers an agent is primary for what it guards, in epoch 1. */
  #role(role: 'primary' | 'standby', graphId: string | undefined): { ok: boolean; body: unknown } {
    const guarded = graphId === undefined || this.#graphs.has(graphId);
    const graphs = graphId === undefined ? [...this.#graphs.keys()] : [graphId];
    const body = guarded
      ? { graphs: graphs.map((graph) => ({ graph, role: 'PRIMARY', epoch: '1' })) }
      : {
          error: { message: `Cannot answer for "${pathText(graphId ?? '')}": this agent does not guard it` },
        };
    return { ok: guarded && role === 'primary', body };
  }

  /** Until the signal. */
  async #pruneNowAndThen(signal: AbortSignal): Promise<void> {
    for (let waitMs = FIRST_PRUNE_MS; await waited(waitMs, signal); waitMs = PRUNE_EVERY_MS) {
      if (!this.#settings.captures) continue;
      const [first] = this.#graphs.keys();
      const failed = (graphId: string) => (error: unknown) => this.#events.failed(graphId, normalise(error));
      if (monotonic() >= this.#sweepMs) {
        this.#sweepMs = monotonic() + SWEEP_EVERY_MS;
        await sweepStore(this.#taker.store).catch(failed(first ?? ''));
      }
      for (const [graphId, graph] of this.#graphs) {
        if (signal.aborted) break;
        await graph.prune().catch(failed(graphId));
      }
    }
  }
}
