import { statSync } from 'node:fs';
import { LightkeeperError } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { exceededLimits, limitsJson } from '../../core/limits.ts';
import type { BytePath } from '../../core/path.ts';
import { quietWindowMs } from '../../core/quiet.ts';
import { idOf, isEmptied } from '../../core/snapshot.ts';
import type { PruneResult, Snapshot } from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { AgentSettings, GraphSettings } from '../config/settings.ts';
import { InstanceWatch } from '../instance/instance-watch.ts';
import { InstanceProbe } from '../instance/probe.ts';
import { checkStorages, type InstanceLine } from '../instance/report.ts';
import { hasJournal } from '../restore/journal.ts';
import { graphStatus } from '../snapshots/queries.ts';
import { newestSnapshot } from '../snapshots/resolve.ts';
import { pruneIfNeeded } from '../snapshots/retention.ts';
import { checkDirectory } from '../watch/scan.ts';
import { TempWriters } from '../watch/temp-writers.ts';
import { workspacesIn } from '../watch/workspaces.ts';
import type { GuardedDirectory } from './guarded-directory.ts';
import type { AgentMetrics } from './metrics.ts';
import type { SnapshotTaker } from './take-snapshot.ts';
import { Telemetry } from './telemetry.ts';

/** Damaged snapshots of one graph that are whole again. */
export interface HealedSnapshots {
  readonly snapshotIds: readonly string[];
  /** Units that peers sent, for all graphs. */
  readonly units: number;
  /** Names of the peers that sent some. */
  readonly from: readonly string[];
}

/** Events of the graphs that an agent guards. */
export interface GraphEvents {
  readonly snapshot: (snapshot: Snapshot) => void;
  readonly pruned: (graphId: string, result: PruneResult) => void;
  readonly failed: (graphId: string, error: LightkeeperError) => void;
  /** Damaged snapshots are whole again. */
  readonly healed: (graphId: string, healed: HealedSnapshots) => void;
  /** The directory does not exist yet; the agent waits for it. */
  readonly waiting: (graphId: string) => void;
  readonly warned: (graphId: string, finding: Finding) => void;
  /** What is known of the instance of a graph, at the start and at each change. */
  readonly instance: (graphId: string, line: InstanceLine) => void;
}

/** Settings of the agent that concern every graph. */
export type CommonSettings = Pick<AgentSettings, 'reserveBytes' | 'continuous' | 'intervalMs'>;

/** The parts of a guarded graph. */
export interface GraphParts {
  readonly taker: SnapshotTaker;
  readonly metrics: AgentMetrics;
  readonly events: GraphEvents;
  readonly common: CommonSettings;
  /** Receives the workspaces below the directory at every scan. */
  readonly onWorkspaces: (workspaces: readonly BytePath[]) => void;
}

/** Most milliseconds that the start of an agent waits for an instance. */
const START_TIMEOUT_MS = 2000;

/** Throws if a graph can never be guarded. A directory that does not exist may appear later. */
export async function checkStart({ dir, instance }: GraphSettings, store: string): Promise<void> {
  try {
    checkDirectory(dir, store);
  } catch (error) {
    if (!(error instanceof LightkeeperError) || error.code !== 'NOT_FOUND') throw error;
  }
  if (instance === undefined) return;
  const report = await new InstanceProbe(instance, dir).report({ timeoutMs: START_TIMEOUT_MS });
  if (report.kind === 'own') checkStorages(report.instance, instance.allowPartial);
}

/** One protected graph: its state, readiness and retention. Its work as the primary is in `as-primary.ts`. */
export class Graph implements GuardedDirectory {
  readonly settings: GraphSettings;
  readonly taker: SnapshotTaker;
  readonly events: GraphEvents;
  readonly common: CommonSettings;
  readonly telemetry: Telemetry;
  /** Watch of its instance; undefined without one. */
  readonly watch: InstanceWatch | undefined;
  /** What was seen of the writers of temporary files. */
  readonly writers = new TempWriters();
  readonly #onWorkspaces: (workspaces: readonly BytePath[]) => void;
  #failure: LightkeeperError | undefined;
  #isWaiting = false;
  #sameDevice: Finding | undefined;

