/** Bounds of the waits between attempts, in milliseconds. */
export interface Backoff {
  /** Longest first wait. */
  readonly firstMs: number;
  /** Longest wait of any attempt. */
  readonly longestMs: number;
}

/**
 * Returns a wait in milliseconds before attempt `attempt`, counted from 1: "full jitter", a random share of a bound
 * that doubles with each attempt. `random` is in [0, 1).
 */
// Many followers of one source that comes back must not dial it at once.
// Source: M. Brooker, "Exponential Backoff And Jitter", 2015.
export function fullJitterMs(attempt: number, { firstMs, longestMs }: Backoff, random: number): number {
  const bound = Math.min(longestMs, firstMs * 2 ** Math.min(attempt - 1, 30));
  return Math.round(bound * random);
}
