import { setTimeout as sleep } from 'node:timers/promises';
import { type LightkeeperError, normalise } from '../core/errors.ts';
import { monotonic } from '../host/clock.ts';
import { firstDifference, type Scan, type ScanOptions, scan } from './scan.ts';

/** Between two looks while nothing changes. */
const LOOK_EVERY_MS = 1000;
/** A look may take this share of the time between two of them. */
const LOOK_SHARE = 20;
/** Captures start at least this far apart, and five times as far as the last one took. */
const CAPTURE_EVERY_MS = 1000;
const CAPTURE_SHARE = 5;
/** After a failure the next attempt waits, longer each time up to this. */
const FAILURE_WAIT_MAX_MS = 60_000;

/** What a watcher does with what it sees. */
export interface WatchHandlers {
  /** Takes a snapshot; answers whether it is usable. */
  readonly capture: () => Promise<boolean>;
  /** The directory is still as its newest usable point has it. */
  readonly confirm: () => Promise<void>;
  readonly failed: (error: LightkeeperError) => void;
}

/**
 * Looks at a directory again and again, and has a snapshot taken whenever it is not as it was at the last one.
 * Stat scans are the truth; nothing depends on events.
 */
export class Watcher {
  readonly #dir: Uint8Array;
  readonly #options: ScanOptions;
  readonly #handlers: WatchHandlers;
  readonly #signal: AbortSignal;
  #captured: Scan | undefined;
  #failures = 0;

  constructor(dir: Uint8Array, options: ScanOptions, handlers: WatchHandlers, signal: AbortSignal) {
    this.#dir = dir;
    this.#options = options;
    this.#handlers = handlers;
    this.#signal = signal;
  }

  /** Runs until the signal; never rejects for what happens to the directory. */
  async run(): Promise<void> {
    while (!this.#signal.aborted) {
      const waitMs = await this.#look();
      // Many agents on one machine should not all look at the same instant.
      const jitter = 0.9 + 0.2 * Math.random();
      await sleep(waitMs * jitter, undefined, { signal: this.#signal }).catch(() => {});
    }
  }

  /** A last look: takes a snapshot if the directory has changed since the last one. */
  async finish(): Promise<void> {
    try {
      const seen = await scan(this.#dir, this.#options);
      if (this.#unchanged(seen)) return;
      await this.#handlers.capture();
    } catch (error) {
      this.#handlers.failed(normalise(error));
    }
  }

  #unchanged(seen: Scan): boolean {
    return this.#captured !== undefined && firstDifference(this.#captured, seen) === undefined;
  }

  /** Answers how long to wait until the next look. */
  async #look(): Promise<number> {
    const beganMs = monotonic();
    try {
      const seen = await scan(this.#dir, { ...this.#options, signal: this.#signal });
      if (this.#unchanged(seen)) {
        await this.#handlers.confirm();
        return Math.max(LOOK_EVERY_MS, LOOK_SHARE * seen.tookMs);
      }
      const usable = await this.#handlers.capture();
      // Taken after `seen`, perhaps of something newer: then the next look finds a difference, and the capture none.
      this.#captured = usable ? seen : undefined;
      this.#failures = 0;
      return Math.max(CAPTURE_EVERY_MS, CAPTURE_SHARE * (monotonic() - beganMs), LOOK_SHARE * seen.tookMs);
    } catch (error) {
      if (this.#signal.aborted) return 0;
      this.#handlers.failed(normalise(error));
      this.#captured = undefined;
      this.#failures += 1;
      return Math.min(FAILURE_WAIT_MAX_MS, LOOK_EVERY_MS * 2 ** Math.min(this.#failures, 10));
    }
  }
}
