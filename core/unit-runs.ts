import type { NodeRef } from './list.ts';

/** A run of consecutive units that two files share. */
export interface UnitRun {
  /** Index of the first unit in the first file. */
  readonly at: number;
  /** Index of the first unit in the other file. */
  readonly otherAt: number;
  /** Number of units. */
  length: number;
}

/** Returns the index of each unit by its id, NaN for units that occur twice. */
function uniquePlaces(units: readonly NodeRef[]): Map<string, number> {
  const places = new Map<string, number>();
  for (const [i, { id }] of units.entries()) {
    const name = id.toString('latin1');
    places.set(name, places.has(name) ? Number.NaN : i);
  }
  return places;
}

/** Returns the runs of units that two files share, ordered by their place in the first. */
// Units that occur twice in either file are in no run: their place is ambiguous.
export function commonRuns(one: readonly NodeRef[], other: readonly NodeRef[]): UnitRun[] {
  const [mine, theirs] = [uniquePlaces(one), uniquePlaces(other)];
  const runs: UnitRun[] = [];
  for (const [at, { id }] of one.entries()) {
    const name = id.toString('latin1');
    const otherAt = Number.isNaN(mine.get(name)) ? Number.NaN : (theirs.get(name) ?? Number.NaN);
    if (Number.isNaN(otherAt)) continue;
    const last = runs.at(-1);
    if (last !== undefined && last.at + last.length === at && last.otherAt + last.length === otherAt)
      last.length += 1;
    else runs.push({ at, otherAt, length: 1 });
  }
  return runs;
}
