import { create } from '@bufbuild/protobuf';
import type { Sighting } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import {
  type Finding,
  FindingSchema,
  Grade_Value,
  ObjectKind_Value,
  Severity_Value,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { type CheckFinding, isGraphFile } from './check.ts';
import { LOAD_CODES } from './rules.ts';
import { nextSightings, type Passed } from './standing.ts';

/** Milliseconds without changes after which a directory is at rest. */
export const UNCHANGED_MS = 60 * 1000;

/** Findings of a capture that concern its files although their object is the instance. */
const OUTSIDE = 'outside_storage';

/** Conditions under which a settled state was captured. */
export interface GradeConditions extends Passed {
  /** Whether no flush can have been under way: see `isAtRest`. */
  readonly atRest: boolean;
  /** Sightings of earlier states as this one shows them if it shows them: see `advanceSightings`. */
  readonly sightings: readonly Sighting[];
}

/** The grade of a state, and the sightings to remember. */
export interface Judgement {
  readonly grade: Grade_Value;
  /** The given findings, with the age of those that may stand. */
  readonly findings: Finding[];
  readonly sightings: Sighting[];
}

/** Reports whether a finding may come to stand: it is a broken promise. */
export function mayStand({ severity, code }: Finding): boolean {
  return severity === Severity_Value.ERROR && !LOAD_CODES.has(code);
}

/** Reports whether a finding is of a file that a server does not load, or of which it loses the contents. */
function isUnloadable({ severity, code }: Finding): boolean {
  return severity === Severity_Value.ERROR && LOAD_CODES.has(code);
}

/**
 * Grades a state by the findings in its files and those of its capture.
 *
 * What cannot be loaded, and a broken promise that does not stand, make it INVALID at rest. Before, they make it TORN:
 * the next flush may mend them.
 */
export function judge(
  found: readonly CheckFinding[],
  ofCapture: readonly Finding[],
  conditions: GradeConditions,
): Judgement {
  const { atRest, sightings, isCapture } = conditions;
  const broken = found.filter(({ finding }) => mayStand(finding));
  const seen = broken.map(({ finding: { code, object }, numbers }) => ({ code, file: object, numbers }));
  const isUnread = ofCapture.some((one) => one.severity === Severity_Value.ERROR && isGraphFile(one.object));
  const isWrong =
    isUnread || found.some(({ finding, stands }) => isUnloadable(finding) || (mayStand(finding) && !stands));
  const next = nextSightings(sightings, seen, { isWhole: !isWrong, isCapture });
  const findings = found.map((one) => {
    const standing = next.standings[broken.indexOf(one)];
    return standing === undefined
      ? one.finding
      : create(FindingSchema, { ...one.finding, standing: { ...standing, stands: one.stands } });
  });
  const grade = isWrong
    ? atRest
      ? Grade_Value.INVALID
      : Grade_Value.TORN
    : gradeOf([...findings, ...ofCapture.filter(concernsFiles)]);
  return { grade, findings, sightings: next.sightings };
}

/** Returns the grade of a state without errors that count. */
function gradeOf(findings: readonly Finding[]): Grade_Value {
  return findings.some(({ severity }) => severity !== Severity_Value.INFO)
    ? Grade_Value.DEGRADED
    : Grade_Value.VALID;
}

function concernsFiles({ code, objectKind }: Finding): boolean {
  const isOfProcess = objectKind === ObjectKind_Value.INSTANCE || objectKind === ObjectKind_Value.HOOK;
  return !isOfProcess || code === OUTSIDE;
}

/**
 * Grades a directory by itself: INVALID if a server cannot load it, whenever it is checked; for a broken promise
 * INVALID at rest and TORN otherwise.
 */
export function gradeAlone(findings: readonly Finding[], atRest: boolean): Grade_Value {
  if (findings.some(isUnloadable)) return Grade_Value.INVALID;
  if (findings.some(mayStand)) return atRest ? Grade_Value.INVALID : Grade_Value.TORN;
  return gradeOf(findings);
}
