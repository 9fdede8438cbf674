import type { BytePath } from './path.ts';

/** Ratio of a gap to the longest one seen so far, from which it is longer than any pause within a flush seen so far. */
const LONGER_GAP = 1.5;
/** Share of the longest gap seen so far that counts as such a gap again. */
const SAME_GAP = 0.8;
/** Longest quiet window that is cut short, in milliseconds; a longer one was asked for. */
const SHORT_QUIET_MS = 1000;
/** Share of the patience after which a graph that is checked afterwards is captured at any time. */
const OVERDUE = 1.25;
/** Share of the patience after which a directory that nothing checks needs no more than the shortest window. */
const UNCHECKED_OVERDUE = 2;

/** What is known during the wait for a directory to rest. Times are in milliseconds. */
export interface RestWait {
  /** Time since the wait began. */
  readonly elapsedMs: number;
  /** Time after which the wait demands less. */
  readonly patienceMs: number;
  /** Shortest quiet window; 0 for no wait. */
  readonly quietMs: number;
  /** Quiet window with what was learned. */
  readonly windowMs: number;
  /** Longest time without a change between two changes during the wait; 0 if there was none. */
  readonly bestGapMs: number;
  /** Whether the files show a flush that has not ended. */
  readonly isFlushing: boolean;
  /** Whether the snapshot will be checked for mixed states. */
  readonly isChecked: boolean;
}

/** Returns the milliseconds without a change that a capture demands now. */
// Beside a writer that never pauses for the whole window, the longest gap that it leaves is the best time. The checks
// decide whether the snapshot mixes two states. A directory without checks is never captured within a visible flush.
export function demandedRestMs(wait: RestWait): number {
  const { elapsedMs, patienceMs, quietMs, windowMs, bestGapMs, isFlushing, isChecked } = wait;
  if (quietMs === 0) return 0;
  const isPatient = elapsedMs < patienceMs;
  if (isFlushing && (isPatient || !isChecked)) return Number.POSITIVE_INFINITY;
  if (elapsedMs < patienceMs / 2) return windowMs;
  const isHopeful = elapsedMs < (patienceMs * 3) / 4;
  const gapMs = (isHopeful ? LONGER_GAP : SAME_GAP) * bestGapMs;
  if (isPatient || (!isChecked && elapsedMs < UNCHECKED_OVERDUE * patienceMs))
    return Math.max(quietMs, Math.min(windowMs, gapMs));
  if (!isChecked || quietMs > SHORT_QUIET_MS) return quietMs;
  return elapsedMs < OVERDUE * patienceMs ? Math.min(quietMs, gapMs) : 0;
}

/** A file with the time of its last write. */
export interface WrittenFile {
  readonly path: BytePath;
  readonly size: number;
  readonly mtimeNs: bigint;
}

/** Vector files, each with the file of the same flush that is written before it. */
const VECTOR_FILES = [
  ['vdb_chunks.json', 'kv_store_text_chunks.json'],
  ['vdb_entities.json', 'kv_store_entity_chunks.json'],
  ['vdb_relationships.json', 'kv_store_relation_chunks.json'],
] as const;
const GRAPH_FILE = 'graph_chunk_entity_relation.graphml';
/** Size of a file with an empty map. */
const EMPTY_BYTES = 2;

/** Reports whether a flush has written a graph since `sinceNs` but not yet its vectors. */
// Newer versions compute the embeddings in between, for seconds. In older ones the graph comes last.
export function areVectorsPending(files: readonly WrittenFile[], sinceNs: bigint): boolean {
  const folders = new Map<BytePath, Map<BytePath, WrittenFile>>();
  for (const file of files) {
    const at = file.path.lastIndexOf('/') + 1;
    const folder = file.path.slice(0, at);
    const names = folders.get(folder) ?? new Map<BytePath, WrittenFile>();
    folders.set(folder, names.set(file.path.slice(at), file));
  }
  return [...folders.values()].some((names) => arePending(names, sinceNs));
}

function arePending(files: ReadonlyMap<BytePath, WrittenFile>, sinceNs: bigint): boolean {
  const graph = files.get(GRAPH_FILE);
  if (graph === undefined || graph.mtimeNs < sinceNs) return false;
  if ([...files.keys()].some((name) => name.startsWith('faiss_index_'))) return false;
  return VECTOR_FILES.some(([name, source]) => {
    const vectorsNs = files.get(name)?.mtimeNs ?? 0n;
    const before = files.get(source);
    if (before === undefined || before.size <= EMPTY_BYTES) return false;
    return before.mtimeNs > vectorsNs && graph.mtimeNs > vectorsNs;
  });
}
