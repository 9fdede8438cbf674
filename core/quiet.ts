import { create } from '@bufbuild/protobuf';
import { type QuietRecord, QuietRecordSchema } from '../gen/lightkeeper/index/v1/index_pb.ts';
import { type BytePath, pathBytes, pathFromBytes } from './path.ts';

/** Longest quiet window in milliseconds. */
export const QUIET_MAX_MS = 30_000;
/** Ratio of the quiet window to the longest pause within a flush. */
const PAUSE_FACTOR = 4;
/** Longest pause that counts, in milliseconds; a longer one would not lengthen the window. */
const PAUSE_MAX_MS = QUIET_MAX_MS / PAUSE_FACTOR;
/** Most flushes whose pauses are recorded. */
const PAUSES_MAX = 20;
/** Most files of one flush that are recorded. */
// LightRAG writes fewer: a directory with more is not written by it.
const PATHS_MAX = 64;
/** Files that LightRAG also writes outside of a flush: their times do not measure pauses within one. */
const WRITTEN_OFTEN = /(?:^|\/)kv_store_(?:full_docs|doc_status|llm_response_cache)\.json$/;
const GRAPH = /(?:^|\/)graph_[^/]*\.graphml$/;
const VECTORS = /(?:^|\/)vdb_[^/]*\.json$/;

/** A file that differs from the last commit. */
export interface ChangedFile {
  readonly path: BytePath;
  readonly ctimeNs: bigint;
}

/**
 * Returns the milliseconds without changes after which a directory counts as at rest.
 *
 * The window is four times the longest pause seen within one flush, and at least `quietMs`. A `quietMs` of 0 means
 * no wait at all.
 */
export function quietWindowMs(quietMs: number, learned: QuietRecord | undefined): number {
  if (quietMs === 0) return 0;
  const longestMs = Math.max(0, ...(learned?.pausesMs ?? []).map(Number));
  return Math.max(quietMs, Math.min(QUIET_MAX_MS, PAUSE_FACTOR * longestMs));
}

/**
 * Records the pauses within a flush that a settled commit shows, and returns the new record.
 *
 * `changed` are the files that changed since the commit before; `digest` identifies the commit.
 */
// A flush writes each of its files once. If none of these files had changed at the commit before, both commits saw
// parts of one flush, and the gap between them was a pause within it.
export function learnPauses(
  known: QuietRecord | undefined,
  changed: readonly ChangedFile[],
  digest: Uint8Array = new Uint8Array(),
): QuietRecord {
  const steady = changed
    .filter(({ path }) => !WRITTEN_OFTEN.test(path))
    .sort((a, b) => (a.ctimeNs < b.ctimeNs ? -1 : a.ctimeNs > b.ctimeNs ? 1 : 0));
  const [first] = steady;
  const last = steady.at(-1);
  if (first === undefined || last === undefined || steady.length > PATHS_MAX) {
    return known ?? create(QuietRecordSchema);
  }
  const longestMs = longestPauseMs(steady);
  const earlier = new Set((known?.changedPaths ?? []).map(pathFromBytes));
  const paths = steady.map(({ path }) => path);
  const isEmbedding = VECTORS.test(first.path) && [...earlier].some((path) => GRAPH.test(path));
  const goesOn = earlier.size > 0 && !isEmbedding && !paths.some((path) => earlier.has(path));
  const gapMs = goesOn ? pauseMs(known?.changedNs ?? 0n, first.ctimeNs) : 0;
  const together = gapMs > 0 ? [...earlier, ...paths] : paths;
  return create(QuietRecordSchema, {
    pausesMs: [...(known?.pausesMs ?? []), BigInt(Math.max(longestMs, gapMs))].slice(-PAUSES_MAX),
    changedPaths: together.slice(-PATHS_MAX).map((path) => pathBytes(path)),
    changedNs: last.ctimeNs,
    learnedFrom: Uint8Array.from(digest),
  });
}

/** Returns the longest pause between files in order of their change times, in milliseconds. */
// Newer versions compute embeddings within a flush, after the graph and before each vector file. That takes as long as
// a model takes: such a pause is no measure of the pauses between writes.
function longestPauseMs(files: readonly ChangedFile[]): number {
  let longestMs = 0;
  let isAfterGraph = false;
  for (const [i, { path, ctimeNs }] of files.entries()) {
    const before = files[i - 1];
    const isEmbedding = isAfterGraph && VECTORS.test(path);
    if (before !== undefined && !isEmbedding)
      longestMs = Math.max(longestMs, pauseMs(before.ctimeNs, ctimeNs));
    isAfterGraph ||= GRAPH.test(path);
  }
  return longestMs;
}

/** Records a commit that teaches no pause, because it did not wait for the whole window. */
// Its files may be those of several flushes. What comes next does not go on with the flush before it.
export function learnNothing(known: QuietRecord | undefined): QuietRecord {
  const record = create(QuietRecordSchema, known ?? {});
  record.changedPaths = [];
  return record;
}

/** Records that a commit was taken within a flush although `windowMs` milliseconds had passed without changes. */
// The gaps between its files may lie between two flushes: what the commit taught is dropped.
export function learnTorn(known: QuietRecord | undefined, digest: Uint8Array, windowMs: number): QuietRecord {
  const record = create(QuietRecordSchema, known ?? {});
  const isLast = Buffer.compare(record.learnedFrom, digest) === 0;
  const others = isLast ? record.pausesMs.slice(0, -1) : record.pausesMs;
  record.pausesMs = [...others, BigInt(Math.round(Math.min(PAUSE_MAX_MS, windowMs)))].slice(-PAUSES_MAX);
  record.learnedFrom = Uint8Array.from(digest);
  return record;
}

/** Returns the quiet window that preceded a commit, in milliseconds. */
export function windowBefore(quietMs: number, known: QuietRecord | undefined, digest: Uint8Array): number {
  if (known === undefined || Buffer.compare(known.learnedFrom, digest) !== 0)
    return quietWindowMs(quietMs, known);
  return quietWindowMs(quietMs, create(QuietRecordSchema, { pausesMs: known.pausesMs.slice(0, -1) }));
}

/** Returns a gap in milliseconds if it may be a pause within a flush, else 0. */
function pauseMs(fromNs: bigint, toNs: bigint): number {
  const ms = Number((toNs - fromNs) / 1_000_000n);
  return ms > 0 && ms <= PAUSE_MAX_MS ? ms : 0;
}
