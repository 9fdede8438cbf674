import { setTimeout as sleep } from 'node:timers/promises';

/** Milliseconds since 1970 by the wall clock: for people and retention, never to decide what is correct. */
export function now(): number {
  return Date.now();
}

/** Milliseconds of a clock that never goes back. */
export function monotonic(): number {
  return performance.now();
}

/** Timers take no more. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Waits some milliseconds, of which there may be endlessly many; false if the signal came first. */
export async function waited(ms: number, signal: AbortSignal): Promise<boolean> {
  const endMs = monotonic() + ms;
  for (let leftMs = ms; leftMs > 0 && !signal.aborted; leftMs = endMs - monotonic())
    await sleep(Math.min(leftMs, TIMER_MS_MAX), undefined, { signal }).catch(() => {});
  return !signal.aborted;
}
