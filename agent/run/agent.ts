import { setMaxListeners } from 'node:events';
import { normalise } from '../../core/errors.ts';
import { checkGraphId } from '../../core/manifest.ts';
import { type BytePath, pathText } from '../../core/path.ts';
import type { Snapshot } from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, waited } from '../../host/clock.ts';
import { StoreService } from '../api/service.ts';
import type { AgentSettings, GraphSettings } from '../config/settings.ts';
import { checkStart, Guard, type GuardEvents } from '../graph/graph.ts';
import { AgentMetrics } from '../graph/metrics.ts';
import { loadZstd } from '../pack/zstd.ts';
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
export interface AgentEvents extends GuardEvents {
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
  readonly #service: StoreService;
  readonly #guards = new Map<string, Guard>();
  readonly #running = new Set<Promise<void>>();
  #countedMs = Number.NEGATIVE_INFINITY;
  /** When the store is next swept, on the monotonic clock. */
  #sweepMs = monotonic() + PRUNE_EVERY_MS;

  constructor(store: Store, settings: AgentSettings, events: AgentEvents) {
    this.#settings = settings;
    this.#events = events;
    this.#service = new StoreService(store, {
      guarded: () => [...this.#guards.values()].map(({ guarded }) => guarded),
      onSnapshot: (snapshot, { retries }) => this.#measure(snapshot, retries),
      onRestored: (ms) => this.#metrics.restoreDuration.observe(ms / 1000),
      onSettled: (findings) => this.#events.settled(findings),
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const http = await serveHttp(this.#settings.http, {
      metrics: () => this.#metricsText(),
      readiness: () => this.#readiness(),
      health: () => this.#readiness(),
      role: (role, graphId) => this.#role(role, graphId),
    });
    try {
      const served = await serveStore(this.#service);
      try {
        this.#events.started({
          store: this.#service.store.root,
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
    const guard = new Guard(settings, {
      service: this.#service,
      metrics: this.#metrics,
      events: this.#events,
      settings: this.#settings,
      onWorkspaces: (found) => this.#guardWorkspaces(settings, found, signal),
    });
    this.#guards.set(graphId, guard);
    this.#events.guarding(graphId, dir);
    if (!this.#settings.captures) return;
    const running: Promise<void> = guard.run(signal).finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  #guardWorkspaces(parent: GraphSettings, found: readonly BytePath[], signal: AbortSignal): void {
    for (const workspace of found) {
      const graphId = workspaceId(parent.graphId, workspace);
      if (this.#guards.has(graphId) || this.#guards.size >= WORKSPACES_MAX || signal.aborted) continue;
      this.#guard({ ...parent, graphId, dir: below(parent.dir, workspace), split: false }, signal);
    }
  }

  #measure(snapshot: Snapshot, retries: number): void {
    const guard = this.#guards.get(snapshot.graphId);
    // Somebody may use this store for another directory too.
    if (guard === undefined) this.#events.snapshot(snapshot);
    else guard.measure(snapshot, retries);
  }

  async #metricsText(): Promise<string> {
    if (monotonic() - this.#countedMs >= COUNT_EVERY_MS) {
      this.#countedMs = monotonic();
      const stats = await this.#service.stats('');
      this.#metrics.units.set(Number(stats.units));
      this.#metrics.packs.set(stats.packs);
      this.#metrics.dedupRatio.set(stats.dedupRatio);
    }
    return await this.#metrics.registry.metrics();
  }

  async #readiness(): Promise<{ ok: boolean; body: unknown }> {
    const graphs = await Promise.all([...this.#guards.values()].map((guard) => guard.readiness()));
    const ok = graphs.every((graph) => graph.ok);
    return { ok, body: { ready: ok, graphs: graphs.map(({ body }) => body) } };
  }

  /** Without a controller and without peers an agent is primary for what it guards, in epoch 1. */
  #role(role: 'primary' | 'standby', graphId: string | undefined): { ok: boolean; body: unknown } {
    const guarded = graphId === undefined || this.#guards.has(graphId);
    const graphs = graphId === undefined ? [...this.#guards.keys()] : [graphId];
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
      const [first] = this.#guards.keys();
      const failed = (graphId: string) => (error: unknown) => this.#events.failed(graphId, normalise(error));
      if (monotonic() >= this.#sweepMs) {
        this.#sweepMs = monotonic() + SWEEP_EVERY_MS;
        await this.#service.keeping.sweep().catch(failed(first ?? ''));
      }
      for (const [graphId, guard] of this.#guards) {
        if (signal.aborted) break;
        await guard.prune().catch(failed(graphId));
      }
    }
  }
}
