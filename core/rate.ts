/** A token bucket: it grants bytes at a rate, and lets at most one second's worth pass at once. */
export class TokenBucket {
  readonly #bytesPerSecond: number;
  #tokens: number;
  #atMs: number;

  /** `nowMs` is the time of a monotonic clock. */
  constructor(bytesPerSecond: number, nowMs: number) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#tokens = bytesPerSecond;
    this.#atMs = nowMs;
  }

  /** Takes `bytes` and returns for how many milliseconds the caller must wait before it sends them. */
  // A message larger than the bucket is sent at once and paid for by the waits after it.
  take(bytes: number, nowMs: number): number {
    const elapsedMs = Math.max(0, nowMs - this.#atMs);
    this.#atMs = nowMs;
    this.#tokens = Math.min(this.#bytesPerSecond, this.#tokens + (elapsedMs * this.#bytesPerSecond) / 1000);
    const waitMs = this.#tokens >= 0 ? 0 : (-this.#tokens * 1000) / this.#bytesPerSecond;
    this.#tokens -= bytes;
    return waitMs;
  }
}

/** Time over which a rate is averaged, in milliseconds. */
const METER_WINDOW_MS = 5000;

/** Measures the bytes per second of the last seconds. Times are those of a monotonic clock. */
export class RateMeter {
  readonly #parts: { readonly atMs: number; readonly bytes: number }[] = [];

  /** Counts bytes that passed now. */
  add(bytes: number, nowMs: number): void {
    this.#parts.push({ atMs: nowMs, bytes });
    this.#dropOld(nowMs);
  }

  /** Returns the bytes per second. */
  bytesPerSecond(nowMs: number): number {
    this.#dropOld(nowMs);
    return (this.#parts.reduce((sum, { bytes }) => sum + bytes, 0) * 1000) / METER_WINDOW_MS;
  }

  #dropOld(nowMs: number): void {
    while (this.#parts[0] !== undefined && this.#parts[0].atMs < nowMs - METER_WINDOW_MS) this.#parts.shift();
  }
}
