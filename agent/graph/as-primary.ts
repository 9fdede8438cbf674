import { setTimeout as sleep } from 'node:timers/promises';
import { type LightkeeperError, normalise } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { isRegradeDue, REGRADE_NEVER, scheduleRegrade } from '../../core/lightrag/regrade-schedule.ts';
import { type Finding, Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, now, waited } from '../../host/clock.ts';
import { InstanceProbe } from '../instance/probe.ts';
import { hasJournal } from '../restore/journal.ts';
import { dropOldStates, oldStates } from '../restore/journal-recovery.ts';
import { resolveSnapshot, ungradedIds } from '../snapshots/resolve.ts';
import { type Captured, type SeenScan, Watcher } from '../watch/watcher.ts';
import type { Graph } from './graph.ts';
import { takeSnapshot } from './take-snapshot.ts';

/** Milliseconds between two records of an unchanged directory in the index, each of which is a write. */
const CONFIRM_EVERY_MS = 5000;

/** Milliseconds between two searches for snapshots that are not graded. */
const UNGRADED_EVERY_MS = 10 * 60 * 1000;

/** Milliseconds of patience with changes that go on, beside a usable snapshot and without one. */
const PATIENCE_MS = 4000;
const PATIENCE_UNUSABLE_MS = 2000;

/** Milliseconds after which a directory that never rests is captured as it is. */
const BUSY_SETTLE_MS = 5 * 60 * 1000;

/** Milliseconds that the last snapshot waits for the directory to rest. */
const LAST_SETTLE_MS = 5000;

/** Milliseconds that the agent waits for the last flush of an instance that may be stopping too. */
const LAST_FLUSH_MS = 7000;

/** Most milliseconds that the last snapshot waits for a response of the instance. */
const LAST_RESPONSE_MS = 1000;

/** Scans in a row that must find nothing new before a snapshot counts as the last one. */
const LAST_CALM_SCANS = 4;

/** Milliseconds between two of these scans. */
const LAST_SCAN_MS = 250;

/** Guards a graph as its primary until the signal aborts: watches, captures and confirms, then takes a last snapshot. */
export async function runAsPrimary(graph: Graph, signal: AbortSignal): Promise<void> {
  await new PrimaryRun(graph, signal).run();
}

class PrimaryRun {
  readonly #graph: Graph;
  readonly #signal: AbortSignal;
  /** Time of the last record of an unchanged directory, in milliseconds since 1970; 0 before the first. */
  #confirmedMs = 0;
  /** Whether the newest snapshot was graded and is not usable. */
  #hasUnusable = false;
  /** Whether the newest snapshot is usable. */
  #isUsable = false;
  #regrade = REGRADE_NEVER;
  /** Ids of older snapshots that are not graded, newest first. */
  #ungraded: string[] = [];
  /** Time of the monotonic clock at which they are listed again, in milliseconds. */
  #ungradedDueMs = 0;

  constructor(graph: Graph, signal: AbortSignal) {
    this.#graph = graph;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    const { common } = this.#graph;
    const signal = this.#signal;
    const watching = this.#graph.watch?.run(signal);
    const ticking = this.#captureAtIntervals();
    if (common.continuous) await this.#watcher({ settleTimeoutMs: BUSY_SETTLE_MS, signal }).run();
    else await waited(Number.POSITIVE_INFINITY, signal);
    await Promise.all([ticking, watching]);
    // The signal has aborted, and must not abort the last capture.
    await this.#takeLastSnapshot(this.#watcher({ settleTimeoutMs: LAST_SETTLE_MS }));
  }

