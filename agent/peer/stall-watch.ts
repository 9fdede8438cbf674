import { LightkeeperError } from '../../core/errors.ts';
import { monotonic } from '../../host/clock.ts';

/** When a source counts as stalled. */
export interface StallLimits {
  /** Milliseconds until it must have said Welcome. */
  readonly welcomeMs: number;
  /** Milliseconds of waiting for it in which `progressBytes` must arrive. */
  readonly stallMs: number;
  readonly progressBytes: number;
}

/** The limits of followers. */
export const STALL_LIMITS: StallLimits = { welcomeMs: 20_000, stallMs: 30_000, progressBytes: 64 << 10 };

/** Ticks in `stallMs`. */
const TICKS = 20;

/** What a watch needs of the stream. */
export interface WatchedStream {
  readonly isWelcome: () => boolean;
  /** Whether the follower waits for the source, and not for itself. */
  readonly isWaiting: () => boolean;
  readonly onStall: (error: LightkeeperError) => void;
}

/** Watches the progress of a stream. Only time in which the follower waits for its source counts. */
// A connection whose other end replies to pings can still be one on which nothing comes.
export class StallWatch {
  readonly #limits: StallLimits;
  readonly #stream: WatchedStream;
  readonly #timer: NodeJS.Timeout;
  readonly #beganMs = monotonic();
  #tickMs = this.#beganMs;
  #waitedMs = 0;
  #bytes = 0;

  constructor(limits: StallLimits, stream: WatchedStream) {
    this.#limits = limits;
    this.#stream = stream;
    this.#timer = setInterval(() => this.#tick(), limits.stallMs / TICKS).unref();
  }

  /** Records bytes that bring the follower forward. */
  progress(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes >= this.#limits.progressBytes) this.restart();
  }

  /** Begins to count anew: something was completed, however small. */
  restart(): void {
    this.#waitedMs = 0;
    this.#bytes = 0;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    const { welcomeMs, stallMs, progressBytes } = this.#limits;
    const nowMs = monotonic();
    // A process that was suspended has not waited.
    const sinceMs = Math.min(nowMs - this.#tickMs, (2 * stallMs) / TICKS);
    this.#tickMs = nowMs;
    if (!this.#stream.isWelcome()) {
      if (nowMs - this.#beganMs >= welcomeMs) this.#stall(`it has not said Welcome within ${welcomeMs} ms`);
      return;
    }
    if (!this.#stream.isWaiting()) return;
    this.#waitedMs += sinceMs;
    if (this.#waitedMs >= stallMs)
      this.#stall(`it has sent fewer than ${progressBytes} useful bytes within ${stallMs} ms`);
  }

  #stall(state: string): void {
    this.stop();
    this.#stream.onStall(
      new LightkeeperError('DEADLINE', `Cannot go on following: the source stalls: ${state}`, {
        hint: 'check the network and the load of the source; the follower dials again by itself',
      }),
    );
  }
}
