import { setTimeout as sleep } from 'node:timers/promises';

// The wall clock may jump: it serves people and retention, and decides nothing about correctness.
/** Returns the wall clock, in milliseconds since 1970. */
export function now(): number {
  return Date.now();
}

/** Returns a clock that never goes back, in milliseconds. */
export function monotonic(): number {
  return performance.now();
}

/** Longest wait of a timer, in milliseconds. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Waits `ms` milliseconds, which may be infinite. Returns false if the signal aborts first. */
export async function waited(ms: number, signal: AbortSignal): Promise<boolean> {
  const endMs = monotonic() + ms;
  for (let leftMs = ms; leftMs > 0 && !signal.aborted; leftMs = endMs - monotonic())
    await sleep(Math.min(leftMs, TIMER_MS_MAX), undefined, { signal }).catch(() => {});
  return !signal.aborted;
}
