import { basename } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { LightkeeperError } from '../core/errors.ts';
import { normalise } from '../core/errors.ts';
import { checkGraphId, graphIdOf } from '../core/manifest.ts';
import {
  CreateSnapshotRequestSchema,
  PruneRequestSchema,
  type PruneResult,
  RetentionPolicySchema,
  type Snapshot,
} from '../gen/lightkeeper/v1/agent_pb.ts';
import { type Finding, Grade_Value } from '../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, now } from '../host/clock.ts';
import { serveHttp } from './http.ts';
import { hasJournal } from './journal.ts';
import { AgentMetrics } from './metrics.ts';
import { dropOldStates, oldStates } from './roll.ts';
import { scan } from './scan.ts';
import { serveStore } from './serve.ts';
import { StoreService } from './service.ts';
import { Store } from './store/store.ts';
import { Watcher } from './watch.ts';

const HOUR_MS = 3_600_000;
/** Between two applications of the retention policy. */
const PRUNE_EVERY_MS = 10 * 60 * 1000;
const FIRST_PRUNE_MS = 60 * 1000;
/** An unchanged directory is confirmed in the index at most this often: each is a synced write. */
const CONFIRM_EVERY_MS = 5000;
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
}

/** What an agent tells whoever started it. */
export interface UpEvents {
  readonly started: (about: { graphId: string; store: string; port: number; socket: string }) => void;
  readonly snapshot: (snapshot: Snapshot) => void;
  readonly pruned: (result: PruneResult) => void;
  readonly failed: (error: LightkeeperError) => void;
  /** A restore in place that was cut off has been finished or undone. */
  readonly settled: (findings: readonly Finding[]) => void;
}

/** The retention that holds where nothing else is said. */
export function defaultRetention() {
  return create(RetentionPolicySchema, {
    withinMs: BigInt(HOUR_MS),
    hourly: 48,
    daily: 30,
    weekly: 8,
    monthly: 12,
  });
}

/** Protects a directory until the signal, then takes a last snapshot and ends. */
export async function up(options: UpOptions, events: UpEvents, signal: AbortSignal): Promise<void> {
  const graphId =
    options.graphId === '' ? graphIdOf(basename(Buffer.from(options.dir).toString())) : options.graphId;
  checkGraphId(graphId);
  // A directory that is not there is refused before anything is made.
  await scan(options.dir, { exclude: options.exclude, store: options.store });
  const store = await Store.open(options.store, { create: true });
  try {
    await new Agent(store, graphId, options, events).run(signal);
  } finally {
    await store.close();
  }
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

  constructor(store: Store, graphId: string, options: UpOptions, events: UpEvents) {
    this.#store = store;
    this.#graphId = graphId;
    this.#options = options;
    this.#events = events;
    this.#service = new StoreService(store, {
      guarded: () => [{ graphId, dir: Buffer.from(options.dir).toString(), exclude: options.exclude }],
      onSnapshot: (snapshot, { retries }) => this.#measure(snapshot, retries),
      onRestored: (ms) => this.#metrics.restoreDuration.observe(ms / 1000),
      onSettled: (findings) => events.settled(findings),
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { dir, exclude } = this.#options;
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
    const handlers = {
      capture: () => this.#capture(0, signal),
      confirm: () => this.#confirm(signal),
      failed: (error: LightkeeperError) => this.#fail(error),
    };
    const watcher = new Watcher(dir, { exclude, store: this.#store.root }, handlers, signal);
    const pruning = this.#pruneNowAndThen(signal);
    try {
      await watcher.run();
      await new Watcher(
        dir,
        { exclude, store: this.#store.root },
        { ...handlers, capture: () => this.#capture(LAST_SETTLE_MS) },
        signal,
      ).finish();
      await pruning;
    } finally {
      await served.close();
      await http.close();
    }
  }

  /** Answers whether the directory now has a usable point that equals it. */
  async #capture(settleTimeoutMs: number, signal?: AbortSignal): Promise<boolean> {
    const request = create(CreateSnapshotRequestSchema, {
      dir: this.#options.dir,
      graphId: this.#graphId,
      settleTimeoutMs,
      exclude: [...this.#options.exclude],
      ...(this.#options.reserveBytes === undefined ? {} : { diskReserveBytes: this.#options.reserveBytes }),
    });
    const replaced = await oldStates(this.#options.dir);
    const snapshot = await this.#service.snapshot(request, () => {}, signal);
    this.#failure = undefined;
    const usable = snapshot.grade !== Grade_Value.TORN;
    if (usable && replaced.length > 0) await this.#dropReplaced(replaced);
    return usable;
  }

  /** What a restore in place has replaced is kept until there is a usable point of what came instead. */
  async #dropReplaced(names: readonly string[]): Promise<void> {
    const { dir, exclude } = this.#options;
    await this.#store
      .exclusively(() => dropOldStates(dir, names, exclude))
      .catch((error: unknown) => {
        // It costs space and nothing else: the next point tries again.
        this.#events.failed(normalise(error));
      });
  }

  async #confirm(signal: AbortSignal): Promise<void> {
    // Another process began a restore in place and was cut off before anything moved.
    if (await hasJournal(this.#options.dir)) {
      await this.#capture(0, signal);
      return;
    }
    if (now() - this.#confirmedMs < CONFIRM_EVERY_MS) return;
    this.#confirmedMs = now();
    const batch = this.#store.index.batch();
    this.#store.index.putConfirmedAt(batch, this.#graphId, this.#confirmedMs);
    await batch.write();
    this.#metrics.lastValid.set({ graph_id: this.#graphId }, this.#confirmedMs / 1000);
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
    const pending = await hasJournal(this.#options.dir);
    const ok = this.#failure === undefined && status.lastUsableId !== undefined && !pending;
    const body = {
      ready: ok,
      graph: this.#graphId,
      ...(pending ? { pending: 'a restore in place has not been finished' } : {}),
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
        const request = create(PruneRequestSchema, { graphId: this.#graphId, policy: defaultRetention() });
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
