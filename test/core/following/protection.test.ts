import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseAckMode, protectedPlace } from '../../../core/following/protection.ts';

const NEVER = Number.NEGATIVE_INFINITY;

describe('an ack mode', () => {
  it('is async, all, or a quorum of at least one', () => {
    assert.deepEqual(parseAckMode('async'), { kind: 'async' });
    assert.deepEqual(parseAckMode('all'), { kind: 'all' });
    assert.deepEqual(parseAckMode('quorum(2)'), { kind: 'quorum', count: 2 });
    for (const wrong of ['', 'quorum', 'quorum(0)', 'quorum(1', 'ALL', 'quorum(-1)'])
      assert.throws(() => parseAckMode(wrong), /as an ack mode/, wrong);
  });

  it('decides which snapshot is protected', () => {
    const place = (mode: string, ...positions: number[]) => protectedPlace(parseAckMode(mode), positions, 9);
    assert.equal(place('async'), 9);
    assert.equal(place('quorum(1)', 3, 7), 7);
    assert.equal(place('quorum(2)', 3, 7), 3);
    assert.equal(place('quorum(2)', 3), NEVER, 'there are too few standbys');
    assert.equal(place('all', 3, 7, 5), 3);
    assert.equal(place('all'), NEVER, 'nobody holds a copy');
    assert.equal(place('quorum(1)', NEVER, NEVER), NEVER);
  });

  it('never protects what fewer standbys hold than it asks for', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 6 }),
        fc.integer({ min: 1, max: 6 }),
        (held, count) => {
          const place = protectedPlace({ kind: 'quorum', count }, held, 20);
          const holders = held.filter((one) => one >= place).length;
          assert.ok(place === NEVER ? held.length < count : holders >= count);
        },
      ),
    );
  });
});
