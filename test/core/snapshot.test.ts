import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { addAnnotation } from '../../core/annotations.ts';
import {
  emptyRecord,
  gradeHintOf,
  gradeOf,
  isUsable,
  type StoredSnapshot,
  snapshotState,
} from '../../core/snapshot.ts';
import { AnnotationSchema } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { ManifestSchema } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';

const OWN = new Uint8Array(16).fill(1);
const OTHER = new Uint8Array(16).fill(2);

function graded(...grades: [storeId: Uint8Array, grade: Grade_Value][]): StoredSnapshot {
  const digest = new Uint8Array(32);
  const record = emptyRecord(digest);
  record.manifest = create(ManifestSchema, { sequence: 1n });
  for (const [storeId, grade] of grades) {
    const fact = { case: 'graded' as const, value: { grade } };
    addAnnotation(record, create(AnnotationSchema, { storeId, counter: 1n, digest, fact }));
  }
  return snapshotState(record, OWN) as StoredSnapshot;
}

describe('the grade of another store', () => {
  it('is a hint that never counts', () => {
    const snapshot = graded([OTHER, Grade_Value.VALID]);
    assert.equal(gradeHintOf(snapshot), Grade_Value.VALID);
    assert.equal(gradeOf(snapshot), Grade_Value.UNGRADED);
    assert.equal(isUsable(snapshot), false);
  });

  it('is not shown beside the own grade', () => {
    const snapshot = graded([OTHER, Grade_Value.VALID], [OWN, Grade_Value.INVALID]);
    assert.equal(gradeHintOf(snapshot), undefined);
    assert.equal(gradeOf(snapshot), Grade_Value.INVALID);
    assert.equal(gradeHintOf(graded()), undefined);
  });
});
