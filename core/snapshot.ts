import {
  CutMethod_Value,
  type Finding,
  Grade_Value,
  type Manifest,
  type SnapshotRecord,
} from '../gen/lightkeeper/v1/types_pb.ts';
import { snapshotIdOf } from './manifest.ts';

/** A record with its manifest: a snapshot that exists. */
export type CommittedSnapshot = SnapshotRecord & { manifest: Manifest };

/** Reports whether files changed while a snapshot was captured. */
export function isTorn(manifest: Manifest): boolean {
  return manifest.cutMethod === CutMethod_Value.TORN;
}

/** Returns the grade of a snapshot. */
export function gradeOf({ manifest, graded }: CommittedSnapshot): Grade_Value {
  return isTorn(manifest) ? Grade_Value.TORN : (graded?.grade ?? Grade_Value.UNGRADED);
}

/** Reports whether a grade means that the graph is whole. */
export function isUsableGrade(grade: Grade_Value): boolean {
  return grade === Grade_Value.VALID || grade === Grade_Value.DEGRADED;
}

/** Reports whether a snapshot has been proven to hold a whole graph. */
export function isUsable(record: CommittedSnapshot): boolean {
  return isUsableGrade(gradeOf(record));
}

/** Reports whether a snapshot has unacknowledged alarms. */
export function isAlarming(record: CommittedSnapshot): boolean {
  return alarmsOf(record).length > 0 && record.acknowledged === undefined;
}

/** Returns the alarms of a snapshot; none if it is not usable. */
// Nothing is compared with a snapshot that is not usable, so its alarms mean nothing.
export function alarmsOf(record: CommittedSnapshot): readonly Finding[] {
  return isUsable(record) ? (record.graded?.alarms ?? []) : [];
}

/** Reports whether a record is of a snapshot that exists and is not deleted. */
export function isCommitted(record: SnapshotRecord): record is CommittedSnapshot {
  return record.manifest !== undefined && !record.deleted;
}

/** Returns the snapshot id of a record. */
export function idOf(record: SnapshotRecord): string {
  return snapshotIdOf(record.digest);
}
