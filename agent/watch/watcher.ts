import { LightkeeperError, normalise } from '../../core/errors.ts';
import { type ScanStep, WatchSchedule, type WatchStep } from '../../core/watch-schedule.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic } from '../../host/clock.ts';
import { type EventSubscription, subscribeOnce } from './fs-events.ts';
import {
  type Difference,
  differences,
  firstDifference,
  type Scan,
  type ScanOptions,
  sameEntry,
  scan,
} from './scan.ts';

/** LightRAG's cache of the model's answers. */
const CACHE_FILE = /(?:^|\/)kv_store_llm_response_cache\.json$/;

/** Waits are this much shorter or longer at random, as a share. */
// Many agents on one machine should not all scan at the same instant.
const JITTER = 0.1;

/** A scan with the time of the monotonic clock at which it started, in milliseconds. */
export interface SeenScan {
  readonly scan: Scan;
  readonly startedMs: number;
  /** Time at which the first of the scans that found the directory in this state started. */
  readonly sameSinceMs: number;
}

/** Outcome of a capture. */
export interface Captured {
  /** The directory as it was captured; undefined if it was not at rest. */
  readonly scan: Scan | undefined;
  /** Milliseconds from that moment to the end of the grading; 0 if nothing had changed. */
  readonly durationMs: number;
}

/** Reactions of a watcher's owner. */
export interface WatchHandlers {
  /** Captures the directory after a scan that found it changed. */
  readonly capture: (seen: SeenScan) => Promise<Captured>;
  /** Handles a scan that found the directory as in its newest point. */
  readonly confirm: (seen: SeenScan) => Promise<void>;
  /** Reports whether a change of LightRAG's cache alone may wait. */
  readonly mayDefer: () => boolean;
  readonly failed: (error: LightkeeperError) => void;
  /** Handles a directory that does not exist yet. */
  readonly absent: () => void;
  /** Handles a finding that is no failure. */
  readonly warned: (finding: Finding) => void;
}

/** Settings of a watcher. */
export interface WatchOptions {
  /** Returns the options of the next scan. */
  readonly scan: () => ScanOptions;
  /** Milliseconds between the starts of two captures, at least. */
  readonly minIntervalMs: number;
}

/** Scans a directory repeatedly and captures it whenever it differs from the last capture. */
export class Watcher {
  readonly #dir: Uint8Array;
  readonly #options: WatchOptions;
  readonly #handlers: WatchHandlers;
  readonly #signal: AbortSignal;
  readonly #schedule: WatchSchedule;
  /** The directory as last captured; undefined if the next scan must lead to a capture. */
  #captured: Scan | undefined;
  #hasScanned = false;
  /** The last scan; undefined before the first and after a failure. */
  #last: SeenScan | undefined;
  #subscription: EventSubscription | undefined;
  /** Shortens the wait under way to end at a time of the monotonic clock. */
  #wakeAt: (atMs: number) => void = () => {};

  constructor(dir: Uint8Array, options: WatchOptions, handlers: WatchHandlers, signal: AbortSignal) {
    this.#dir = dir;
    this.#options = options;
    this.#handlers = handlers;
    this.#signal = signal;
    this.#schedule = new WatchSchedule(options.minIntervalMs);
  }

