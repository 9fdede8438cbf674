import type { GraphFacts } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { NodeRef } from '../list.ts';
import type { UnitRun } from '../unit-runs.ts';
import { FLOAT_BYTES } from './matrix.ts';

/** Units that are looked up at once. */
const REFS_MAX = 512;

/** So much is read at either end of what is passed over, by its length: records must begin in it. */
const EDGE_BYTES_MIN = 128 << 10;
const EDGE_BYTES_MAX = 1 << 20;
const EDGE_SHARE = 8;

/** Shorter runs are read. */
const RUN_BYTES_MIN = 512 << 10;

/** Units of a file that are read, or passed over but for their ends. */
export type Segment =
  | {
      readonly refs: readonly NodeRef[];
      /** Place of the first of them in the file. */
      readonly from: number;
    }
  | {
      readonly head: readonly NodeRef[];
      /** Between head and tail. */
      readonly bytes: number;
      readonly tail: readonly NodeRef[];
      /** No other one follows. */
      readonly isLast: boolean;
    };

/**
 * Parts two states of a file, each into stretches: those that both have in common are passed over, but for their ends, the
 * same on both sides. What lies behind byte `end` of the older one is read, and left out of its stretches. Undefined where
 * less than half could be passed over.
 */
export function planSegments(
  one: readonly NodeRef[],
  other: readonly NodeRef[],
  runs: readonly UnitRun[],
  end: number,
): { before: Segment[]; after: Segment[] } | undefined {
  const offsets = offsetsOf(one);
  const offsetOf = (unit: number) => offsets[unit] ?? 0;
  // The unit across the end is read, and never passed over.
  const whole = offsets.filter((offset) => offset <= end).length - 1;
  const read = offsets.filter((offset, i) => offset < end && i < one.length).length;
  const long = runs
    .map(({ at, otherAt, length }) => ({ at, otherAt, length: Math.min(length, whole - at) }))
    .filter(({ at, length }) => length > 0 && offsetOf(at + length) - offsetOf(at) >= RUN_BYTES_MIN);
  const passed = long.reduce((sum, { at, length }) => sum + offsetOf(at + length) - offsetOf(at), 0);
  if (long.length === 0 || passed * 2 < offsetOf(read)) return undefined;
  const after = long.map(({ otherAt, length }) => ({ at: otherAt, length })).sort((a, b) => a.at - b.at);
  return { before: segmentsOf(one.slice(0, read), long), after: segmentsOf(other, after) };
}

/** Long stretches that are read, in shorter ones. */
export function splitSegment(stretch: Segment): Segment[] {
  if (!('refs' in stretch)) return [stretch];
  const parts: Segment[] = [];
  for (let at = 0; at < stretch.refs.length; at += REFS_MAX)
    parts.push({ refs: stretch.refs.slice(at, at + REFS_MAX), from: stretch.from + at });
  return parts;
}

function offsetsOf(units: readonly NodeRef[]): number[] {
  const offsets = [0];
  for (const { span } of units) offsets.push((offsets.at(-1) ?? 0) + span);
  return offsets;
}

function segmentsOf(units: readonly NodeRef[], runs: readonly { at: number; length: number }[]): Segment[] {
  const stretches: Segment[] = [];
  let next = 0;
  for (const [i, { at, length }] of runs.entries()) {
    if (at > next) stretches.push({ refs: units.slice(next, at), from: next });
    next = at + length;
    const run = units.slice(at, next);
    const share = bytesOf(run) / EDGE_SHARE;
    const edgeBytes = Math.min(EDGE_BYTES_MAX, Math.max(EDGE_BYTES_MIN, share));
    const [first, last] = [edgeLength(run, edgeBytes), edgeLength(run.toReversed(), edgeBytes)];
    const middle = run.slice(first, run.length - last);
    stretches.push({
      head: run.slice(0, first),
      bytes: bytesOf(middle),
      tail: run.slice(run.length - last),
      isLast: i === runs.length - 1,
    });
  }
  if (next < units.length) stretches.push({ refs: units.slice(next), from: next });
  return stretches;
}

function bytesOf(units: readonly NodeRef[]): number {
  return units.reduce((sum, { span }) => sum + span, 0);
}

/** How many units make an edge. */
function edgeLength(run: readonly NodeRef[], edgeBytes: number): number {
  let bytes = 0;
  let count = 0;
  while (count < run.length && bytes < edgeBytes) bytes += run[count++]?.span ?? 0;
  return count;
}

/** Where each unit of a file was in the text of its matrix; undefined for those that were not there, or must be read. */
export type MatrixOffsets = readonly (number | undefined)[];

/**
 * Which units of a file of vectors were in the matrix of its older state, which was found to be right. As many of them as
 * a row is long are read on both sides of what has changed: rows that lie across the border are looked at whole.
 */
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
