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
