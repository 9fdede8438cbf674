import { create } from '@bufbuild/protobuf';
import { type QuietRecord, QuietRecordSchema } from '../gen/lightkeeper/index/v1/index_pb.ts';
import { type BytePath, pathBytes, pathFromBytes } from './path.ts';

/** No quiet window is longer. */
export const QUIET_MAX_MS = 30_000;
/** A window is so many times the longest pause. */
const PAUSE_FACTOR = 4;
/** A longer pause would make no longer window. */
const PAUSE_MAX_MS = QUIET_MAX_MS / PAUSE_FACTOR;
/** Flushes that are remembered. */
const PAUSES_KEPT = 20;
/** Files of one flush that are remembered; a directory with more is not written by LightRAG. */
const PATHS_KEPT = 64;
/** LightRAG writes these at other moments too: when they changed says nothing of the pauses in a flush. */
const RESTLESS = /(?:^|\/)kv_store_(?:full_docs|doc_status|llm_response_cache)\.json$/;

/** A file that is not as the last commit has it. */
export interface Changed {
  readonly path: BytePath;
  readonly ctimeNs: bigint;
}

/**
 * How long nothing may have changed before a directory counts as at rest, in milliseconds: four times the longest
 * pause seen inside one flush, `quietMs` at least. A `quietMs` of 0 asks for no wait at all.
 */
export function quietWindowMs(quietMs: number, learned: QuietRecord | undefined): number {
  if (quietMs === 0) return 0;
  const longestMs = Math.max(0, ...(learned?.pausesMs ?? []).map(Number));
  return Math.max(quietMs, Math.min(QUIET_MAX_MS, PAUSE_FACTOR * longestMs));
}

/**
 * What a settled commit teaches. Files that changed since the commit before lie on the time line where they were
 * last written; a flush writes each of its files once. If none of them had changed at the commit before, both
 * commits saw parts of one flush, and the gap between them was a pause in it. `digest` names the commit.
 */
export function learnPauses(
  known: QuietRecord | undefined,
  changed: readonly Changed[],
  digest: Uint8Array = new Uint8Array(),
): QuietRecord {
  const steady = changed
    .filter(({ path }) => !RESTLESS.test(path))
    .sort((a, b) => (a.ctimeNs < b.ctimeNs ? -1 : a.ctimeNs > b.ctimeNs ? 1 : 0));
  const [first] = steady;
  const last = steady.at(-1);
  if (first === undefined || last === undefined || steady.length > PATHS_KEPT) {
    return known ?? create(QuietRecordSchema);
  }
  let longestMs = 0;
  for (const [i, { ctimeNs }] of steady.entries()) {
    const before = steady[i - 1];
    if (before !== undefined) longestMs = Math.max(longestMs, pauseMs(before.ctimeNs, ctimeNs));
  }
  const earlier = new Set((known?.changedPaths ?? []).map(pathFromBytes));
  const paths = steady.map(({ path }) => path);
  const goesOn = earlier.size > 0 && !paths.some((path) => earlier.has(path));
  const gapMs = goesOn ? pauseMs(known?.changedNs ?? 0n, first.ctimeNs) : 0;
  const together = gapMs > 0 ? [...earlier, ...paths] : paths;
  return create(QuietRecordSchema, {
    pausesMs: [...(known?.pausesMs ?? []), BigInt(Math.max(longestMs, gapMs))].slice(-PAUSES_KEPT),
    changedPaths: together.slice(-PATHS_KEPT).map((path) => pathBytes(path)),
    changedNs: last.ctimeNs,
    learnedFrom: Uint8Array.from(digest),
  });
}

/**
 * A commit has proved to be of a moment inside a flush: the gaps between its files may be those between two flushes, and
 * the flush paused for longer than `windowMs`, which had been waited for.
 */
export function learnTorn(known: QuietRecord | undefined, digest: Uint8Array, windowMs: number): QuietRecord {
  const record = create(QuietRecordSchema, known ?? {});
  const isLast = Buffer.compare(record.learnedFrom, digest) === 0;
  const others = isLast ? record.pausesMs.slice(0, -1) : record.pausesMs;
  record.pausesMs = [...others, BigInt(Math.round(Math.min(PAUSE_MAX_MS, windowMs)))].slice(-PAUSES_KEPT);
  record.learnedFrom = Uint8Array.from(digest);
  return record;
}

/** The window that was waited for before a commit. */
export function windowBefore(quietMs: number, known: QuietRecord | undefined, digest: Uint8Array): number {
  if (known === undefined || Buffer.compare(known.learnedFrom, digest) !== 0)
    return quietWindowMs(quietMs, known);
  return quietWindowMs(quietMs, create(QuietRecordSchema, { pausesMs: known.pausesMs.slice(0, -1) }));
}

/** A gap that may be a pause inside a flush, in milliseconds; else 0. */
function pauseMs(fromNs: bigint, toNs: bigint): number {
  const ms = Number((toNs - fromNs) / 1_000_000n);
  return ms > 0 && ms <= PAUSE_MAX_MS ? ms : 0;
}
