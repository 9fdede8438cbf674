import {
  CutMethod_Value,
  type Finding,
  Grade_Value,
  type Manifest,
  type SnapshotRecord,
} from '../gen/lightkeeper/v1/types_pb.ts';
import { snapshotIdOf } from './manifest.ts';

/** A record with its manifest: a snapshot that is there. */
export type Found = SnapshotRecord & { manifest: Manifest };

/** Whether a snapshot is torn by its cut. */
export function isTorn(manifest: Manifest): boolean {
  return manifest.cutMethod === CutMethod_Value.TORN;
}

/** How far a snapshot can be trusted. */
export function gradeOf({ manifest, graded }: Found): Grade_Value {
  return isTorn(manifest) ? Grade_Value.TORN : (graded?.grade ?? Grade_Value.UNGRADED);
}

/** Whether a grade says that the graph is whole. */
export function isUsableGrade(grade: Grade_Value): boolean {
  return grade === Grade_Value.VALID || grade === Grade_Value.DEGRADED;
}

/** Whether a snapshot has been proven to hold a whole graph. */
export function isUsable(record: Found): boolean {
  return isUsableGrade(gradeOf(record));
}

/** Whether a snapshot has alarms that nobody has acknowledged. */
export function isAlarming(record: Found): boolean {
  return alarmsOf(record).length > 0 && record.acknowledged === undefined;
}

/** What is alarming about a snapshot. One that is not usable counts for nothing, and alarms nobody. */
export function alarmsOf(record: Found): readonly Finding[] {
  return isUsable(record) ? (record.graded?.alarms ?? []) : [];
}

/** Whether a record is of a snapshot that can be shown and restored. */
export function isThere(record: SnapshotRecord): record is Found {
  return record.manifest !== undefined && !record.deleted;
}

/** The id that a record's snapshot goes by. */
export function idOf(record: SnapshotRecord): string {
  return snapshotIdOf(record.digest);
}