  /** Runs until the signal aborts. Never rejects because of the directory. */
  async run(): Promise<void> {
    try {
      while (!this.#signal.aborted) await this.#waitUntil(await this.#cycle());
    } finally {
      await this.#unsubscribe();
    }
  }

  /** Takes a last snapshot if the directory has changed since the last capture. Returns whether it had. */
  async finish(): Promise<boolean> {
    try {
      const startedMs = monotonic();
      const seen = this.#see(await scan(this.#dir, this.#options.scan()), startedMs);
      if (!this.#isChanged(seen.scan)) return false;
      await this.#capture(seen);
      return true;
    } catch (error) {
      if (this.#hasScanned || !isAbsence(error)) this.#handlers.failed(normalise(error));
      return false;
    }
  }

  /** Records a scan and returns it with the time since which the directory is in its state. */
  #see(seen: Scan, startedMs: number): SeenScan {
    const last = this.#last;
    const isSame =
      last !== undefined &&
      last.scan.newestNs === seen.newestNs &&
      firstDifference(last.scan, seen) === undefined;
    this.#last = { scan: seen, startedMs, sameSinceMs: isSame ? last.sameSinceMs : startedMs };
    return this.#last;
  }

  #isChanged(seen: Scan): boolean {
    return this.#captured === undefined || firstDifference(this.#captured, seen) !== undefined;
  }

  /** Reports whether a change can wait: nothing but LightRAG's cache has changed. */
  // Every query adds to it. It saves calls to the model, and nothing is lost without it.
  #isMinor(seen: Scan): boolean {
    if (this.#captured === undefined || !this.#handlers.mayDefer()) return false;
    const found = differences(this.#captured, seen);
    return found.some(isCache) && found.every((one) => isCache(one) || isTouchedFolder(one));
  }

  /** Scans the directory, performs what follows from it, and returns the time of the next scan. */
  async #cycle(): Promise<number> {
    this.#schedule.scanStarted();
    const startedMs = monotonic();
    try {
      const found = await scan(this.#dir, { ...this.#options.scan(), signal: this.#signal });
      this.#hasScanned = true;
      const seen = this.#see(found, startedMs);
      const isChanged = this.#isChanged(found);
      const isMinor = isChanged && this.#isMinor(found);
      const result = { isChanged, isMinor, tookMs: found.tookMs };
      let step = this.#schedule.scanned(result, monotonic());
      while (step.next !== 'scan') step = await this.#perform(step, seen);
      return step.atMs;
    } catch (error) {
      return this.#signal.aborted ? monotonic() : this.#fail(error);
    }
  }

  async #perform({ next }: Exclude<WatchStep, ScanStep>, seen: SeenScan): Promise<WatchStep> {
    switch (next) {
      case 'confirm':
        await this.#handlers.confirm(seen);
        return this.#schedule.confirmed(monotonic());
      case 'capture':
        return this.#schedule.captured(await this.#capture(seen), monotonic());
      case 'stop-watching':
        await this.#unsubscribe();
        return this.#schedule.watchStopped(monotonic());
      case 'begin-watching':
        return await this.#subscribe(seen.scan);
    }
  }

  /** Captures the directory and returns the duration in milliseconds. */
  async #capture(seen: SeenScan): Promise<number> {
    const { scan: captured, durationMs } = await this.#handlers.capture(seen);
    this.#captured = captured;
    return durationMs;
  }

  /** Reports a failure and returns the time of the next scan. */
  #fail(error: unknown): number {
    this.#captured = undefined;
    this.#last = undefined;
    const isAbsent = !this.#hasScanned && isAbsence(error);
    if (isAbsent) this.#handlers.absent();
    else this.#handlers.failed(normalise(error));
    return this.#schedule.failed(isAbsent ? 'absent' : 'error', monotonic()).atMs;
  }

  async #subscribe(seen: Scan): Promise<WatchStep> {
    this.#subscription = await subscribeOnce(this.#dir, {
      names: seen.entries.length,
      onEvent: () => {
        this.#subscription = undefined;
        this.#wakeAt(this.#schedule.event(monotonic()));
      },
      onGaveUp: (finding) => {
        this.#subscription = undefined;
        this.#schedule.watchGaveUp();
        this.#handlers.warned(finding);
      },
    });
    const nowMs = monotonic();
    return this.#subscription === undefined
      ? this.#schedule.watchNotBegun(nowMs)
      : this.#schedule.watchBegan(nowMs);
  }

  async #unsubscribe(): Promise<void> {
    await this.#subscription?.close();
    this.#subscription = undefined;
  }

  /** Waits until a time of the monotonic clock, give or take the jitter, an event or the signal. */
  async #waitUntil(atMs: number): Promise<void> {
    if (this.#signal.aborted) return;
    const waitMs = Math.max(0, atMs - monotonic()) * (1 - JITTER + 2 * JITTER * Math.random());
    const untilMs = monotonic() + waitMs;
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#signal.removeEventListener('abort', end);
        this.#wakeAt = () => {};
        resolve();
      };
      let timer = setTimeout(end, waitMs);
      this.#signal.addEventListener('abort', end);
      this.#wakeAt = (earlierMs) => {
        clearTimeout(timer);
        timer = setTimeout(end, Math.max(0, Math.min(untilMs, earlierMs) - monotonic()));
      };
    });
  }
}

function isCache({ before, after }: Difference): boolean {
  return [before, after].every((one) => one?.type === 'file' && CACHE_FILE.test(one.path));
}

/** Reports whether only the times of a folder differ, as after a rename in it. */
function isTouchedFolder({ before, after }: Difference): boolean {
  if (before?.type !== 'dir' || after === undefined) return false;
  return sameEntry(before, { ...after, mtimeNs: before.mtimeNs, ctimeNs: before.ctimeNs });
}

function isAbsence(error: unknown): boolean {
  return error instanceof LightkeeperError && error.code === 'NOT_FOUND';
}
