import { createHash } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { type Sighting, SightingSchema } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import {
  type Finding,
  FindingSchema,
  Grade_Value,
  Severity_Value,
  type Standing,
  StandingSchema,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { hex } from '../unit.ts';
import { isGraphFile } from './check.ts';
import { SIGNS } from './rules.ts';

/** Settled captures, and milliseconds between the first and the last of them, after which an error stands. */
// The time leaves room for the captures themselves: within ten minutes there is a usable point.
export const STANDS_CAPTURES = 3;
export const STANDS_MS = 9.5 * 60 * 1000;
/** Milliseconds without changes after which a state cannot be within a flush. */
export const UNCHANGED_MS = 60 * 1000;
/** Most errors that are remembered after they disappeared. */
// A torn state between two whole ones hides them.
const SIGHTINGS_MAX = 200;
const SIGHTING_KEY_BYTES = 16;

/** Errors that never stand. */
// They are flaws of one file by itself, which nobody can use however old they are.
const NEVER_STANDING: ReadonlySet<string> = new Set([
  'empty_file',
  'cut_file',
  'malformed_file',
  'matrix_length',
  'mixed_dimensions',
  'unreadable',
]);
/** Findings of a capture that do not concern its files. */
const TRANSIENT: ReadonlySet<string> = new Set(['instance_silent', 'hook_failed', 'other_directory']);

/** Returns the grade of a state at rest by its findings. */
export function gradeOf(findings: readonly Finding[]): Grade_Value {
  const has = (wanted: Severity_Value) => findings.some(({ severity }) => severity === wanted);
  if (has(Severity_Value.ERROR)) return Grade_Value.INVALID;
  return has(Severity_Value.WARNING) ? Grade_Value.DEGRADED : Grade_Value.VALID;
}

/** Conditions under which a settled state was captured. */
export interface GradeConditions {
  /** Whether the instance reported before and after that it was idle. */
  readonly idle: boolean;
  /** Milliseconds for which the directory is known to be unchanged. */
  readonly unchangedMs: number;
  /** Errors of earlier states of this graph. */
  readonly sightings: readonly Sighting[];
  /** Milliseconds since those were recorded. */
  readonly elapsedMs: number;
  /** Whether this is a new capture; false if an existing one is graded again. */
  readonly isCapture?: boolean;
}

/** The grade of a state, and the errors to remember. */
export interface Judgement {
  readonly grade: Grade_Value;
  /** The given findings, with their age where they may stand. */
  readonly findings: Finding[];
  readonly sightings: Sighting[];
}

/** Returns the key that identifies an error across states: a hash of its code, file, count and names. */
export function sightingKey({ code, object, count, keys }: Finding): Buffer {
  const text = JSON.stringify([code, object, count, [...keys].sort()]);
  return createHash('sha256').update(text).digest().subarray(0, SIGHTING_KEY_BYTES);
}

/** Reports whether a finding may come to stand, or is a sign of a cut between two files. */
export function mayStand({ severity, code }: Finding): boolean {
  return SIGNS.has(code) || (severity === Severity_Value.ERROR && !NEVER_STANDING.has(code));
}

/**
 * Grades a settled state by the findings in its files and those of its capture.
 *
 * Errors between well-formed files, and signs, make it TORN as long as it may be a cut between two files of one
 * flush: they are new, the instance is not known to be idle, and the state is younger than a minute. Afterwards
 * errors make it INVALID until they stand, and signs are ignored.
 */
export function judge(
  findings: readonly Finding[],
  ofCapture: readonly Finding[],
  circumstances: GradeConditions,
): Judgement {
  const { idle, unchangedMs, sightings, elapsedMs, isCapture = true } = circumstances;
  const known = new Map(sightings.map((sighting) => [hex(sighting.key), aged(sighting.standing, elapsedMs)]));
  const keys = new Set<string>();
  const marked = findings.map((finding) => {
    if (!mayStand(finding)) return finding;
    const key = hex(sightingKey(finding));
    const standing = sightedAgain(known.get(key), isCapture);
    keys.add(key);
    // The newest sightings come last, so that the oldest are dropped first.
    known.delete(key);
    known.set(key, standing);
    return create(FindingSchema, { ...finding, standing });
  });
  const grade = gradeByStanding(marked, ofCapture, idle || unchangedMs >= UNCHANGED_MS);
  // An error that a whole state does not show is over; a torn state may only hide it.
  const isWhole = grade === Grade_Value.VALID || grade === Grade_Value.DEGRADED;
  const left = [...known].filter(([key, { accepted }]) => !isWhole || keys.has(key) || accepted !== '');
  const kept = left.slice(-SIGHTINGS_MAX);
  return {
    grade,
    findings: marked,
    sightings: kept.map(([key, standing]) =>
      create(SightingSchema, { key: Buffer.from(key, 'hex'), standing }),
    ),
  };
}

function aged(standing: Standing | undefined, elapsedMs: number): Standing {
  const { captures = 0, ageMs = 0n, accepted = '' } = standing ?? {};
  return create(StandingSchema, { captures, ageMs: ageMs + BigInt(Math.round(elapsedMs)), accepted });
}

function sightedAgain(before: Standing | undefined, isCapture: boolean): Standing {
  const { captures: earlier = 0, ageMs = 0n, accepted = '' } = before ?? {};
  const captures = earlier + (isCapture ? 1 : 0);
  const often = captures >= STANDS_CAPTURES && Number(ageMs) >= STANDS_MS;
  return create(StandingSchema, { captures, ageMs, accepted, stands: often || accepted !== '' });
}

function gradeByStanding(
  findings: readonly Finding[],
  ofCapture: readonly Finding[],
  isFinal: boolean,
): Grade_Value {
  const moving = findings.filter((finding) => mayStand(finding) && finding.standing?.stands !== true);
  const wrong = moving.filter(({ code }) => !SIGNS.has(code));
  const isError = ({ severity }: Finding) => severity === Severity_Value.ERROR;
  const unread = ofCapture.some((one) => isError(one) && isGraphFile(one.object));
  if (unread || findings.some((one) => isError(one) && !mayStand(one))) return Grade_Value.INVALID;
  if (moving.length > 0 && !isFinal) return Grade_Value.TORN;
  if (wrong.length > 0) return Grade_Value.INVALID;
  const blemishes = [...findings, ...ofCapture.filter(({ code }) => !TRANSIENT.has(code))];
  return blemishes.some(({ severity }) => severity !== Severity_Value.INFO)
    ? Grade_Value.DEGRADED
    : Grade_Value.VALID;
}
