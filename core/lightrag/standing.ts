import { createHash } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { type Sighting, SightingSchema } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { type Standing, StandingSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { hex } from '../unit.ts';
import { numberBytes, numbersOf } from './facts-codec.ts';
import { common, NO_NUMBERS, setOf, union, without } from './sorted-numbers.ts';

/** Settled captures, and milliseconds between the first and the last of them, after which a broken promise stands. */
// The time leaves room for the captures themselves: within ten minutes there is a usable point.
export const STANDS_CAPTURES = 3;
export const STANDS_MS = 9.5 * 60 * 1000;

/** Most names of one finding that stand one by one; more of them stand together or not at all. */
export const NAMES_MAX = 1000;
/** Most sightings that are remembered. */
// A torn state between two whole ones hides them.
const SIGHTINGS_MAX = 200;
const GROUP_KEY_BYTES = 16;

/** The names of one kind in one file that break a promise. */
export interface BrokenNames {
  /** Code of the finding. */
  readonly code: string;
  /** Path of the file. */
  readonly file: string;
  /** Sorted numbers of the names. */
  readonly numbers: Float64Array;
}

/** Names that stand: those of few by their numbers, those of many by a key of all of them. */
export type StandingKeys = readonly (BrokenNames & { readonly key: string })[];

/** Returns the key of all names of a finding that has too many to be remembered one by one; empty for others. */
function groupKey(numbers: Float64Array): string {
  if (numbers.length <= NAMES_MAX) return '';
  return hex(createHash('sha256').update(numberBytes(numbers)).digest().subarray(0, GROUP_KEY_BYTES));
}

/** Splits broken names into those that stand and the others. */
export function splitStanding(
  standing: StandingKeys | undefined,
  { code, file, numbers }: BrokenNames,
): { standing: Float64Array; others: Float64Array } {
  const key = groupKey(numbers);
  const mine = (standing ?? []).filter((one) => one.code === code && one.file === file);
  if (key !== '') {
    const stands = mine.some((one) => one.key === key);
    return stands ? { standing: numbers, others: NO_NUMBERS } : { standing: NO_NUMBERS, others: numbers };
  }
  const known = mine.reduce((all, one) => union(all, one.numbers), NO_NUMBERS);
  return { standing: common(numbers, known), others: without(numbers, known) };
}

/** How much time and how many captures have passed since sightings were recorded. */
export interface Passed {
  readonly elapsedMs: number;
  /** Whether the state is one more capture; false if an existing one is only graded again. */
  readonly isCapture: boolean;
}

/** Returns sightings as they are if the present state shows them again. */
export function advanceSightings(
  sightings: readonly Sighting[],
  { elapsedMs, isCapture }: Passed,
): Sighting[] {
  return sightings.map((sighting) => {
    const { captures = 0, ageMs = 0n, accepted = '' } = sighting.standing ?? {};
    return create(SightingSchema, {
      ...sighting,
      standing: standingOf({
        captures: captures + (isCapture ? 1 : 0),
        ageMs: ageMs + BigInt(Math.round(elapsedMs)),
        accepted,
      }),
    });
  });
}

function standingOf(seen: Pick<Standing, 'captures' | 'ageMs' | 'accepted'>): Standing {
  const isOld = seen.captures >= STANDS_CAPTURES && Number(seen.ageMs) >= STANDS_MS;
  return create(StandingSchema, { ...seen, stands: isOld || seen.accepted !== '' });
}

/** Returns the names of advanced sightings that stand. */
export function standingKeys(advanced: readonly Sighting[]): StandingKeys {
  return advanced
    .filter(({ standing }) => standing?.stands === true)
    .map(({ code, file, hashes, key }) => ({ code, file, numbers: numbersOf(hashes), key: hex(key) }));
}

/**
 * Returns the sightings to remember after a state, and the standing of each finding.
 *
 * Names that the state does not show are forgotten if it is whole: they are over, unless they were accepted. A state
 * that is not whole may only hide them.
 */
export function nextSightings(
  advanced: readonly Sighting[],
  seen: readonly BrokenNames[],
  { isWhole, isCapture }: { readonly isWhole: boolean; readonly isCapture: boolean },
): { sightings: Sighting[]; standings: Standing[] } {
  const sightings: Sighting[] = [];
  for (const sighting of advanced) {
    const shown = shownNames(sighting, seen);
    const hidden = without(numbersOf(sighting.hashes), shown);
    const isShown = sighting.key.length > 0 ? shown.length > 0 : hidden.length === 0;
    const isKept = !isWhole || sighting.standing?.accepted !== '';
    if (isShown) sightings.push(sighting);
    else {
      if (shown.length > 0) sightings.push(withNumbers(sighting, shown));
      const earlier = asBefore(sighting, isCapture);
      if (isKept) sightings.push(shown.length > 0 ? withNumbers(earlier, hidden) : earlier);
    }
  }
  const standings = seen.map((broken) => {
    const ages = sightings.filter((sighting) => shownNames(sighting, [broken]).length > 0);
    const known = ages.reduce((all, { hashes }) => union(all, numbersOf(hashes)), NO_NUMBERS);
    const key = groupKey(broken.numbers);
    const isNew = key === '' ? without(broken.numbers, known).length > 0 : ages.length === 0;
    if (isNew) {
      const fresh = newSighting(broken, { key, known, isCapture });
      sightings.push(fresh);
      ages.push(fresh);
    }
    return leastStanding(ages);
  });
  // The newest come last, so that the oldest are dropped first.
  return { sightings: sightings.slice(-SIGHTINGS_MAX), standings };
}

/** Returns the names of a sighting that a state shows; of a group all or none. */
function shownNames(sighting: Sighting, seen: readonly BrokenNames[]): Float64Array {
  const mine = seen.filter(({ code, file }) => code === sighting.code && file === sighting.file);
  if (sighting.key.length > 0)
    return mine.find(({ numbers }) => groupKey(numbers) === hex(sighting.key))?.numbers ?? NO_NUMBERS;
  const numbers = numbersOf(sighting.hashes);
  return setOf(mine.flatMap((one) => [...common(one.numbers, numbers)]));
}

function withNumbers(sighting: Sighting, numbers: Float64Array): Sighting {
  return create(SightingSchema, { ...sighting, hashes: numberBytes(numbers) });
}

/** Returns an advanced sighting without the capture that did not show it. */
function asBefore(sighting: Sighting, isCapture: boolean): Sighting {
  const { captures = 0, ageMs = 0n, accepted = '' } = sighting.standing ?? {};
  const standing = standingOf({ captures: captures - (isCapture ? 1 : 0), ageMs, accepted });
  return create(SightingSchema, { ...sighting, standing });
}

function newSighting(
  { code, file, numbers }: BrokenNames,
  { key, known, isCapture }: { key: string; known: Float64Array; isCapture: boolean },
): Sighting {
  const standing = standingOf({ captures: isCapture ? 1 : 0, ageMs: 0n, accepted: '' });
  const names =
    key === '' ? { hashes: numberBytes(without(numbers, known)) } : { key: Buffer.from(key, 'hex') };
  return create(SightingSchema, { code, file, standing, ...names });
}

function leastStanding(ages: readonly Sighting[]): Standing {
  const all = ages.flatMap(({ standing }) => (standing === undefined ? [] : [standing]));
  const [first, ...others] = all.sort((a, b) => Number(a.ageMs - b.ageMs) || a.captures - b.captures);
  return first === undefined
    ? standingOf({ captures: 0, ageMs: 0n, accepted: '' })
    : create(StandingSchema, { ...first, stands: [first, ...others].every(({ stands }) => stands) });
}

/** Accepts broken names of one kind in one file for a reason, and returns the sightings with them. */
export function acceptNames(
  sightings: readonly Sighting[],
  wanted: Pick<BrokenNames, 'code' | 'file'> & { readonly numbers: Float64Array | 'all' },
  reason: string,
): Sighting[] {
  return sightings.flatMap((sighting) => {
    if (sighting.code !== wanted.code || sighting.file !== wanted.file) return [sighting];
    const { captures = 0, ageMs = 0n } = sighting.standing ?? {};
    const standing = standingOf({ captures, ageMs, accepted: reason });
    if (wanted.numbers === 'all') return [create(SightingSchema, { ...sighting, standing })];
    const all = numbersOf(sighting.hashes);
    const named = common(all, wanted.numbers);
    const others = without(all, wanted.numbers);
    if (named.length === 0) return [sighting];
    const accepted = create(SightingSchema, { ...withNumbers(sighting, named), standing });
    return others.length > 0 ? [withNumbers(sighting, others), accepted] : [accepted];
  });
}
