import type { GraphFacts } from '../../gen/lightkeeper/store/v1/graph_pb.ts';
import type { NodeRef } from '../list.ts';
import type { UnitRun } from '../unit-runs.ts';
import { FLOAT_BYTES } from './matrix.ts';

/** Most units that are looked up at once. */
const REFS_MAX = 512;

/** Bytes that are read at either end of a skipped run, as bounds and as a share of its length. */
// Records must start within them.
const EDGE_BYTES_MIN = 128 << 10;
const EDGE_BYTES_MAX = 1 << 20;
const EDGE_SHARE = 8;

/** Least bytes of a run that is skipped. */
const RUN_BYTES_MIN = 512 << 10;

/** Consecutive units of a file: all read, or skipped except for both ends. */
export type Segment =
  | {
      readonly refs: readonly NodeRef[];
      /** Index of the first unit in the file. */
      readonly from: number;
    }
  | {
      readonly head: readonly NodeRef[];
      /** Bytes between head and tail, which are skipped. */
      readonly bytes: number;
      readonly tail: readonly NodeRef[];
      /** Whether no other skipped segment follows. */
      readonly isLast: boolean;
    };

/** What two states of a file share, and where the older one ends. */
export interface SegmentOptions {
  /** Runs of units that both states share. */
  readonly runs: readonly UnitRun[];
  /** Offset at which the older state ends for this purpose; infinite for all of it. */
  readonly end: number;
}

/**
 * Splits two states of a file into segments, skipping what both share, except for its ends.
 *
 * Content after byte `end` of the older state is never skipped, and is not in the older state's segments. Returns
 * undefined if less than half could be skipped.
 */
export function planSegments(
  before: readonly NodeRef[],
  after: readonly NodeRef[],
  { runs, end }: SegmentOptions,
): { before: Segment[]; after: Segment[] } | undefined {
  const offsets = offsetsOf(before);
  const offsetOf = (unit: number) => offsets[unit] ?? 0;
  // The unit that contains the end is always read.
  const whole = offsets.filter((offset) => offset <= end).length - 1;
  const read = offsets.filter((offset, i) => offset < end && i < before.length).length;
  const long = runs
    .map(({ at, otherAt, length }) => ({ at, otherAt, length: Math.min(length, whole - at) }))
    .filter(({ at, length }) => length > 0 && offsetOf(at + length) - offsetOf(at) >= RUN_BYTES_MIN);
  const passed = long.reduce((sum, { at, length }) => sum + offsetOf(at + length) - offsetOf(at), 0);
  if (long.length === 0 || passed * 2 < offsetOf(read)) return undefined;
  const inAfter = long.map(({ otherAt, length }) => ({ at: otherAt, length })).sort((a, b) => a.at - b.at);
  return { before: segmentsOf(before.slice(0, read), long), after: segmentsOf(after, inAfter) };
}

/** Splits a long segment that is read into shorter ones. */
export function splitSegment(segment: Segment): Segment[] {
  if (!('refs' in segment)) return [segment];
  const parts: Segment[] = [];
  for (let at = 0; at < segment.refs.length; at += REFS_MAX)
    parts.push({ refs: segment.refs.slice(at, at + REFS_MAX), from: segment.from + at });
  return parts;
}

function offsetsOf(units: readonly NodeRef[]): number[] {
  const offsets = [0];
  for (const { span } of units) offsets.push((offsets.at(-1) ?? 0) + span);
  return offsets;
}

function segmentsOf(units: readonly NodeRef[], runs: readonly { at: number; length: number }[]): Segment[] {
  const segments: Segment[] = [];
  let next = 0;
  for (const [i, { at, length }] of runs.entries()) {
    if (at > next) segments.push({ refs: units.slice(next, at), from: next });
    next = at + length;
    const run = units.slice(at, next);
    const share = bytesOf(run) / EDGE_SHARE;
    const edgeBytes = Math.min(EDGE_BYTES_MAX, Math.max(EDGE_BYTES_MIN, share));
    const [first, last] = [edgeLength(run, edgeBytes), edgeLength(run.toReversed(), edgeBytes)];
    const middle = run.slice(first, run.length - last);
    segments.push({
      head: run.slice(0, first),
      bytes: bytesOf(middle),
      tail: run.slice(run.length - last),
      isLast: i === runs.length - 1,
    });
  }
  if (next < units.length) segments.push({ refs: units.slice(next), from: next });
  return segments;
}

function bytesOf(units: readonly NodeRef[]): number {
  return units.reduce((sum, { span }) => sum + span, 0);
}

/** Returns the number of units that cover `edgeBytes` bytes. */
function edgeLength(run: readonly NodeRef[], edgeBytes: number): number {
  let bytes = 0;
  let count = 0;
  while (count < run.length && bytes < edgeBytes) bytes += run[count++]?.span ?? 0;
  return count;
}

/** Offset of each unit in the previous matrix text; undefined for units that must be read. */
export type MatrixOffsets = readonly (number | undefined)[];

/** Returns which units of a file of vectors were in its previous matrix, which was found to be right. */
// Units next to a change are read for the length of a row: rows across the border must be decoded whole.
export function matrixOffsets(
  units: readonly NodeRef[],
  before: readonly NodeRef[],
  { matrixAt, vectors, dimension }: GraphFacts,
): MatrixOffsets | undefined {
  if (matrixAt === 0n) return undefined;
  const begin = Number(matrixAt);
  const end = begin + Math.ceil((Number(vectors) * dimension * FLOAT_BYTES) / 3) * 4;
  const known = new Map<string, number | undefined>();
  let at = 0;
  for (const { id, span } of before) {
    const name = id.toString('latin1');
    if (at >= begin && at + span <= end) known.set(name, known.has(name) ? undefined : at - begin);
    at += span;
  }
  const rowBytes = Math.ceil((dimension * FLOAT_BYTES * 4) / 3);
  const was = units.map(({ id }) => known.get(id.toString('latin1')));
  const places = [...was];
  for (const [i, place] of was.entries()) {
    if (place !== undefined) continue;
    for (const step of [-1, 1]) {
      let covered = 0;
      for (let near = i + step; covered < rowBytes && was[near] !== undefined; near += step) {
        places[near] = undefined;
        covered += units[near]?.span ?? 0;
      }
    }
  }
  return places;
}
