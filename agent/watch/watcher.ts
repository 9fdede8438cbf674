import { LightkeeperError, normalise } from '../../core/errors.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic } from '../../host/clock.ts';
import { type Nudge, watchOnce } from './fs-events.ts';
import { firstDifference, type Scan, type ScanOptions, scan } from './scan.ts';

/** Between two looks while something changes. */
const LOOK_BUSY_MS = 500;
/** Between two looks while nothing changes, without events to shorten it. */
const LOOK_IDLE_MS = 1000;
/** The same with events. */
const LOOK_WATCHED_MS = 5000;
/** Between two looks, however many events come. */
const LOOK_NUDGED_MS = 50;
/** After events that told of nothing the next is not waited for at once, but after a while, at most this. */
const VAIN_WAIT_MAX_MS = 60_000;
/** A look may take this share of the time between two of them. */
const LOOK_SHARE = 20;
/** Captures start five times as far apart as the last one took, at least. */
const CAPTURE_SHARE = 5;
/** After a failure the next attempt waits, longer each time up to this. */
const FAILURE_WAIT_MAX_MS = 60_000;

/** What a watcher does with what it sees. */
export interface WatchHandlers {
  /** Takes a snapshot; answers whether the directory was at rest, and how long it took from then on. */
  readonly capture: () => Promise<{ settled: boolean; durationMs: number }>;
  /** The directory is still as its newest point has it. */
  readonly confirm: () => Promise<void>;
  readonly failed: (error: LightkeeperError) => void;
  /** The directory is not there yet. */
  readonly absent: () => void;
  /** Something that is no failure, and that people should know. */
  readonly warned: (finding: Finding) => void;
}

/** What a watcher is told. */
export interface WatchOptions {
  /** Asked before each look. */
  readonly scan: () => ScanOptions;
  /** Captures start this far apart, at least. */
  readonly minIntervalMs: number;
}

/**
 * Looks at a directory again and again, and has a snapshot taken whenever it is not as it was at the last one.
 * Stat scans are the truth; events only make the next look come sooner.
 */
export class Watcher {
  readonly #dir: Uint8Array;
  readonly #options: WatchOptions;
  readonly #handlers: WatchHandlers;
  readonly #signal: AbortSignal;
  #captured: Scan | undefined;
  #failures = 0;
  #seen = false;
  #watch: Nudge | undefined;
  #watchable = true;
  /** Events since the last change that told of nothing. */
  #vain = 0;
  #nudged = false;
  #wake: () => void = () => {};
  /** On the monotonic clock, like the next. */
  #nextCaptureMs = 0;
  #nextLookMs = 0;
  #nextWatchMs = 0;

  constructor(dir: Uint8Array, options: WatchOptions, handlers: WatchHandlers, signal: AbortSignal) {
    this.#dir = dir;
    this.#options = options;
    this.#handlers = handlers;
    this.#signal = signal;
  }

  /** Runs until the signal; never rejects for what happens to the directory. */
  async run(): Promise<void> {
    try {
      while (!this.#signal.aborted) {
        this.#nudged = false;
        const waitMs = await this.#look();
        // Many agents on one machine should not all look at the same instant.
        await this.#rest(waitMs * (0.9 + 0.2 * Math.random()));
      }
    } finally {
      await this.#unwatch();
    }
  }

