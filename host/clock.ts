/** Milliseconds since 1970 by the wall clock: for people and retention, never to decide what is correct. */
export function now(): number {
  return Date.now();
}

/** Milliseconds of a clock that never goes back. */
export function monotonic(): number {
  return performance.now();
}
