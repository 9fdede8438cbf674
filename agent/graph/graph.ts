import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { LightkeeperError, normalise } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { mayStand, STANDS_MS, UNCHANGED_MS } from '../../core/lightrag/grade.ts';
import type { BytePath } from '../../core/path.ts';
import { quietWindowMs } from '../../core/quiet.ts';
import { isUsableGrade } from '../../core/snapshot.ts';
import {
  CreateSnapshotRequestSchema,
  PruneRequestSchema,
  type PruneResult,
  type Snapshot,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import {
  CutMethod_Value,
  type Finding,
  Grade_Value,
  type GraphStats,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, now, waited } from '../../host/clock.ts';
import type { StoreService } from '../api/service.ts';
import type { AgentSettings, GraphSettings, Guarded } from '../config/settings.ts';
import { checkInstance, InstanceProbe } from '../instance/probe.ts';
import { hasJournal } from '../restore/journal.ts';
import { dropOldStates, oldStates } from '../restore/journal-recovery.ts';
import { checkDirectory } from '../watch/scan.ts';
import { Watcher } from '../watch/watcher.ts';
import { workspacesIn } from '../watch/workspaces.ts';
import type { AgentMetrics } from './metrics.ts';

/** An unchanged directory is confirmed in the index at most this often: each is a write. */
const CONFIRM_EVERY_MS = 5000;

/** In a busy stretch the directory is taken as it is after this. */
const BUSY_STRETCH_MS = 5 * 60 * 1000;

/** How long the last snapshot waits for the directory to come to rest. */
const LAST_SETTLE_MS = 5000;

/** How long the agent waits for the last flush of an instance that may be stopping too. */
const LAST_FLUSH_MS = 7000;

/**
 * A point that may be a moment between two files of a flush is looked at again, if nothing has changed: soon, when it has
 * been there for a minute, and when its errors may stand.
 */
const LOOK_AGAIN_MS = 5000;
const STANDS_SLACK_MS = 500;

/** Looks that must find nothing new before the point is taken for the last one, and the time between them. */
const LAST_CALM_LOOKS = 4;
const LAST_LOOK_MS = 250;

/** What is told of the graphs that an agent guards. */
export interface GuardEvents {
  readonly snapshot: (snapshot: Snapshot) => void;
  readonly pruned: (graphId: string, result: PruneResult) => void;
  readonly failed: (graphId: string, error: LightkeeperError) => void;
  /** The directory is not there yet: it is waited for. */
  readonly waiting: (graphId: string) => void;
  readonly warned: (graphId: string, finding: Finding) => void;
}

/** Refuses what can never be guarded, before anything is made. A directory that is not there yet may come. */
export async function checkStart({ dir, instance }: GraphSettings, store: string): Promise<void> {
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

/** One graph that is guarded: its directory is watched, captured, confirmed, and its points are thinned. */
export class Guard {
  readonly settings: GraphSettings;
  readonly #service: StoreService;
  readonly #metrics: AgentMetrics;
  readonly #events: GuardEvents;
  readonly #agent: Pick<AgentSettings, 'reserveBytes' | 'continuous' | 'intervalMs'>;
  /** Told of workspaces below the directory, whenever it is looked at. */
  readonly #onWorkspaces: (workspaces: readonly BytePath[]) => void;
  #confirmedMs = 0;
  /** What was told last. The first look is told of even if it finds nothing new: the directory is protected then. */
  #toldId = '';
  #toldGrade = Grade_Value.UNGRADED;
  #failure: LightkeeperError | undefined;
  /** The newest point is. */
  #usable = false;
  /** The newest point, how often it was looked at, and when it is next, on the monotonic clock. */
  #openId = '';
  #looks = 0;
  #lookAgainMs = Number.POSITIVE_INFINITY;
  #waiting = false;
  #standing: Finding | undefined;

  constructor(
    settings: GraphSettings,
    parts: {
      service: StoreService;
      metrics: AgentMetrics;
      events: GuardEvents;
      settings: Pick<AgentSettings, 'reserveBytes' | 'continuous' | 'intervalMs'>;
      onWorkspaces: (workspaces: readonly BytePath[]) => void;
    },
  ) {
    this.settings = settings;
    this.#service = parts.service;
    this.#metrics = parts.metrics;
    this.#events = parts.events;
    this.#agent = parts.settings;
    this.#onWorkspaces = parts.onWorkspaces;
  }

  /** As the calls of the store see it. */
  get guarded(): Guarded {
    const { graphId, dir, exclude, instance, hooks, lossShare } = this.settings;
    return {
      graphId,
      dir: Buffer.from(dir).toString(),
      exclude,
      instance,
      hooks,
      lossShare,
      leaveOut: () => this.#findWorkspaces(),
      findings: this.#standing === undefined ? [] : [this.#standing],
    };
  }

  /** Guards the directory until the signal, then takes a last snapshot. */
  async run(signal: AbortSignal): Promise<void> {
    const { dir, exclude, minIntervalMs, graphId } = this.settings;
    const handlers = {
      capture: () => this.#capture(BUSY_STRETCH_MS, signal),
      confirm: () => this.#confirm(signal),
      failed: (error: LightkeeperError) => this.#fail(error),
      absent: () => this.#absent(),
      warned: (finding: Finding) => this.#events.warned(graphId, finding),
    };
    const watching = {
      scan: () => ({ exclude, store: this.#service.store.root, leaveOut: this.#findWorkspaces() }),
      minIntervalMs,
    };
    const ticking = this.#captureByTheClock(signal);
    if (this.#agent.continuous) await new Watcher(dir, watching, handlers, signal).run();
    else await waited(Number.POSITIVE_INFINITY, signal);
    await ticking;
    const last = { ...handlers, capture: () => this.#capture(LAST_SETTLE_MS) };
    await this.#lastPoint(new Watcher(dir, watching, last, signal));
  }

  /** Takes a tagged point every so often, if that is asked for, whether or not something has changed. */
  async #captureByTheClock(signal: AbortSignal): Promise<void> {
    const { intervalMs } = this.#agent;
    if (intervalMs === undefined) return;
    do {
      await this.#capture(BUSY_STRETCH_MS, signal, { schedule: 'interval' }).catch((error: unknown) => {
        if (!signal.aborted) this.#fail(normalise(error));
      });
    } while (await waited(intervalMs, signal));
  }

  /** They may come and go while the agent runs. */
  #findWorkspaces(): ReadonlySet<BytePath> {
    const found = this.settings.split ? workspacesIn(this.settings.dir) : [];
    this.#onWorkspaces(found);
    return new Set(found);
  }

  async #capture(
    settleTimeoutMs: number,
    signal?: AbortSignal,
    tags: Record<string, string> = {},
  ): Promise<{ settled: boolean; durationMs: number }> {
    const { dir, graphId, quietMs, exclude } = this.settings;
    const { reserveBytes } = this.#agent;
    if (this.#standing === undefined) {
      this.#standing = sameDevice(dir, this.#service.store.root);
      if (this.#standing !== undefined) this.#events.warned(graphId, this.#standing);
    }
    const request = create(CreateSnapshotRequestSchema, {
      dir,
      graphId,
      settleTimeoutMs,
      quietMs,
      exclude: [...exclude],
      tags,
      ...(reserveBytes === undefined ? {} : { diskReserveBytes: reserveBytes }),
    });
    const replaced = await oldStates(dir);
    const snapshot = await this.#service.snapshot(request, () => {}, signal);
    this.#failure = undefined;
    this.#waiting = false;
    const settled = snapshot.cutMethod !== CutMethod_Value.TORN;
    this.#usable = isUsableGrade(snapshot.grade);
    this.#lookAgain(snapshot);
    if (this.#usable && replaced.length > 0) await this.#dropReplaced(replaced);
    const gradeMs = snapshot.unchanged ? 0 : snapshot.gradeMs;
    return { settled, durationMs: snapshot.unchanged ? 0 : snapshot.durationMs + gradeMs };
  }

  /** Plans when the newest point is looked at again, if what is wrong with it may be right, or stand, later. */
  #lookAgain({ snapshotId, findings, grade }: Snapshot): void {
    if (snapshotId !== this.#openId) this.#looks = 0;
    this.#openId = snapshotId;
    const open = findings.filter((finding) => mayStand(finding) && finding.standing?.stands === false);
    const ages = open.map(({ standing }) => Number(standing?.ageMs ?? 0n));
    const leftMs = Math.max(LOOK_AGAIN_MS, STANDS_MS - Math.max(0, ...ages) + STANDS_SLACK_MS);
    const waitMs = [LOOK_AGAIN_MS, UNCHANGED_MS][this.#looks] ?? leftMs;
    this.#looks += 1;
    // One that could not be looked into is to be.
    const isUngraded = grade === Grade_Value.UNGRADED;
    const isDue = open.length > 0 || isUngraded;
    const nextMs = isUngraded ? Math.min(waitMs, UNCHANGED_MS) : waitMs;
    this.#lookAgainMs = isDue ? monotonic() + nextMs : Number.POSITIVE_INFINITY;
  }

  /** What a restore in place has replaced is kept until there is a usable point of what came instead. */
  async #dropReplaced(names: readonly string[]): Promise<void> {
    const { dir, exclude, graphId } = this.settings;
    await this.#service.store
      .exclusively(() => dropOldStates(dir, names, exclude))
      .catch((error: unknown) => {
        // It costs space and nothing else: the next point tries again.
        this.#events.failed(graphId, normalise(error));
      });
  }

  async #confirm(signal: AbortSignal): Promise<void> {
    // Another process began a restore in place and was cut off before anything moved.
    if (await hasJournal(this.settings.dir)) {
      await this.#capture(BUSY_STRETCH_MS, signal);
      return;
    }
    if (monotonic() >= this.#lookAgainMs) {
      await this.#capture(BUSY_STRETCH_MS, signal);
      return;
    }
    if (now() - this.#confirmedMs < CONFIRM_EVERY_MS) return;
    this.#confirmedMs = now();
    const { graphId } = this.settings;
    const { index } = this.#service.store;
    const batch = index.batch();
    index.putConfirmedAt(batch, graphId, this.#confirmedMs);
    await batch.write();
    if (this.#usable) this.#metrics.lastValid.set({ graph_id: graphId }, this.#confirmedMs / 1000);
  }

  /**
   * Takes the last point. An instance that is stopped together with the agent stops answering first and flushes
   * then: as long as there may be such a flush, the directory is looked at again.
   */
  async #lastPoint(watcher: Watcher): Promise<void> {
    const { instance } = this.settings;
    if (instance === undefined) {
      await watcher.finish();
      return;
    }
    const probe = new InstanceProbe(instance);
    const untilMs = monotonic() + LAST_FLUSH_MS;
    let answers = true;
    for (let calm = 0; calm < LAST_CALM_LOOKS; ) {
      calm = (await watcher.finish()) ? 0 : calm + 1;
      if (monotonic() >= untilMs) break;
      const answered = (await probe.describe()) !== undefined;
      // It has gone just now, or does not think of stopping: its flush is still to come, or none will.
      if (answers && !answered) calm = 0;
      answers = answered;
      await sleep(LAST_LOOK_MS);
    }
  }

  #absent(): void {
    if (!this.#waiting) this.#events.waiting(this.settings.graphId);
    this.#waiting = true;
  }

  #fail(error: LightkeeperError): void {
    this.#failure = error;
    const { graphId } = this.settings;
    this.#metrics.errors.inc({ graph_id: graphId, reason: error.code.toLowerCase() });
    this.#events.failed(graphId, error);
  }

  /** Takes note of a snapshot of this graph, whoever asked for it. */
  measure(snapshot: Snapshot, retries: number): void {
    const graph_id = snapshot.graphId;
    if (retries > 0) this.#metrics.tornRetries.inc({ graph_id }, retries);
    if (isUsableGrade(snapshot.grade) && snapshot.confirmedAt !== undefined) {
      this.#metrics.lastValid.set({ graph_id }, timestampMs(snapshot.confirmedAt) / 1000);
    }
    this.#metrics.role.set({ graph_id }, 2);
    this.#metrics.epoch.set({ graph_id }, Number(snapshot.position?.epoch ?? 1n));
    const regraded = snapshot.snapshotId === this.#toldId && snapshot.grade !== this.#toldGrade;
    if (snapshot.unchanged && this.#toldId !== '' && !regraded) return;
    this.#toldId = snapshot.snapshotId;
    this.#toldGrade = snapshot.grade;
    this.#events.snapshot(snapshot);
    if (snapshot.stats !== undefined) this.#countGraph(graph_id, snapshot.stats);
    if (snapshot.unchanged) return;
    this.#metrics.snapshots.inc({ graph_id, grade: Grade_Value[snapshot.grade] });
    this.#metrics.sizeBytes.set({ graph_id }, Number(snapshot.rawBytes));
    this.#metrics.storedBytes.set({ graph_id }, Number(snapshot.storedBytes));
    this.#metrics.duration.observe({ graph_id }, snapshot.durationMs / 1000);
  }

  #countGraph(graph_id: string, { documents, entities, relations, vectors }: GraphStats): void {
    this.#metrics.documents.set({ graph_id }, Number(documents));
    this.#metrics.entities.set({ graph_id }, Number(entities));
    this.#metrics.relations.set({ graph_id }, Number(relations));
    this.#metrics.vectors.set({ graph_id }, Number(vectors));
  }

  /** Whether there is a usable point and nothing has failed since. */
  async readiness(): Promise<{ ok: boolean; body: Record<string, unknown> }> {
    const { graphId, dir, quietMs } = this.settings;
    const status = await this.#service.graphStatus(graphId, Buffer.from(dir).toString());
    const pending = await hasJournal(dir);
    const ok = this.#failure === undefined && status.lastUsableId !== undefined && !pending;
    const body = {
      graph: graphId,
      ready: ok,
      quietMs: quietWindowMs(quietMs, await this.#service.store.index.quietRecord(graphId)),
      ...(pending ? { pending: 'a restore in place has not been finished' } : {}),
      lastUsableId: status.lastUsableId ?? null,
      rpoMs: status.rpoMs === undefined ? null : Number(status.rpoMs),
      ...(this.#waiting ? { waiting: true } : {}),
      ...(this.#failure === undefined
        ? {}
        : { error: { message: this.#failure.message, hint: this.#failure.hint } }),
    };
    return { ok, body };
  }

  /** Applies the retention of this graph, if there is anything to remove. */
  async prune(): Promise<void> {
    const { graphId, retention } = this.settings;
    if (!(await this.#service.keeping.wouldPrune(graphId, retention))) return;
    const request = create(PruneRequestSchema, { graphId, policy: retention });
    const result = await this.#service.keeping.prune(request, () => {});
    if (result.remove.length > 0) this.#events.pruned(graphId, result);
  }
}
