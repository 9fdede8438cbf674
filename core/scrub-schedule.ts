/** Share of the period in which all packs are read again, so that a slow disk does not exceed it. */
const PACE = 0.9;

/** A pack as the scrub knows it. */
export interface ScrubbedPack {
  readonly packId: string;
  readonly bytes: number;
  /** Time of its last read, or of when it was first seen, in milliseconds since 1970. */
  readonly sinceMs: number;
  /** Whether it has been read since it was written. */
  readonly isRead: boolean;
}

/** Returns packs in the order in which they are read: those that were not read for the longest time first. */
export function scrubOrder(packs: readonly ScrubbedPack[]): ScrubbedPack[] {
  return [...packs].sort((a, b) => a.sinceMs - b.sinceMs || (a.packId < b.packId ? -1 : 1));
}

/** What the time of the next read depends on. */
export interface ScrubPace {
  /** Time in which all packs are read again, in milliseconds. */
  readonly periodMs: number;
  /** Bytes of all packs. */
  readonly totalBytes: number;
  /** Time of the last read of any pack, in milliseconds since 1970. */
  readonly lastMs: number;
  readonly nowMs: number;
}

/** Returns the milliseconds until a pack of `bytes` bytes is read; 0 if that is due. */
// Each pack takes its share of the period, so that the reads are spread evenly over it.
export function scrubWaitMs(bytes: number, { periodMs, totalBytes, lastMs, nowMs }: ScrubPace): number {
  const shareMs = PACE * periodMs * (bytes / Math.max(totalBytes, bytes, 1));
  // The clock may have been set back.
  const fromMs = Math.min(lastMs, nowMs);
  return Math.max(0, Math.round(fromMs + shareMs - nowMs));
}

/** Returns the share of the packs' bytes that was read within the period; 1 if there are no packs. */
export function scrubCoverage(
  packs: readonly ScrubbedPack[],
  { periodMs, nowMs }: Pick<ScrubPace, 'periodMs' | 'nowMs'>,
): number {
  let total = 0;
  let read = 0;
  for (const { bytes, sinceMs, isRead } of packs) {
    total += bytes;
    if (isRead && nowMs - sinceMs <= periodMs) read += bytes;
  }
  return total === 0 ? 1 : read / total;
}