  /** A last look: takes a snapshot if the directory has changed since the last one; answers whether it had. */
  async finish(): Promise<boolean> {
    try {
      const seen = await scan(this.#dir, this.#options.scan());
      if (this.#unchanged(seen)) return false;
      const { settled } = await this.#handlers.capture();
      this.#captured = settled ? seen : undefined;
      return true;
    } catch (error) {
      if (this.#seen || !isAbsence(error)) this.#handlers.failed(normalise(error));
      return false;
    }
  }

  #unchanged(seen: Scan): boolean {
    return this.#captured !== undefined && firstDifference(this.#captured, seen) === undefined;
  }

  /** Waits; not to the end if an event says that something may have changed. */
  async #rest(ms: number): Promise<void> {
    if (this.#signal.aborted) return;
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#signal.removeEventListener('abort', end);
        this.#wake = () => {};
        resolve();
      };
      let timer = setTimeout(end, this.#nudged ? Math.min(ms, this.#leftMs()) : ms);
      this.#signal.addEventListener('abort', end);
      this.#wake = () => {
        clearTimeout(timer);
        timer = setTimeout(end, Math.min(ms, this.#leftMs()));
      };
    });
  }

  /** Until a look could lead to a capture. */
  #leftMs(): number {
    return Math.max(0, Math.max(this.#nextCaptureMs, this.#nextLookMs) - monotonic());
  }

  #nudge(): void {
    this.#watch = undefined;
    // A name that is left out may change all the time: then looking without events is cheaper.
    this.#nextWatchMs = monotonic() + Math.min(VAIN_WAIT_MAX_MS, LOOK_IDLE_MS * this.#vain++);
    this.#nudged = true;
    this.#wake();
  }

  /** Answers how long to wait until the next look. */
  async #look(): Promise<number> {
    try {
      const seen = await scan(this.#dir, { ...this.#options.scan(), signal: this.#signal });
      this.#seen = true;
      this.#nextLookMs = monotonic() + Math.max(LOOK_NUDGED_MS, LOOK_SHARE * seen.tookMs);
      if (this.#unchanged(seen)) {
        await this.#handlers.confirm();
        if (this.#watchable && this.#watch === undefined && monotonic() >= this.#nextWatchMs) {
          await this.#begin(seen);
          // Something may have changed before the watch began.
          if (this.#watch !== undefined) return this.#leftMs();
        }
        const idleMs = this.#watch === undefined ? LOOK_IDLE_MS : LOOK_WATCHED_MS;
        return Math.max(idleMs, LOOK_SHARE * seen.tookMs);
      }
      await this.#unwatch();
      this.#vain = 0;
      const leftMs = this.#nextCaptureMs - monotonic();
      if (leftMs > 0) return leftMs;
      const { settled, durationMs } = await this.#handlers.capture();
      // Taken after `seen`, perhaps of something newer: then the next look finds a difference, and the capture none.
      this.#captured = settled ? seen : undefined;
      this.#failures = 0;
      const spacingMs = Math.max(this.#options.minIntervalMs, CAPTURE_SHARE * durationMs);
      this.#nextCaptureMs = monotonic() - durationMs + spacingMs;
      return Math.max(LOOK_BUSY_MS, LOOK_SHARE * seen.tookMs);
    } catch (error) {
      if (this.#signal.aborted) return 0;
      return this.#failed(error);
    }
  }

  #failed(error: unknown): number {
    this.#captured = undefined;
    if (!this.#seen && isAbsence(error)) {
      this.#handlers.absent();
      return LOOK_IDLE_MS;
    }
    this.#handlers.failed(normalise(error));
    this.#failures += 1;
    return Math.min(FAILURE_WAIT_MAX_MS, LOOK_IDLE_MS * 2 ** Math.min(this.#failures, 10));
  }

  /** Begins to watch for the next event. */
  async #begin(seen: Scan): Promise<void> {
    this.#watch = await watchOnce(this.#dir, {
      names: seen.entries.length,
      nudge: () => this.#nudge(),
      gaveUp: (finding) => {
        this.#watch = undefined;
        this.#watchable = false;
        this.#handlers.warned(finding);
      },
    });
  }

  /** It may be of a directory that is not there any more, and is not needed while there is something to do. */
  async #unwatch(): Promise<void> {
    await this.#watch?.close();
    this.#watch = undefined;
  }
}

function isAbsence(error: unknown): boolean {
  return error instanceof LightkeeperError && error.code === 'NOT_FOUND';
}