  #watcher(capture: { settleTimeoutMs: number; signal?: AbortSignal }): Watcher {
    const { settings, taker, workspaces, events, writers } = this.#graph;
    const { dir, exclude, minIntervalMs, graphId } = settings;
    return new Watcher(
      dir,
      {
        scan: () => ({ exclude, store: taker.store.root, workspaces: workspaces(), writers }),
        minIntervalMs,
      },
      {
        capture: (seen: SeenScan) => this.#capture({ ...capture, seen }),
        confirm: (seen: SeenScan) => this.#confirm(seen),
        mayDefer: () => this.#isUsable && !isRegradeDue(this.#regrade, monotonic()),
        failed: (error: LightkeeperError) => this.#graph.fail(error),
        absent: () => this.#graph.wait(),
        warned: (finding: Finding) => events.warned(graphId, finding),
      },
      this.#signal,
    );
  }

  /** Takes a tagged snapshot at the configured interval, even if nothing has changed. */
  async #captureAtIntervals(): Promise<void> {
    const { intervalMs } = this.#graph.common;
    const signal = this.#signal;
    if (intervalMs === undefined) return;
    do {
      const tags = { schedule: 'interval' };
      await this.#capture({ settleTimeoutMs: BUSY_SETTLE_MS, signal, tags }).catch((error: unknown) => {
        if (!signal.aborted) this.#graph.fail(normalise(error));
      });
    } while (await waited(intervalMs, signal));
  }

  async #capture(options: {
    settleTimeoutMs: number;
    signal?: AbortSignal;
    tags?: Readonly<Record<string, string>>;
    seen?: SeenScan;
  }): Promise<Captured> {
    const { settings, common, taker, workspaces, watch, writers } = this.#graph;
    this.#graph.warnOfSharedDisk();
    const replaced = await oldStates(settings.dir);
    const { snapshot, scan, waitedMs } = await takeSnapshot(taker, {
      ...settings,
      reserveBytes: common.reserveBytes,
      workspaces,
      watch,
      writers,
      patienceMs: this.#hasUnusable ? PATIENCE_UNUSABLE_MS : PATIENCE_MS,
      tags: {},
      description: '',
      ...options,
    });
    this.#graph.succeed();
    this.#isUsable = snapshot.usable;
    this.#hasUnusable = !this.#isUsable && snapshot.grade !== Grade_Value.UNGRADED;
    this.#regrade = scheduleRegrade(this.#regrade, { ...snapshot, nowMs: monotonic() });
    if (this.#isUsable && replaced.length > 0) await this.#dropReplaced(replaced);
    return {
      scan,
      // Waits burden nobody.
      durationMs: snapshot.unchanged
        ? 0
        : Math.max(0, Number(snapshot.durationMs + snapshot.gradeMs) - waitedMs),
    };
  }

  /** Removes the directories that restores in place replaced. */
  // Only after a usable snapshot of what replaced them.
  async #dropReplaced(names: readonly string[]): Promise<void> {
    const { settings, taker, events } = this.#graph;
    await taker.store
      .exclusively(() => dropOldStates(settings.dir, names, settings.exclude))
      .catch((error: unknown) => {
        // It only takes space, and the next snapshot tries again.
        events.failed(settings.graphId, normalise(error));
      });
  }

  /** Records that the directory equals its newest snapshot, or captures it if it must be recovered or graded again. */
  async #confirm(seen: SeenScan): Promise<void> {
    const { settings, taker, telemetry } = this.#graph;
    // Another process may have been stopped in a restore in place before it moved anything.
    if ((await hasJournal(settings.dir)) || isRegradeDue(this.#regrade, monotonic())) {
      await this.#capture({ settleTimeoutMs: BUSY_SETTLE_MS, signal: this.#signal, seen });
      return;
    }
    if (now() - this.#confirmedMs < CONFIRM_EVERY_MS) return;
    this.#confirmedMs = now();
    const { index } = taker.store;
    const batch = index.batch();
    index.local.putConfirmedAt(batch, settings.graphId, this.#confirmedMs);
    await batch.write();
    if (this.#isUsable) telemetry.confirm(this.#confirmedMs);
    await this.#gradeOlder();
  }

  /** Grades one older snapshot that is not graded, if there is one. */
  // A directory at rest leaves time for it. One at a time, so that a change is captured soon.
  async #gradeOlder(): Promise<void> {
    const { settings, taker, events } = this.#graph;
    if (monotonic() >= this.#ungradedDueMs) {
      this.#ungradedDueMs = monotonic() + UNGRADED_EVERY_MS;
      this.#ungraded = await ungradedIds(taker.store, settings.graphId);
    }
    const id = this.#ungraded.pop();
    if (id === undefined) return;
    try {
      const snapshot = await resolveSnapshot(taker.store, id, settings.graphId);
      await taker.grader.gradeAgain(snapshot, settings.lossShare, this.#signal);
    } catch (error) {
      this.#signal.throwIfAborted();
      const { code, message, hint } = normalise(error);
      // It may have been pruned since it was listed.
      if (code !== 'NOT_FOUND') events.warned(settings.graphId, warning('not_graded', id, { message, hint }));
    }
  }

  /** Takes the last snapshot, after a possible last flush of the instance. */
  // An instance that is stopped together with the agent first stops replying and then flushes. As long as such a flush
  // may follow, the directory is scanned again.
  async #takeLastSnapshot(watcher: Watcher): Promise<void> {
    const { instance, dir } = this.#graph.settings;
    if (instance === undefined) {
      await watcher.finish();
      return;
    }
    const probe = new InstanceProbe(instance, dir);
    const untilMs = monotonic() + LAST_FLUSH_MS;
    let replied = true;
    for (let calm = 0; calm < LAST_CALM_SCANS; ) {
      calm = (await watcher.finish()) ? 0 : calm + 1;
      if (monotonic() >= untilMs) break;
      const { kind } = await probe.report({ timeoutMs: LAST_RESPONSE_MS });
      const replies = kind !== 'no-response';
      // It has just stopped replying: its flush may follow.
      if (replied && !replies) calm = 0;
      replied = replies;
      await sleep(LAST_SCAN_MS);
    }
  }
}
