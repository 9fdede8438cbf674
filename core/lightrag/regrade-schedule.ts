import { type Finding, Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { mayStand, UNCHANGED_MS } from './grade.ts';
import { STANDS_MS } from './standing.ts';

/** Milliseconds until a new point is first graded again; later waits are no shorter. */
const FIRST_WAIT_MS = 5000;
/** Milliseconds after the time at which a finding may stand, so that its age is certainly reached. */
const STANDS_SLACK_MS = 500;

/** When the newest point is graded again. */
export interface RegradeState {
  /** Id of the newest graded snapshot; empty before the first. */
  readonly snapshotId: string;
  /** Number of times that snapshot has been graded; 0 before the first. */
  readonly gradings: number;
  /** Time of the next grading on the monotonic clock, in milliseconds; infinite if none is due. */
  readonly dueMs: number;
}

/** The state of a graph without a graded point. */
export const REGRADE_NEVER: RegradeState = {
  snapshotId: '',
  gradings: 0,
  dueMs: Number.POSITIVE_INFINITY,
};

/** One grading of the newest point. */
export interface Grading {
  readonly snapshotId: string;
  readonly grade: Grade_Value;
  readonly findings: readonly Finding[];
  /** Time of the grading on the monotonic clock, in milliseconds. */
  readonly nowMs: number;
}

/**
 * Schedules the next grading of a point whose grade may improve, and returns the new state.
 *
 * Such a point is graded again after five seconds, after a minute without changes, and when its oldest finding may stand.
 */
// What looks like a cut between two files of a flush is often whole a moment later, or proves to be real by its age.
export function scheduleRegrade(state: RegradeState, grading: Grading): RegradeState {
  const { snapshotId, grade, findings, nowMs } = grading;
  const earlier = snapshotId === state.snapshotId ? state.gradings : 0;
  const open = findings.filter((finding) => mayStand(finding) && finding.standing?.stands === false);
  const isUngraded = grade === Grade_Value.UNGRADED;
  const gradings = earlier + 1;
  // A file that cannot be loaded is final as soon as the directory is known to be at rest.
  const isTorn = grade === Grade_Value.TORN;
  if (open.length === 0 && !isUngraded && !isTorn)
    return { snapshotId, gradings, dueMs: Number.POSITIVE_INFINITY };
  const waitMs =
    [FIRST_WAIT_MS, UNCHANGED_MS][earlier] ?? (open.length === 0 ? UNCHANGED_MS : standsAfterMs(open));
  // Nothing is known of a point that could not be graded: it does not wait for an age.
  return { snapshotId, gradings, dueMs: nowMs + (isUngraded ? Math.min(waitMs, UNCHANGED_MS) : waitMs) };
}

/** Reports whether the newest point is to be graded again now. */
export function isRegradeDue({ dueMs }: RegradeState, nowMs: number): boolean {
  return nowMs >= dueMs;
}

/** Returns the milliseconds until the oldest of these findings is old enough to stand. */
function standsAfterMs(open: readonly Finding[]): number {
  const oldestMs = Math.max(0, ...open.map(({ standing }) => Number(standing?.ageMs ?? 0n)));
  return Math.max(FIRST_WAIT_MS, STANDS_MS - oldestMs + STANDS_SLACK_MS);
}
