import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  matrixOffsets,
  planSegments,
  type Segment,
  splitSegment,
} from '../../../core/lightrag/reuse-plan.ts';
import type { NodeRef } from '../../../core/list.ts';
import { commonRuns } from '../../../core/unit-runs.ts';

const UNIT_BYTES = 16 << 10;
const KB = 1 << 10;

/** Units by their numbers. */
function units(...ids: readonly number[]): NodeRef[] {
  return ids.map((id) => ({ id: Buffer.from(`${id}`.padStart(32)), span: UNIT_BYTES }));
}

function upTo(count: number, from = 0): number[] {
  return Array.from({ length: count }, (_, i) => from + i);
}

/** Kilobytes that are read, or, below zero, passed over. */
function sizes(segments: readonly Segment[]): number[] {
  const bytes = (refs: readonly NodeRef[]) => refs.reduce((sum, { span }) => sum + span, 0) / KB;
  return segments.flatMap((one) =>
    'refs' in one ? [bytes(one.refs)] : [bytes(one.head), -one.bytes / KB, bytes(one.tail)],
  );
}

function segments(one: readonly NodeRef[], other: readonly NodeRef[], end = Number.POSITIVE_INFINITY) {
  return planSegments(one, other, { runs: commonRuns(one, other), end });
}

describe('a common part of two states', () => {
  it('is skipped in both, except its ends', () => {
    const one = units(...upTo(100));
    const other = units(...upTo(40), 900, ...upTo(60, 40), 901, 902);
    const { before = [], after = [] } = segments(one, other) ?? {};
    assert.deepEqual(sizes(before), [128, -384, 128, 128, -704, 128]);
    assert.deepEqual(sizes(after), [128, -384, 128, 16, 128, -704, 128, 32]);
    assert.deepEqual(
      after.flatMap((segment) => ('isLast' in segment ? [segment.isLast] : [])),
      [false, true],
    );
  });

  it('is listed in the order of each state', () => {
    const one = units(...upTo(40), ...upTo(60, 40));
    const other = units(...upTo(60, 40), ...upTo(40));
    const { before = [], after = [] } = segments(one, other) ?? {};
    assert.deepEqual(sizes(before), [128, -384, 128, 128, -704, 128]);
    assert.deepEqual(sizes(after), [128, -704, 128, 128, -384, 128]);
  });

  it('has longer ends if it is long', () => {
    const same = units(...upTo(1000));
    assert.deepEqual(sizes(segments(same, same)?.before ?? []), [1024, -13_952, 1024]);
  });

  it('ends with the last unit before the matrix', () => {
    const one = units(...upTo(200));
    const other = units(900, ...upTo(199, 1));
    const { before = [], after = [] } = segments(one, other, 100 * UNIT_BYTES + 5000) ?? {};
    // Of the older state the unit is read that the matrix begins in, and none behind it.
    assert.deepEqual(sizes(before), [16, 208, -1168, 208, 16]);
    assert.deepEqual(sizes(after), [16, 208, -1168, 208, 1600]);
    assert.deepEqual(sizes(segments(one, other, 100 * UNIT_BYTES)?.before ?? []), [16, 208, -1168, 208]);
  });

  it('is read if it is short or less than half', () => {
    assert.equal(segments(units(...upTo(20)), units(...upTo(20))), undefined);
    assert.equal(segments(units(...upTo(100)), units(...upTo(45), ...upTo(100, 500))), undefined);
    assert.equal(segments([], []), undefined);
  });

  it('excludes units that occur twice', () => {
    const twice = units(...upTo(50), 7, ...upTo(50, 50));
    const { before = [] } = segments(twice, units(...upTo(100))) ?? {};
    assert.deepEqual(sizes(before), [128, 128, -416, 128, 16, 128, -544, 128]);
  });

  it('is read in parts that are each looked up at once', () => {
    const parts = splitSegment({ refs: units(...upTo(1100)), from: 7 });
    assert.deepEqual(
      parts.map((part) => ('refs' in part ? [part.from, part.refs.length] : [])),
      [
        [7, 512],
        [519, 512],
        [1031, 76],
      ],
    );
  });
});

describe('reused units of a matrix', () => {
  it('are those at their old offsets, except beside a change', () => {
    const facts = { matrixAt: BigInt(2 * UNIT_BYTES), vectors: 1000n, dimension: 48 };
    // 192,000 bytes in 256,000 characters: units 2 to 16 lie in them whole.
    const before = units(...upTo(20));
    const places = matrixOffsets(units(0, 1, 900, ...upTo(18, 2)), before, facts as never);
    const expected = upTo(18, 2).map((unit) => (unit > 2 && unit < 16 ? (unit - 2) * UNIT_BYTES : undefined));
    assert.deepEqual(places?.slice(4), expected.slice(1));
    assert.deepEqual(places?.slice(0, 3), [undefined, undefined, undefined]);
    assert.equal(matrixOffsets(before, before, { ...facts, matrixAt: 0n } as never), undefined);
  });
});
