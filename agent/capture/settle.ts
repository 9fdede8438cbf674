import { setTimeout as sleep } from 'node:timers/promises';
import { isGraphFile } from '../../core/lightrag/check.ts';
import { areVectorsPending, demandedRestMs } from '../../core/rest-demand.ts';
import { monotonic, now } from '../../host/clock.ts';
import { flushFiles } from '../watch/flush.ts';
import { FLUSH_AGE_MAX_MS } from '../watch/names.ts';
import { firstDifference, type Scan } from '../watch/scan.ts';
import type { SeenScan } from '../watch/watcher.ts';

/** Least milliseconds between two scans while waiting. */
const SCAN_INTERVAL_MIN_MS = 5;
/** Most milliseconds between two scans while waiting, unless a scan takes long. */
const SCAN_INTERVAL_MAX_MS = 300;
/** Scans start this many times the last scan's duration apart, at least. */
const SCAN_SPACING_FACTOR = 20;
/** Least patience with a directory that no checks look into, in milliseconds. */
// Nothing but the wait tells that its snapshot mixes two states.
const UNCHECKED_PATIENCE_MS = 10_000;

/** A scan, and whether the directory was at rest. */
export interface Settled {
  readonly scan: Scan;
  /** Whether the directory was still for as long as the wait demanded in the end. */
  readonly quiet: boolean;
  /** Whether that was less than the quiet window, or within a flush. */
  readonly isEarly: boolean;
}

/** Settings of a wait for rest. */
export interface SettleOptions {
  /** Shortest quiet window in milliseconds; 0 for no wait. */
  readonly quietMs: number;
  /** Quiet window in milliseconds, with what was learned. */
  readonly windowMs: number;
  /** Milliseconds after which the wait demands less. */
  readonly patienceMs: number;
  /** Milliseconds after which the wait ends. */
  readonly settleTimeoutMs: number;
  /** Time of the monotonic clock at which the patience began, in milliseconds. */
  readonly beganMs: number;
  /** Whether the instance has reported that it is idle. */
  readonly isIdle: boolean;
  readonly seen?: SeenScan | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Waits until nothing has changed for the quiet window and no file means that a flush is under way.
 *
 * A directory whose newest change is older than the window is quiet at once. Change times in the future, written
 * before the clock was set back, are ignored; then only changes between scans count. While changes go on, the wait
 * demands less and less.
 */
export async function waitUntilQuiet(options: SettleOptions, scanNow: () => Promise<Scan>): Promise<Settled> {
  const { quietMs, windowMs, settleTimeoutMs, seen, signal } = options;
  const startedMs = monotonic();
  let scannedMs = seen?.startedMs ?? monotonic();
  let scan = seen?.scan ?? (await scanNow());
  let sameSinceMs = scannedMs;
  let before: Scan | undefined;
  let bestGapMs = 0;
  for (;;) {
    const ageMs = now() - Number(scan.newestNs / 1_000_000n);
    const restedMs = Math.max(ageMs, scannedMs - sameSinceMs);
    const isFlushing = showsFlush(scan, { before, isIdle: options.isIdle });
    const demandedMs = demandOf(options, { bestGapMs, isFlushing, scan });
    if (restedMs >= demandedMs) return { scan, quiet: true, isEarly: isFlushing || restedMs < windowMs };
    const leftMs = startedMs + settleTimeoutMs - monotonic();
    if (leftMs <= 0) return { scan, quiet: false, isEarly: true };
    // A temporary file may be renamed at any time, so while there is one the whole window is waited for.
    const waitMs = ageMs >= 0 && !isFlushing ? demandedMs - ageMs + 1 : quietMs;
    const mostMs = Math.max(Math.min(quietMs, SCAN_INTERVAL_MAX_MS), SCAN_SPACING_FACTOR * scan.tookMs);
    const napMs = Math.min(leftMs, Math.max(SCAN_INTERVAL_MIN_MS, Math.min(waitMs, mostMs)));
    await sleep(napMs, undefined, signal === undefined ? {} : { signal });
    scannedMs = monotonic();
    const next = await scanNow();
    if (firstDifference(scan, next) !== undefined || next.newestNs !== scan.newestNs) {
      sameSinceMs = scannedMs;
      // The first state may be older than the writing.
      if (before !== undefined) bestGapMs = Math.max(bestGapMs, Math.min(restedMs, windowMs));
    }
    before = scan;
    scan = next;
  }
}

/** Reports whether the files of a scan mean that a flush is under way. */
function showsFlush(scan: Scan, { before, isIdle }: { before: Scan | undefined; isIdle: boolean }): boolean {
  if (flushFiles(scan, before).length > 0) return true;
  return !isIdle && areVectorsPending(scan.entries, BigInt(now() - FLUSH_AGE_MAX_MS) * 1_000_000n);
}

function demandOf(
  { quietMs, windowMs, patienceMs, beganMs }: SettleOptions,
  { bestGapMs, isFlushing, scan }: { bestGapMs: number; isFlushing: boolean; scan: Scan },
): number {
  const isChecked = scan.entries.some(({ path, type }) => type === 'file' && isGraphFile(path));
  return demandedRestMs({
    elapsedMs: monotonic() - beganMs,
    patienceMs: isChecked ? patienceMs : Math.max(patienceMs, UNCHECKED_PATIENCE_MS),
    quietMs,
    windowMs,
    bestGapMs,
    isFlushing,
    isChecked,
  });
}
