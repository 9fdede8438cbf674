import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { errorFinding, finding } from '../../../core/finding.ts';
import { isRegradeDue, REGRADE_NEVER, scheduleRegrade } from '../../../core/lightrag/regrade-schedule.ts';
import {
  type Finding,
  Grade_Value,
  Severity_Value,
  StandingSchema,
} from '../../../gen/lightkeeper/v1/types_pb.ts';
import { checkTranscript } from '../../support/golden.ts';

/** Reads `CODE:AGE[:stands]`. */
function findingOf(text: string): Finding {
  const [code = '', ageS = '0', stands] = text.split(':');
  const standing = create(StandingSchema, {
    ageMs: BigInt(Math.round(Number(ageS) * 1000)),
    stands: stands === 'stands',
  });
  return { ...finding(code, Severity_Value.ERROR, 'graph', { message: code }), standing };
}

describe('the schedule of regrading', () => {
  it('decides as recorded in golden/regrading.txt', () => {
    let state = REGRADE_NEVER;
    checkTranscript('regrading.txt', (event) => {
      const [atS = '', snapshotId = '', grade = '', ...findings] = event.split(' ');
      state = scheduleRegrade(state, {
        snapshotId,
        grade: Grade_Value[grade as keyof typeof Grade_Value],
        findings: findings.map(findingOf),
        nowMs: Number(atS) * 1000,
      });
      if (!Number.isFinite(state.dueMs)) return 'not graded again';
      return `grading ${state.gradings + 1} at ${Number((state.dueMs / 1000).toFixed(3))}`;
    });
  });

  it('is due from the planned time on, and never without a graded point', () => {
    const grading = { snapshotId: 'a', grade: Grade_Value.UNGRADED, findings: [], nowMs: 100 };
    const state = scheduleRegrade(REGRADE_NEVER, grading);
    assert.equal(isRegradeDue(state, state.dueMs - 1), false);
    assert.equal(isRegradeDue(state, state.dueMs), true);
    assert.equal(isRegradeDue(REGRADE_NEVER, Number.MAX_VALUE), false);
  });

  it('ignores a finding without a standing', () => {
    const findings = [errorFinding('edge_without_vector', 'graph', { message: 'edges have no vector' })];
    const grading = { snapshotId: 'a', grade: Grade_Value.INVALID, findings, nowMs: 0 };
    assert.equal(scheduleRegrade(REGRADE_NEVER, grading).dueMs, Number.POSITIVE_INFINITY);
  });

  it('leaves the state before unchanged', () => {
    const before = Object.freeze({ snapshotId: 'a', gradings: 1, dueMs: 5000 });
    const grading = { snapshotId: 'a', grade: Grade_Value.UNGRADED, findings: [], nowMs: 5000 };
    assert.deepEqual(scheduleRegrade(before, grading), { snapshotId: 'a', gradings: 2, dueMs: 65_000 });
    assert.deepEqual(before, { snapshotId: 'a', gradings: 1, dueMs: 5000 });
  });
});
