import { setMaxListeners } from 'node:events';
import { normalise } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { checkGraphId, workspaceId } from '../../core/graph-id.ts';
import { type BytePath, bytesText, pathText } from '../../core/path.ts';
import type { Snapshot } from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, waited } from '../../host/clock.ts';
import { metricsRoute } from '../../host/metrics.ts';
import type { AgentSettings, GraphSettings } from '../config/settings.ts';
import { Grader } from '../grade/grader.ts';
import { runAsPrimary } from '../graph/as-primary.ts';
import { checkStart, Graph, type GraphEvents } from '../graph/graph.ts';
import { runHealer } from '../graph/healer.ts';
import { AgentMetrics } from '../graph/metrics.ts';
import { Scrub } from '../graph/scrub.ts';
import type { SnapshotTaker } from '../graph/take-snapshot.ts';
import type { InstanceSettings } from '../instance/probe.ts';
import { workspaceFolders } from '../instance/served-directory.ts';
import { loadZstd } from '../pack/zstd.ts';
import { storeStats } from '../snapshots/queries.ts';
import { sweepStore } from '../snapshots/retention.ts';
import { checkCapture } from '../snapshots/source-directory.ts';
import { Store } from '../store/store.ts';
import { below } from '../watch/names.ts';
import { Following } from './following.ts';
import { type CertificateLine, openListeners } from './listeners.ts';
import { isWithinLag, type ProbeResult, probeRoutes, type RoleQuery } from './probes.ts';
import { serveStore } from './socket.ts';

/** Time between two prunes, in milliseconds. */
const PRUNE_EVERY_MS = 10 * 60 * 1000;
const FIRST_PRUNE_MS = 60 * 1000;

// A sweep frees the space of deleted snapshots and of captures that were killed.
/** Time between two sweeps, in milliseconds. */
const SWEEP_EVERY_MS = 60 * 60 * 1000;

// A count reads every record of the store: scrapes in between return the last figures.
/** Time between two counts of the units, in milliseconds. */
const COUNT_EVERY_MS = 30_000;

/** Most graphs of an agent that gains workspaces by itself; each is watched. */
const WORKSPACES_MAX = 500;

/** Where a started agent serves. */
export interface StartedAgent {
  readonly store: string;
  /** URL of metrics and probes. */
  readonly http: string;
  /** URL for calls of other agents; undefined where the settings name no address. */
  readonly grpc: string | undefined;
  readonly socket: string;
}

/** Events of an agent. */
export interface AgentEvents extends GraphEvents {
  readonly started: (about: StartedAgent) => void;
  /** The agent's certificate was replaced, cannot be used, or expires soon. */
  readonly certificate: (line: CertificateLine) => void;
  /** The agent guards a further graph: one of the settings, or a workspace. */
  readonly guarding: (graphId: string, dir: Uint8Array) => void;
  /** An interrupted restore in place has been finished or undone. */
  readonly settled: (findings: readonly Finding[]) => void;
}

