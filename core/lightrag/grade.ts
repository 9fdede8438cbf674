import { createHash } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import {
  type Finding,
  FindingSchema,
  Grade_Value,
  Severity_Value,
  type Sighting,
  SightingSchema,
  type Standing,
  StandingSchema,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { hex } from '../unit.ts';
import { isGraphFile } from './check.ts';
import { SIGNS } from './rules.ts';

/**
 * An error stands once this many settled captures over this long have met it: within ten minutes there is a usable point,
 * the time of the captures included.
 */
export const STANDS_CAPTURES = 3;
export const STANDS_MS = 9.5 * 60 * 1000;
/** A state that nothing has changed for so long is no moment of a flush. */
export const UNCHANGED_MS = 60 * 1000;
/** Errors that are remembered although they are gone: a torn moment between two whole ones hides them. */
const SIGHTINGS_MAX = 200;
const SIGHTING_KEY_BYTES = 16;

/** Flaws of one file by itself: however long they have been there, nobody can use it. */
const NEVER_STANDING: ReadonlySet<string> = new Set([
  'empty_file',
  'cut_file',
  'malformed_file',
  'matrix_length',
  'mixed_dimensions',
  'unreadable',
]);
/** What a capture met that says nothing of the files in it. */
const TRANSIENT: ReadonlySet<string> = new Set(['instance_silent', 'hook_failed', 'other_directory']);

/** The grade of one whole state, by what was found in it. */
export function gradeOf(findings: readonly Finding[]): Grade_Value {
  const has = (wanted: Severity_Value) => findings.some(({ severity }) => severity === wanted);
  if (has(Severity_Value.ERROR)) return Grade_Value.INVALID;
  return has(Severity_Value.WARNING) ? Grade_Value.DEGRADED : Grade_Value.VALID;
}

/** What is known of a settled state beside its files. */
export interface Circumstances {
  /** The instance said before and after that it was idle. */
  readonly idle: boolean;
  /** For how long the directory is known to have been as it is. */
  readonly unchangedMs: number;
  /** Errors that were met before in this graph. */
  readonly sightings: readonly Sighting[];
  /** Time since those were noted. */
  readonly elapsedMs: number;
  /** This is a capture that has met the state, not another look at what one has met. */
  readonly isCapture?: boolean;
}

/** What a state is worth, and what is to be remembered of it. */
export interface Judgement {
  readonly grade: Grade_Value;
  /** As given, with what is known of how long they have been there. */
  readonly findings: Finding[];
  readonly sightings: Sighting[];
}

/** By which an error is known again: the same code, file, count and names. */
export function sightingKey({ code, object, count, keys }: Finding): Buffer {
  const text = JSON.stringify([code, object, count, [...keys].sort()]);
  return createHash('sha256').update(text).digest().subarray(0, SIGHTING_KEY_BYTES);
}

/** Whether something is wrong that can come to stand, or is a sign of a moment between two files. */
export function mayStand({ severity, code }: Finding): boolean {
  return SIGNS.has(code) || (severity === Severity_Value.ERROR && !NEVER_STANDING.has(code));
}

/**
 * Grades a settled state by what its files, and the capture of it, met. Errors between whole files, and signs, are TORN as
 * long as they may be a moment between two files of one flush: they are new, nobody knows the instance to be idle, and the
 * state has not stayed for a minute. After that errors are INVALID, until they stand, and signs say nothing.
 */
export function judge(
  findings: readonly Finding[],
  ofCapture: readonly Finding[],
  circumstances: Circumstances,
): Judgement {
  const { idle, unchangedMs, sightings, elapsedMs, isCapture = true } = circumstances;
  const known = new Map(sightings.map((sighting) => [hex(sighting.key), aged(sighting.standing, elapsedMs)]));
  const keys = new Set<string>();
  const marked = findings.map((finding) => {
    if (!mayStand(finding)) return finding;
    const key = hex(sightingKey(finding));
    const standing = sightedAgain(known.get(key), isCapture);
    keys.add(key);
    // The newest are kept longest.
    known.delete(key);
    known.set(key, standing);
    return create(FindingSchema, { ...finding, standing });
  });
  const grade = gradeByStanding(marked, ofCapture, idle || unchangedMs >= UNCHANGED_MS);
  // A torn moment hides what is wrong; in a whole state it has ended.
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
