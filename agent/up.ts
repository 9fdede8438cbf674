import { statSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { LightkeeperError, normalise } from '../core/errors.ts';
import { warning } from '../core/finding.ts';
import { checkGraphId, graphIdOf } from '../core/manifest.ts';
import {
  CreateSnapshotRequestSchema,
  PruneRequestSchema,
  type PruneResult,
  type RetentionPolicy,
  type Snapshot,
} from '../gen/lightkeeper/v1/agent_pb.ts';
import { type Finding, Grade_Value } from '../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, now } from '../host/clock.ts';
import type { CaptureHooks } from './hooks.ts';
import { serveHttp } from './http.ts';
import { checkInstance, InstanceProbe, type InstanceSettings } from './instance.ts';
import { AgentMetrics } from './metrics.ts';
import { checkDirectory } from './scan.ts';
import { serveStore } from './serve.ts';
import { QUIET_MS, StoreService } from './service.ts';
import { defaultRetention } from './settings.ts';
import { Store } from './store/store.ts';
import { Watcher } from './watch.ts';

/** Between two applications of the retention policy. */
const PRUNE_EVERY_MS = 10 * 60 * 1000;
const FIRST_PRUNE_MS = 60 * 1000;
/** An unchanged directory is confirmed in the index at most this often: each is a synced write. */
const CONFIRM_EVERY_MS = 5000;
/** Captures start this far apart where nothing else is said. */
const CAPTURE_EVERY_MS = 1000;
/** In a busy stretch the directory is taken as it is after this. */
const BUSY_STRETCH_MS = 5 * 60 * 1000;
/** How long the agent waits for an instance that may be stopping too, and between two questions. */
const LAST_FLUSH_MS = 3000;
const LAST_ASK_MS = 100;
/** How long the last snapshot waits for the directory to come to rest. */
const LAST_SETTLE_MS = 5000;
/** Counting goes over every record of the store: scrapes in between get the last figures. */
const COUNT_EVERY_MS = 30_000;

/** What `up` is told. */
export interface UpOptions {
  readonly dir: Uint8Array;
  readonly graphId: string;
  readonly store: string;
  readonly http: { host: string; port: number; fallback: boolean };
  readonly exclude: readonly string[];
  readonly reserveBytes: bigint | undefined;
  /** The least quiet window, 300 ms where not given; the learned one may be longer. */
  readonly quietMs?: number | undefined;
  /** Captures start this far apart, at least; 1 s where not given. */
  readonly minIntervalMs?: number | undefined;
  readonly instance?: InstanceSettings | undefined;
  readonly hooks?: CaptureHooks | undefined;
  /** `defaultRetention` where not given. */
  readonly retention?: RetentionPolicy | undefined;
}

/** What an agent tells whoever started it. */
export interface UpEvents {
  readonly started: (about: { graphId: string; store: string; port: number; socket: string }) => void;
  readonly snapshot: (snapshot: Snapshot) => void;
  readonly pruned: (result: PruneResult) => void;
  readonly failed: (error: LightkeeperError) => void;
  /** The directory is not there yet: it is waited for. */
  readonly waiting: () => void;
  readonly warned: (finding: Finding) => void;
}

/** Protects a directory until the signal, then takes a last snapshot and ends. */
export async function up(options: UpOptions, events: UpEvents, signal: AbortSignal): Promise<void> {
  const graphId =
    options.graphId === '' ? graphIdOf(basename(Buffer.from(options.dir).toString())) : options.graphId;
  checkGraphId(graphId);
  await checkStart(options);
  const store = await Store.open(options.store, { create: true });
  try {
    await new Agent(store, graphId, options, events).run(signal);
  } finally {
    await store.close();
  }
}

/** Refuses what can never be guarded, before anything is made. A directory that is not there yet may come. */
async function checkStart({ dir, store, instance }: UpOptions): Promise<void> {
  try {
    checkDirectory(dir, store);
  } catch (error) {
    if (!(error instanceof LightkeeperError) || error.code !== 'NOT_FOUND') throw error;
  }
  if (instance === undefined) return;
  const described = await new InstanceProbe(instance).describe();
  if (described !== undefined) checkInstance(described, dir, instance.allowPartial);
}

/** The finding of a store that a loss of the directory's disk would take along. */
function sameDevice(dir: Uint8Array, store: string): Finding | undefined {
  const [one, other] = [Buffer.from(dir), store].map((path) => statSync(path, { throwIfNoEntry: false }));
  if (one === undefined || one.dev !== other?.dev) return undefined;
  return warning('same_device', store, {
    message: 'the store is on the disk of the directory: a loss of that disk takes both',
    hint: 'name a folder on another disk with --store',
  });
}

class Agent {
  readonly #store: Store;
  readonly #graphId: string;
  readonly #options: UpOptions;
  readonly #events: UpEvents;
  readonly #metrics = new AgentMetrics();
  readonly #service: StoreService;
  #confirmedMs = 0;
  /** The first look is told of even if it finds nothing new: the directory is protected from then on. */
  #told = false;
  #countedMs = Number.NEGATIVE_INFINITY;
  #failure: LightkeeperError | undefined;
  #waiting = false;

  constructor(store: Store, graphId: string, options: UpOptions, events: UpEvents) {
    this.#store = store;
    this.#graphId = graphId;
    this.#options = options;
    this.#events = events;
    this.#service = new StoreService(store, {
      guarded: () => [
        {
          graphId,
          dir: Buffer.from(options.dir).toString(),
          instance: options.instance,
          hooks: options.hooks,
        },
      ],
      onSnapshot: (snapshot, { retries }) => this.#measure(snapshot, retries),
      onRestored: (ms) => this.#metrics.restoreDuration.observe(ms / 1000),
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { dir, exclude, minIntervalMs = CAPTURE_EVERY_MS } = this.#options;
    const http = await serveHttp(this.#options.http, {
      metrics: () => this.#metricsText(),
      readiness: () => this.#readiness(),
      health: () => this.#readiness(),
      role: (role, graphId) => this.#role(role, graphId),
    });
    const served = await serveStore(this.#service).catch(async (error: unknown) => {
      await http.close();
      throw error;
    });
    const { port } = http;
    this.#events.started({ graphId: this.#graphId, store: this.#store.root, port, socket: served.socket });
    const shared = sameDevice(dir, this.#store.root);
    if (shared !== undefined) this.#events.warned(shared);
    const handlers = {
      capture: () => this.#capture(BUSY_STRETCH_MS, signal),
      confirm: () => this.#confirm(),
      failed: (error: LightkeeperError) => this.#fail(error),
      absent: () => this.#absent(),
      warned: (finding: Finding) => this.#events.warned(finding),
    };
    const watching = { scan: { exclude, store: this.#store.root }, minIntervalMs };
    const watcher = new Watcher(dir, watching, handlers, signal);
    const pruning = this.#pruneNowAndThen(signal);
    try {
      await watcher.run();
      await this.#instanceEnds();
      const last = { ...handlers, capture: () => this.#capture(LAST_SETTLE_MS) };
      await new Watcher(dir, watching, last, signal).finish();
      await pruning;
    } finally {
      await served.close();
      await http.close();
    }
  }

  async #capture(
    settleTimeoutMs: number,
    signal?: AbortSignal,
  ): Promise<{ usable: boolean; durationMs: number }> {
    const request = create(CreateSnapshotRequestSchema, {
      dir: this.#options.dir,
      graphId: this.#graphId,
      settleTimeoutMs,
      quietMs: this.#options.quietMs ?? QUIET_MS,
      exclude: [...this.#options.exclude],
      ...(this.#options.reserveBytes === undefined ? {} : { diskReserveBytes: this.#options.reserveBytes }),
    });
    const snapshot = await this.#service.snapshot(request, () => {}, signal);
    this.#failure = undefined;
    const durationMs = snapshot.unchanged ? 0 : snapshot.durationMs;
    return { usable: snapshot.grade !== Grade_Value.TORN, durationMs };
  }

  async #confirm(): Promise<void> {
    if (now() - this.#confirmedMs < CONFIRM_EVERY_MS) return;
    this.#confirmedMs = now();
    const batch = this.#store.index.batch();
    this.#store.index.putConfirmedAt(batch, this.#graphId, this.#confirmedMs);
    await batch.write();
    this.#metrics.lastValid.set({ graph_id: this.#graphId }, this.#confirmedMs / 1000);
  }

  /** An instance that is stopped together with the agent flushes once more: the last point is to have that. */
  async #instanceEnds(): Promise<void> {
    const { instance } = this.#options;
    if (instance === undefined) return;
    const probe = new InstanceProbe(instance);
    const untilMs = monotonic() + LAST_FLUSH_MS;
    while (monotonic() < untilMs && (await probe.describe()) !== undefined) await sleep(LAST_ASK_MS);
  }

  #absent(): void {
    if (!this.#waiting) this.#events.waiting();
    this.#waiting = true;
  }

  #fail(error: LightkeeperError): void {
    this.#failure = error;
    this.#metrics.errors.inc({ graph_id: this.#graphId, reason: error.code.toLowerCase() });
    this.#events.failed(error);
  }

  #measure(snapshot: Snapshot, retries: number): void {
    const graph_id = snapshot.graphId;
    const usable = snapshot.grade !== Grade_Value.TORN;
    if (retries > 0) this.#metrics.tornRetries.inc({ graph_id }, retries);
    if (usable && snapshot.confirmedAt !== undefined) {
      this.#metrics.lastValid.set({ graph_id }, timestampMs(snapshot.confirmedAt) / 1000);
    }
    this.#metrics.role.set({ graph_id }, 2);
    this.#metrics.epoch.set({ graph_id }, Number(snapshot.position?.epoch ?? 1n));
    if (snapshot.unchanged && this.#told) return;
    this.#told = true;
    this.#events.snapshot(snapshot);
    if (snapshot.unchanged) return;
    this.#metrics.snapshots.inc({ graph_id, grade: Grade_Value[snapshot.grade] });
    this.#metrics.sizeBytes.set({ graph_id }, Number(snapshot.rawBytes));
    this.#metrics.storedBytes.set({ graph_id }, Number(snapshot.storedBytes));
    this.#metrics.duration.observe({ graph_id }, snapshot.durationMs / 1000);
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
    const status = await this.#service.graphStatus(this.#graphId, '');
    const ok = this.#failure === undefined && status.lastUsableId !== undefined;
    const body = {
      ready: ok,
      graph: this.#graphId,
      lastUsableId: status.lastUsableId ?? null,
      rpoMs: status.rpoMs === undefined ? null : Number(status.rpoMs),
      ...(this.#failure === undefined
        ? {}
        : { error: { message: this.#failure.message, hint: this.#failure.hint } }),
    };
    return { ok, body };
  }

  /** Without a controller and without peers an agent is primary for what it guards, in epoch 1. */
  #role(role: 'primary' | 'standby', graphId: string | undefined): { ok: boolean; body: unknown } {
    const guarded = graphId === undefined || graphId === this.#graphId;
    const body = guarded
      ? { graph: this.#graphId, role: 'PRIMARY', epoch: '1' }
      : {
          graph: graphId,
          error: { message: `Cannot answer for "${graphId}": this agent does not guard it` },
        };
    return { ok: guarded && role === 'primary', body };
  }

  async #pruneNowAndThen(signal: AbortSignal): Promise<void> {
    for (let waitMs = FIRST_PRUNE_MS; ; waitMs = PRUNE_EVERY_MS) {
      if (!(await waited(waitMs, signal))) return;
      try {
        const policy = this.#options.retention ?? defaultRetention();
        const request = create(PruneRequestSchema, { graphId: this.#graphId, policy });
        const result = await this.#service.prune(request, () => {});
        if (result.remove.length > 0) this.#events.pruned(result);
      } catch (error) {
        this.#events.failed(normalise(error));
      }
    }
  }
}

/** Waits; false if the signal came first. */
function waited(ms: number, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(false);
    const end = (whole: boolean) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
      resolve(whole);
    };
    const stop = () => end(false);
    const timer = setTimeout(() => end(true), ms);
    signal.addEventListener('abort', stop);
  });
}
