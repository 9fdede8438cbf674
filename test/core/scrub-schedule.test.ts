import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type ScrubbedPack, scrubCoverage, scrubOrder, scrubWaitMs } from '../../core/scrub-schedule.ts';

const DAY_MS = 86_400_000;

function pack(packId: string, sinceMs: number, { bytes = 100, isRead = true } = {}): ScrubbedPack {
  return { packId, bytes, sinceMs, isRead };
}

describe('the scrub', () => {
  it('reads first what was not read for the longest time', () => {
    const packs = [pack('c', 30), pack('b', 10), pack('a', 10), pack('d', 20, { isRead: false })];
    assert.deepEqual(
      scrubOrder(packs).map(({ packId }) => packId),
      ['a', 'b', 'd', 'c'],
    );
  });

  it('spreads the reads over the period by the sizes of the packs', () => {
    const pace = { periodMs: 1000, totalBytes: 100, lastMs: 5000, nowMs: 5000 };
    assert.equal(scrubWaitMs(100, pace), 900);
    assert.equal(scrubWaitMs(10, pace), 90);
    assert.equal(scrubWaitMs(10, { ...pace, nowMs: 5060 }), 30);
    assert.equal(scrubWaitMs(10, { ...pace, nowMs: 9000 }), 0);
  });

  it('waits no longer than a share after the clock was set back, and divides by no zero', () => {
    const pace = { periodMs: 1000, totalBytes: 100, lastMs: 50_000, nowMs: 5000 };
    assert.equal(scrubWaitMs(100, pace), 900);
    assert.equal(scrubWaitMs(0, { ...pace, totalBytes: 0 }), 0);
  });

  it('reads each of many packs within the period, also while others are added', () => {
    const periodMs = 14 * DAY_MS;
    let nowMs = 1_000_000;
    let lastMs = nowMs;
    const known = new Map<string, ScrubbedPack>();
    for (let i = 0; i < 500; i++) {
      const one = pack(`old${i}`, nowMs, { bytes: 1 + ((i * 7919) % 640), isRead: false });
      known.set(one.packId, one);
    }
    const readMs = new Map<string, number>();
    const endMs = nowMs + periodMs;
    for (let n = 0; nowMs < endMs && readMs.size < 500; n++) {
      const [next] = scrubOrder([...known.values()]);
      assert.ok(next !== undefined);
      const totalBytes = [...known.values()].reduce((sum, { bytes }) => sum + bytes, 0);
      nowMs += scrubWaitMs(next.bytes, { periodMs, totalBytes, lastMs, nowMs });
      lastMs = nowMs;
      known.set(next.packId, { ...next, sinceMs: nowMs, isRead: true });
      if (next.packId.startsWith('old')) readMs.set(next.packId, nowMs);
      if (n % 10 === 0) known.set(`new${n}`, pack(`new${n}`, nowMs, { isRead: false }));
    }
    assert.equal(readMs.size, 500);
    assert.ok(nowMs <= endMs);
  });

  it('covers the bytes that were read within the period', () => {
    const pace = { periodMs: 100, nowMs: 1000 };
    assert.equal(scrubCoverage([], pace), 1);
    const packs = [
      pack('a', 950, { bytes: 300 }),
      pack('b', 800, { bytes: 300 }),
      pack('c', 999, { bytes: 400, isRead: false }),
    ];
    assert.equal(scrubCoverage(packs, pace), 0.3);
    assert.equal(scrubCoverage([pack('a', 5000)], pace), 1, 'a read by a clock that was ahead');
  });
});
