import { setTimeout as sleep } from 'node:timers/promises';
import { monotonic, now } from '../../host/clock.ts';
import { flushEndsMs } from '../watch/flush.ts';
import { firstDifference, type Scan } from '../watch/scan.ts';
import type { SeenScan } from '../watch/watcher.ts';

/** Least milliseconds between two scans while waiting. */
const SCAN_INTERVAL_MIN_MS = 5;

/** A scan, and whether the directory was at rest. */
export interface Settled {
  readonly scan: Scan;
  readonly quiet: boolean;
}

/**
 * Waits until nothing has changed for the quiet window and no temporary file means that a flush is under way.
 *
 * A directory whose newest change is older than the window is quiet at once. Change times in the future, written
 * before the clock was set back, are ignored; then only changes between scans count.
 */
export async function waitUntilQuiet(
  options: { quietMs: number; settleTimeoutMs: number; seen?: SeenScan; signal?: AbortSignal },
  scanNow: () => Promise<Scan>,
): Promise<Settled> {
  const { quietMs, settleTimeoutMs, seen, signal } = options;
  const startedMs = monotonic();
  let scannedMs = seen?.startedMs ?? monotonic();
  let scan = seen?.scan ?? (await scanNow());
  let sameSinceMs = scannedMs;
  let before: Scan | undefined;
  for (;;) {
    const ageMs = now() - Number(scan.newestNs / 1_000_000n);
    const flushMs = quietMs === 0 ? 0 : flushEndsMs(scan, before);
    const still = quietMs === 0 || ageMs >= quietMs || scannedMs - sameSinceMs >= quietMs;
    if (still && flushMs <= 0) return { scan, quiet: true };
    const leftMs = startedMs + settleTimeoutMs - monotonic();
    if (leftMs <= 0) return { scan, quiet: false };
    // A temporary file may be renamed at any time, so while there is one the whole window is waited for.
    const waitMs = ageMs >= 0 && flushMs <= 0 ? quietMs - ageMs : quietMs;
    const napMs = Math.min(leftMs, Math.max(SCAN_INTERVAL_MIN_MS, Math.min(waitMs + 1, quietMs)));
    await sleep(napMs, undefined, signal === undefined ? {} : { signal });
    scannedMs = monotonic();
    const next = await scanNow();
    if (firstDifference(scan, next) !== undefined || next.newestNs !== scan.newestNs) sameSinceMs = scannedMs;
    before = scan;
    scan = next;
  }
}