/** Guards graphs until the signal, then takes a last snapshot of each. */
export async function runAgent(
  settings: AgentSettings,
  events: AgentEvents,
  signal: AbortSignal,
): Promise<void> {
  // Each graph listens to the signal in several places.
  setMaxListeners(0, signal);
  for (const { graphId } of settings.graphs) checkGraphId(graphId);
  await Promise.all(settings.graphs.map((graph) => checkStart(graph, settings.store)));
  // An agent that could never capture does not start.
  loadZstd();
  const store = await Store.open(settings.store, { create: true });
  try {
    for (const graph of settings.graphs) await checkCapture(store, graph);
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
  readonly #following: Following;
  readonly #scrub: Scrub;
  readonly #graphs = new Map<string, Graph>();
  readonly #running = new Set<Promise<void>>();
  /** Workspaces whose ids are taken. */
  readonly #unguarded = new Set<string>();
  #countedMs = Number.NEGATIVE_INFINITY;
  /** Time of the next sweep, on the monotonic clock. */
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
    this.#following = new Following({
      settings,
      taker: this.#taker,
      metrics: this.#metrics,
      events,
      isGuarded: (graphId) => this.#graphs.has(graphId),
    });
    this.#scrub = new Scrub({
      store,
      periodMs: settings.scrubMs,
      events,
      defaultGraphId: () => [...this.#graphs.keys(), ...this.#following.graphs.keys()][0] ?? '',
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const routes = probeRoutes({
      readiness: () => this.#readiness(),
      health: () => this.#readiness(),
      role: (query) => this.#role(query),
    });
    routes.set(
      '/metrics',
      metricsRoute(this.#metrics.registry, async () => {
        await Promise.all([this.#countUnits(), this.#following.observe()]);
      }),
    );
    await this.#following.load();
    const listeners = await openListeners(this.#settings, {
      routes,
      services: [this.#following.service()],
      isReady: async () => (await this.#readiness()).ok,
      onCertificate: (line) => this.#events.certificate(line),
    });
    try {
      const served = await serveStore(this.#taker.store, {
        taker: this.#taker,
        guarded: () => [...this.#graphs.values()],
        onRestored: (durationMs) => this.#metrics.restoreDuration.observe(durationMs / 1000),
        following: this.#following,
        targets: this.#following.targets,
        peers: this.#following,
      });
      try {
        const { http, grpc } = listeners;
        this.#events.started({ store: this.#taker.store.root, http, grpc, socket: served.socket });
        for (const graph of this.#settings.graphs) this.#guard(graph, signal);
        const following = this.#following.run({ tls: listeners.tls }, signal);
        const upkeep = this.#keepWhole(signal);
        await this.#pruneRegularly(signal);
        await Promise.all([following, upkeep]);
        // A guard that ends may have added a workspace just before.
        while (this.#running.size > 0) await Promise.all(this.#running);
      } finally {
        await served.close();
      }
    } finally {
      await listeners.close();
    }
  }

  /** Reads the packs again and again, and heals what is found damaged, until the signal. */
  async #keepWhole(signal: AbortSignal): Promise<void> {
    const { store } = this.#taker;
    const healer = runHealer({ store, peers: this.#following, events: this.#events }, signal);
    await Promise.all([this.#scrub.run(signal), healer]);
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
      const dir = below(parent.dir, workspace);
      const taken = this.#graphs.get(graphId);
      if (taken !== undefined) {
        if (!dir.equals(taken.settings.dir)) this.#warnOfTakenId(taken.settings, dir);
        continue;
      }
      if (this.#graphs.size >= WORKSPACES_MAX || signal.aborted) continue;
      const instance = workspaceInstance(parent, workspace);
      this.#guard({ ...parent, graphId, dir, instance, split: false }, signal);
    }
  }

  /** Warns once that a workspace is not guarded, as another directory has its id. */
  #warnOfTakenId({ graphId, dir: other }: GraphSettings, dir: Buffer): void {
    const object = bytesText(dir);
    if (this.#unguarded.has(object)) return;
    this.#unguarded.add(object);
    const text = {
      message: `this workspace is not guarded: "${graphId}", its id, is that of ${bytesText(other)}`,
      hint: 'give the graphs other ids with --graph',
    };
    this.#events.warned(graphId, warning('workspace_not_guarded', object, text));
  }

  #report(snapshot: Snapshot, retries: number): void {
    const graph = this.#graphs.get(snapshot.graphId);
    // A call may capture another directory into this store.
    if (graph === undefined) this.#events.snapshot(snapshot);
    else graph.report(snapshot, retries);
  }

  async #countUnits(): Promise<void> {
    if (monotonic() - this.#countedMs < COUNT_EVERY_MS) return;
    this.#countedMs = monotonic();
    const stats = await storeStats(this.#taker.store, '');
    this.#metrics.units.set(Number(stats.units));
    this.#metrics.packs.set(stats.packs);
    this.#metrics.dedupRatio.set(stats.dedupRatio);
    this.#metrics.scrubCoverage.set(await this.#scrub.coverage());
  }

  async #readiness(): Promise<ProbeResult> {
    const all = [...this.#graphs.values(), ...this.#following.graphs.values()];
    const graphs = await Promise.all(all.map((graph) => graph.readiness()));
    const ok = graphs.every((graph) => graph.ok);
    return { ok, body: { ready: ok, graphs: graphs.map(({ body }) => body) } };
  }

  /** Returns whether the agent has a role for a graph, or for all of its graphs. */
  // Without a controller it is primary of what it captures, and standby of what it follows.
  async #role({ role, graphId, lag }: RoleQuery): Promise<ProbeResult> {
    const { graphs: followed } = this.#following;
    const isGuarded = (graph: string) => this.#graphs.has(graph) || followed.has(graph);
    if (graphId !== undefined && !isGuarded(graphId)) {
      const message = `Cannot answer for "${pathText(graphId)}": this agent does not guard it`;
      return { ok: false, body: { error: { message } } };
    }
    const graphs = graphId === undefined ? [...this.#graphs.keys(), ...followed.keys()] : [graphId];
    const roles = graphs.map((graph) => {
      const standby = followed.get(graph);
      return standby === undefined
        ? { graph, role: 'PRIMARY', ok: role === 'primary' }
        : { graph, role: 'STANDBY', ok: role === 'standby' && isWithinLag(standby.lag, lag) };
    });
    const shown = roles.map(async ({ graph, role: own }) => {
      const head = await this.#taker.store.index.head(graph);
      return { graph, role: own, epoch: String(head?.epoch?.number ?? 1n) };
    });
    const ok = roles.length > 0 && roles.every((one) => one.ok);
    return { ok, body: { graphs: await Promise.all(shown) } };
  }

  /** Prunes and sweeps from time to time until the signal. */
  async #pruneRegularly(signal: AbortSignal): Promise<void> {
    for (let waitMs = FIRST_PRUNE_MS; await waited(waitMs, signal); waitMs = PRUNE_EVERY_MS) {
      if (!this.#settings.captures) continue;
      const [first] = this.#graphs.keys();
      const failed = (graphId: string) => (error: unknown) => this.#events.failed(graphId, normalise(error));
      if (monotonic() >= this.#sweepMs) {
        this.#sweepMs = monotonic() + SWEEP_EVERY_MS;
        await sweepStore(this.#taker.store).catch(failed(first ?? ''));
      }
      for (const [graphId, graph] of [...this.#graphs, ...this.#following.graphs]) {
        if (signal.aborted) break;
        await graph.prune().catch(failed(graphId));
      }
    }
  }
}

/** Returns the instance of a workspace: its own, or that of the directory, which may serve another workspace. */
function workspaceInstance(
  { instance, workspaceInstances }: GraphSettings,
  workspace: BytePath,
): InstanceSettings | undefined {
  const folder = Buffer.from(workspace, 'latin1').toString();
  const [, similar] = [...workspaceInstances].find(([name]) => workspaceFolders(name).includes(folder)) ?? [];
  const own = workspaceInstances.get(folder) ?? similar;
  if (own !== undefined) return { ...own, workspace };
  return instance === undefined ? undefined : { ...instance, workspace, isInherited: true };
}
