import type { NodeRef } from './list.ts';

/** A run of units that two files have in common. */
export interface Run {
  readonly at: number;
  readonly otherAt: number;
  length: number;
}

/** Places of units that are there once. */
function placesOf(units: readonly NodeRef[]): Map<string, number> {
  const places = new Map<string, number>();
  for (const [i, { id }] of units.entries()) {
    const name = id.toString('latin1');
    places.set(name, places.has(name) ? Number.NaN : i);
  }
  return places;
}

/** Runs of units that two files have in common, in order of the first; units that one has twice are in none. */
export function runsOf(one: readonly NodeRef[], other: readonly NodeRef[]): Run[] {
  const [mine, theirs] = [placesOf(one), placesOf(other)];
  const runs: Run[] = [];
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