  constructor(settings: GraphSettings, { taker, metrics, events, common, onWorkspaces }: GraphParts) {
    this.settings = settings;
    this.taker = taker;
    this.events = events;
    this.common = common;
    this.telemetry = new Telemetry(settings.graphId, metrics);
    const { graphId, dir, instance } = settings;
    if (instance !== undefined)
      this.watch = new InstanceWatch(instance, dir, {
        onChange: (line) => events.instance(graphId, line),
      });
    this.#onWorkspaces = onWorkspaces;
  }

  get findings(): readonly Finding[] {
    return this.#sameDevice === undefined ? [] : [this.#sameDevice];
  }

  /** Lists the workspaces below the directory. They can appear and disappear while the agent runs. */
  readonly workspaces = (): ReadonlySet<BytePath> => {
    const found = this.settings.split ? workspacesIn(this.settings.dir) : [];
    this.#onWorkspaces(found);
    return new Set(found);
  };

  /** Reports a snapshot of this graph, whatever requested it. */
  report(snapshot: Snapshot, retries: number): void {
    if (this.telemetry.record(snapshot, retries)) this.events.snapshot(snapshot);
  }

  /** Records a capture that succeeded. */
  succeed(): void {
    this.#failure = undefined;
    this.#isWaiting = false;
  }

  /** Records and reports a failure. */
  fail(error: LightkeeperError): void {
    this.#failure = error;
    this.telemetry.fail(error);
    this.events.failed(this.settings.graphId, error);
  }

  /** Records that the directory does not exist yet, and reports it once. */
  wait(): void {
    if (!this.#isWaiting) this.events.waiting(this.settings.graphId);
    this.#isWaiting = true;
  }

  /** Warns once if the loss of one disk would take the directory and the store. */
  warnOfSharedDisk(): void {
    if (this.#sameDevice !== undefined) return;
    this.#sameDevice = sameDevice(this.settings.dir, this.taker.store.root);
    if (this.#sameDevice !== undefined) this.events.warned(this.settings.graphId, this.#sameDevice);
  }

  /** Reports whether there is a usable snapshot, nothing has failed since, and the graph was not emptied since. */
  async readiness(): Promise<{ ok: boolean; body: Record<string, unknown> }> {
    const { graphId, dir, quietMs } = this.settings;
    const { store } = this.taker;
    const status = await graphStatus(store, graphId, Buffer.from(dir).toString());
    const isPending = await hasJournal(dir);
    const failure = this.#failure;
    const newest = await newestSnapshot(store, graphId);
    const emptied = newest !== undefined && isEmptied(newest) ? idOf(newest) : undefined;
    const ok =
      failure === undefined && status.lastUsableId !== undefined && !isPending && emptied === undefined;
    const body = {
      graph: graphId,
      ready: ok,
      quietMs: quietWindowMs(quietMs, await store.index.local.quietRecord(graphId)),
      ...(isPending ? { pending: 'a restore in place has not been finished' } : {}),
      lastUsableId: status.lastUsableId ?? null,
      rpoMs: status.rpoMs === undefined ? null : Number(status.rpoMs),
      exceededLimits: limitsJson(exceededLimits(this.settings.limits, status)),
      ...(this.#isWaiting ? { waiting: true } : {}),
      ...(emptied === undefined
        ? {}
        : { emptied, hint: `restore an earlier point, or run lightkeeper ack ${emptied.slice(0, 12)}` }),
      ...(failure === undefined ? {} : { error: { message: failure.message, hint: failure.hint } }),
    };
    return { ok, body };
  }

  /** Applies the retention of this graph, if it would remove anything. */
  async prune(): Promise<void> {
    const { graphId, retention } = this.settings;
    const { store } = this.taker;
    const result = await pruneIfNeeded(store, graphId, retention);
    if (result !== undefined) this.events.pruned(graphId, result);
  }
}

function sameDevice(dir: Uint8Array, store: string): Finding | undefined {
  const [one, other] = [Buffer.from(dir), store].map((path) => statSync(path, { throwIfNoEntry: false }));
  if (one === undefined || one.dev !== other?.dev) return undefined;
  return warning('same_device', store, {
    message: 'the store is on the same disk as the directory: the loss of that disk destroys both',
    hint: 'name a folder on another disk with --store',
  });
}
