import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { errorFinding, finding, warning } from '../../../core/finding.ts';
import {
  type GradeConditions,
  judge,
  mayStand,
  STANDS_MS,
  sightingKey,
  UNCHANGED_MS,
} from '../../../core/lightrag/grade.ts';
import type { Sighting } from '../../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { type Finding, Grade_Value, Severity_Value } from '../../../gen/lightkeeper/v1/types_pb.ts';

const NEW: GradeConditions = { idle: false, unchangedMs: 0, sightings: [], elapsedMs: 0 };
const MINUTE = 60_000;

function lack(code = 'chunk_without_vector', keys: string[] = ['chunk-1']): Finding {
  return errorFinding(code, 'kv_store_text_chunks.json', { message: 'm', count: keys.length, keys });
}

function gradeOf(
  findings: Finding[],
  more: Partial<GradeConditions> = {},
  ofCapture: Finding[] = [],
): string {
  return Grade_Value[judge(findings, ofCapture, { ...NEW, ...more }).grade];
}

/** Grades a state again and again, as captures come; answers the grades. */
function series(steps: readonly (readonly [waitMs: number, findings: Finding[]])[]): string[] {
  let sightings: Sighting[] = [];
  return steps.map(([elapsedMs, findings]) => {
    const judged = judge(findings, [], { ...NEW, elapsedMs, sightings });
    sightings = judged.sightings;
    return Grade_Value[judged.grade];
  });
}

describe('a grade', () => {
  it('is VALID where every check holds, DEGRADED with warnings', () => {
    assert.equal(gradeOf([]), 'VALID');
    assert.equal(gradeOf([warning('answer_missing', 'a', { message: 'm' })]), 'DEGRADED');
    assert.equal(gradeOf([finding('no_graph', Severity_Value.INFO, 'a', { message: 'm' })]), 'VALID');
  });

  it('is DEGRADED if the capture skipped something, not if the instance was unreachable', () => {
    assert.equal(gradeOf([], {}, [warning('special_file', 'fifo', { message: 'm' })]), 'DEGRADED');
    assert.equal(gradeOf([], {}, [warning('instance_silent', 'http', { message: 'm' })]), 'VALID');
    assert.equal(gradeOf([], {}, [errorFinding('unreadable', 'notes.txt', { message: 'm' })]), 'DEGRADED');
    assert.equal(
      gradeOf([], {}, [errorFinding('unreadable', 'vdb_chunks.json', { message: 'm' })]),
      'INVALID',
    );
  });

  it('of new broken promises is TORN, as a flush may be under way', () => {
    assert.equal(gradeOf([lack()]), 'TORN');
    assert.equal(gradeOf([lack()], { unchangedMs: UNCHANGED_MS - 1 }), 'TORN');
  });

  it('of broken promises at rest is INVALID', () => {
    assert.equal(gradeOf([lack()], { idle: true }), 'INVALID');
    assert.equal(gradeOf([lack()], { unchangedMs: UNCHANGED_MS }), 'INVALID');
  });

  it('of a hint alone is TORN until the directory is at rest, then VALID', () => {
    const sign = finding('entity_differs', Severity_Value.INFO, 'vdb_entities.json', { message: 'm' });
    assert.equal(mayStand(sign), true);
    assert.equal(gradeOf([sign]), 'TORN');
    assert.equal(gradeOf([sign], { unchangedMs: UNCHANGED_MS }), 'VALID');
    assert.equal(gradeOf([sign], { idle: true }), 'VALID');
    assert.deepEqual(
      series([
        [0, [sign]],
        [5 * MINUTE, [sign]],
        [5 * MINUTE, [sign]],
        [0, [sign, lack()]],
      ]),
      ['TORN', 'TORN', 'VALID', 'TORN'],
    );
  });

  it('of an unreadable file is INVALID in every case', () => {
    for (const code of ['empty_file', 'cut_file', 'malformed_file', 'matrix_length', 'mixed_dimensions']) {
      assert.equal(mayStand(lack(code)), false);
      assert.equal(gradeOf([lack(code), lack()]), 'INVALID');
      assert.deepEqual(
        series([
          [0, [lack(code)]],
          [STANDS_MS, [lack(code)]],
          [STANDS_MS, [lack(code)]],
        ]),
        ['INVALID', 'INVALID', 'INVALID'],
      );
    }
  });
});

describe('a standing finding', () => {
  it('is a finding of three captures over ten minutes', () => {
    assert.equal(STANDS_MS < 10 * MINUTE, true);
    assert.deepEqual(
      series([
        [0, [lack()]],
        [MINUTE, [lack()]],
        [STANDS_MS - MINUTE - 1, [lack()]],
        [1, [lack()]],
      ]),
      ['TORN', 'TORN', 'TORN', 'DEGRADED'],
    );
    assert.deepEqual(
      series([
        [0, [lack()]],
        [STANDS_MS, [lack()]],
        [0, [lack()]],
      ]),
      ['TORN', 'TORN', 'DEGRADED'],
    );
  });

  it('is not one with other keys or another count', () => {
    const more = lack('chunk_without_vector', ['chunk-1', 'chunk-2']);
    assert.notDeepEqual(sightingKey(lack()), sightingKey(more));
    assert.deepEqual(
      series([
        [0, [lack()]],
        [5 * MINUTE, [lack()]],
        [5 * MINUTE, [more]],
      ]),
      ['TORN', 'TORN', 'TORN'],
    );
  });

  it('is recognised after a torn capture that hid it', () => {
    const torn = [lack('chunk_without_vector', ['chunk-1', 'chunk-9'])];
    assert.deepEqual(
      series([
        [0, [lack()]],
        [MINUTE, torn],
        [MINUTE, [lack()]],
        [8 * MINUTE, torn],
        [0, [lack()]],
        [0, torn],
      ]),
      ['TORN', 'TORN', 'TORN', 'TORN', 'DEGRADED', 'TORN'],
    );
  });

  it('does not excuse a new finding beside it', () => {
    const other = lack('edge_without_vector', ['a<SEP>b']);
    assert.deepEqual(
      series([
        [0, [lack()]],
        [5 * MINUTE, [lack()]],
        [5 * MINUTE, [lack(), other]],
        [10 * MINUTE, [lack(), other]],
        [0, [lack(), other]],
      ]),
      ['TORN', 'TORN', 'TORN', 'TORN', 'DEGRADED'],
    );
  });

  it('is listed with its age', () => {
    const first = judge([lack()], [], NEW);
    const { findings } = judge([lack()], [], { ...NEW, sightings: first.sightings, elapsedMs: 61_000 });
    const { captures, ageMs, stands } = findings[0]?.standing ?? assert.fail();
    assert.deepEqual([captures, ageMs, stands], [2, 61_000n, false]);
  });

  it('starts again after a whole state', () => {
    assert.deepEqual(
      series([
        [0, [lack()]],
        [5 * MINUTE, []],
        [5 * MINUTE, [lack()]],
        [0, [lack()]],
        [9 * MINUTE, [lack()]],
        [MINUTE, [lack()]],
      ]),
      ['TORN', 'VALID', 'TORN', 'TORN', 'TORN', 'DEGRADED'],
    );
  });

  it('is forgotten after two hundred newer ones', () => {
    let { sightings } = judge([lack()], [], NEW);
    for (let i = 0; i < 200; i++)
      ({ sightings } = judge([lack('x', [`${i}`])], [], { ...NEW, sightings, elapsedMs: 1 }));
    assert.equal(sightings.length, 200);
    const kept = sightings.some(({ key }) => sightingKey(lack()).equals(key));
    assert.equal(kept, false);
  });
});
