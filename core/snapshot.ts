import { create } from '@bufbuild/protobuf';
import { type SnapshotRecord, SnapshotRecordSchema } from '../gen/lightkeeper/index/v1/index_pb.ts';
import {
  type Acknowledged,
  type Damaged,
  type Forked,
  ForkState_Value,
  type Graded,
  type Measured,
} from '../gen/lightkeeper/store/v1/annotation_pb.ts';
import type { Manifest } from '../gen/lightkeeper/store/v1/manifest_pb.ts';
import { CutMethod_Value, type Finding, Grade_Value } from '../gen/lightkeeper/v1/types_pb.ts';
import { factsOf } from './annotations.ts';
import { EMPTIED } from './lightrag/loss.ts';
import { snapshotIdOf } from './manifest.ts';

/** A record of the index with its annotations combined for the store that holds it. */
export interface SnapshotState {
  /** The record as the index holds it. */
  readonly record: SnapshotRecord;
  /** SHA-256 of the manifest as stored. */
  readonly digest: Uint8Array;
  readonly manifestUnitId: Uint8Array;
  /** Undefined while only annotations of the snapshot were read. */
  readonly manifest: Manifest | undefined;
  readonly measured: Measured | undefined;
  readonly tags: Readonly<Record<string, string>>;
  readonly pinned: boolean;
  readonly deleted: boolean;
  readonly graded: Graded | undefined;
  readonly acknowledged: Acknowledged | undefined;
  /** What the newest check of its bytes found; undefined before the first that found damage. */
  readonly damaged: Damaged | undefined;
  /** The fork that it belongs to; undefined on the line of the head. */
  readonly forked: Forked | undefined;
}

/** A snapshot that can be shown and restored. */
export type StoredSnapshot = SnapshotState & { readonly manifest: Manifest };

/** Combines the annotations of a record for the store `storeId`. */
export function snapshotState(record: SnapshotRecord, storeId: Uint8Array): SnapshotState {
  const facts = factsOf(record, storeId);
  const tags: Record<string, string> = {};
  // The store's own tags are the first, and win where two stores give one key different values.
  for (const tagged of facts.tagged.toReversed()) Object.assign(tags, tagged.tags);
  return {
    record,
    digest: record.digest,
    manifestUnitId: record.manifestUnitId,
    manifest: record.manifest,
    measured: facts.measured[0],
    tags,
    pinned: facts.pinned.some(({ pinned }) => pinned),
    deleted: facts.deleted.length > 0,
    graded: facts.graded[0],
    acknowledged: facts.acknowledged[0],
    damaged: facts.damaged[0],
    forked: facts.forked[0],
  };
}

/** Returns a record that holds nothing but a digest. */
export function emptyRecord(digest: Uint8Array): SnapshotRecord {
  return create(SnapshotRecordSchema, { digest });
}

/** Reports whether a record is of a snapshot that can be shown and restored. */
export function isStored(state: SnapshotState): state is StoredSnapshot {
  return state.manifest !== undefined && !state.deleted;
}

/** Returns the id of a snapshot. */
export function idOf({ digest }: Pick<SnapshotState, 'digest'>): string {
  return snapshotIdOf(digest);
}

/** Reports whether a record is of a stored snapshot on the line of the head, or of a side snapshot. */
export function isOnLine(state: SnapshotState): state is StoredSnapshot {
  return isStored(state) && state.forked === undefined;
}

/** Reports whether a snapshot is on a fork that no operator has accepted. */
export function isProtectedFork({ forked }: SnapshotState): boolean {
  return forked !== undefined && forked.state !== ForkState_Value.ACCEPTED;
}

/** Reports whether files changed during every attempt to read them: the snapshot is then a side snapshot. */
export function isChangedCut({ cutMethod }: Manifest): boolean {
  return cutMethod === CutMethod_Value.CHANGED;
}

/** Returns how far a snapshot can be trusted. */
export function gradeOf({ manifest, graded }: StoredSnapshot): Grade_Value {
  if (isChangedCut(manifest)) return Grade_Value.TORN;
  const grade = graded?.grade ?? Grade_Value.UNGRADED;
  // A newer version may have written one that this one does not know.
  return Grade_Value[grade] === undefined ? Grade_Value.UNSPECIFIED : grade;
}

/** Returns what another store graded a snapshot as, while it is not graded here. It is shown, and never counted. */
export function gradeHintOf({ record, manifest, graded }: StoredSnapshot): Grade_Value | undefined {
  if (graded !== undefined || isChangedCut(manifest)) return undefined;
  for (const { fact } of record.annotations) if (fact.case === 'graded') return fact.value.grade;
  return undefined;
}

/** Reports whether a grade means that the graph is whole. */
export function isUsableGrade(grade: Grade_Value): boolean {
  return grade === Grade_Value.VALID || grade === Grade_Value.DEGRADED;
}

/** Reports whether a unit that a snapshot needs is known to be missing or wrong. */
export function isDamaged({ damaged }: StoredSnapshot): boolean {
  return damaged?.damaged === true;
}

/** Reports whether a snapshot lost everything that the usable one before it had, and nobody acknowledged that. */
export function isEmptied(snapshot: StoredSnapshot): boolean {
  return isAlarming(snapshot) && alarmsOf(snapshot).some(({ code }) => code === EMPTIED);
}

/** Reports whether a snapshot is proven to hold a whole graph that can be restored. */
export function isUsable(snapshot: StoredSnapshot): boolean {
  return isUsableGrade(gradeOf(snapshot)) && !isDamaged(snapshot) && !isEmptied(snapshot);
}

/** Reports whether a snapshot has alarms that are not acknowledged. */
export function isAlarming(snapshot: StoredSnapshot): boolean {
  return alarmsOf(snapshot).length > 0 && snapshot.acknowledged === undefined;
}

/** Returns the alarms of a snapshot; none for one without a usable grade, since nothing relies on it. */
export function alarmsOf(snapshot: StoredSnapshot): readonly Finding[] {
  return isUsableGrade(gradeOf(snapshot)) ? (snapshot.graded?.alarms ?? []) : [];
}
