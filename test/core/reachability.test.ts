import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { LiveUnits, type PackUsage, planPacks } from '../../core/reachability.ts';

const MIB = 1024 * 1024;

/** A pack of ten units and 10 MiB, so many of them alive. */
function pack(id: number, live: number, more: Partial<PackUsage> = {}): PackUsage {
  return {
    pack: id,
    packId: `pack ${id}`,
    meta: false,
    size: 10 * MIB,
    rawBytes: 20 * MIB,
    units: 10,
    liveUnits: live,
    liveRawBytes: live * 2 * MIB,
    ...more,
  };
}

const numbers = (lives: readonly PackUsage[]) => lives.map((life) => life.pack).sort((a, b) => a - b);

describe('the plan for packs', () => {
  it('drops exactly the packs without a live unit', () => {
    const { drop, rewrite, freedBytes } = planPacks([pack(1, 0), pack(2, 1), pack(3, 10)]);
    assert.deepEqual(numbers(drop), [1]);
    assert.deepEqual(numbers(rewrite), [2]);
    assert.equal(freedBytes, 10 * MIB + 9 * MIB);
  });

  it('repacks a pack that is more than 40 % dead', () => {
    const { rewrite } = planPacks([pack(1, 6), pack(2, 5), pack(3, 7)]);
    assert.deepEqual(numbers(rewrite), [2]);
    const just = { liveRawBytes: 12 * MIB - 1 };
    assert.deepEqual(numbers(planPacks([pack(1, 6, just)]).rewrite), [1]);
  });

  it('joins small packs of one kind once there are sixteen', () => {
    const small = (count: number, meta: boolean, first = 0) =>
      Array.from({ length: count }, (_, i) => pack(first + i, 10, { size: MIB, meta }));
    assert.deepEqual(planPacks(small(15, false)).rewrite, []);
    assert.equal(planPacks(small(16, false)).rewrite.length, 16);
    assert.deepEqual(planPacks([...small(15, false), ...small(15, true, 100)]).rewrite, []);
    const { rewrite, freedBytes } = planPacks([...small(15, false), ...small(16, true, 100), pack(99, 10)]);
    assert.deepEqual(
      numbers(rewrite),
      Array.from({ length: 16 }, (_, i) => 100 + i),
    );
    assert.equal(freedBytes, 0);
  });

  it('leaves packs alone that are mostly alive', () => {
    assert.deepEqual(planPacks([]), { drop: [], rewrite: [], freedBytes: 0 });
    assert.deepEqual(planPacks([pack(1, 10), pack(2, 8)]), { drop: [], rewrite: [], freedBytes: 0 });
  });

  it('never drops a pack with a live unit and names none twice', () => {
    const lives = fc
      .array(
        fc.record({
          units: fc.nat({ max: 20 }),
          live: fc.nat({ max: 20 }),
          size: fc.nat({ max: 10 * MIB }),
          meta: fc.boolean(),
        }),
        { maxLength: 40 },
      )
      .map((list) =>
        list.map(({ units, live, size, meta }, id) => {
          const liveUnits = Math.min(live, units);
          return pack(id, 0, { units, liveUnits, size, meta, rawBytes: units, liveRawBytes: liveUnits });
        }),
      );
    fc.assert(
      fc.property(lives, (list) => {
        const { drop, rewrite, freedBytes } = planPacks(list);
        assert.equal(
          drop.every(({ liveUnits }) => liveUnits === 0),
          true,
        );
        assert.equal(
          rewrite.every(({ liveUnits }) => liveUnits > 0),
          true,
        );
        const named = numbers([...drop, ...rewrite]);
        assert.equal(new Set(named).size, named.length);
        const sizes = [...drop, ...rewrite].reduce((sum, { size }) => sum + size, 0);
        assert.equal(freedBytes >= 0 && freedBytes <= sizes, true);
      }),
    );
  });
});

describe('live units', () => {
  it('are counted once each, with their bytes', () => {
    const live = new LiveUnits();
    live.addPack(7, 9);
    assert.equal(live.mark(7, 0, 100), true);
    assert.equal(live.mark(7, 8, 50), true);
    assert.equal(live.mark(7, 8, 50), false);
    assert.deepEqual(live.count(7), { units: 2, rawBytes: 150 });
    assert.equal(live.has(7, 0) && live.has(7, 8) && !live.has(7, 1), true);
  });

  it('of an unknown pack or beyond its end are not counted', () => {
    const live = new LiveUnits();
    live.addPack(1, 8);
    assert.equal(live.mark(2, 0, 1), false);
    assert.equal(live.mark(1, 8, 1), false);
    assert.equal(!live.has(2, 0) && !live.has(1, 8), true);
    assert.deepEqual(live.count(2), { units: 0, rawBytes: 0 });
    assert.deepEqual(live.count(1), { units: 0, rawBytes: 0 });
  });

  it('do not depend on the order of marks', () => {
    const marks = fc.array(fc.tuple(fc.nat({ max: 3 }), fc.nat({ max: 70 })), { maxLength: 300 });
    fc.assert(
      fc.property(marks, (list) => {
        const live = new LiveUnits();
        for (let id = 0; id <= 3; id++) live.addPack(id, 71);
        const wanted = new Set<string>();
        for (const [id, ordinal] of list) {
          const key = `${id}:${ordinal}`;
          assert.equal(live.mark(id, ordinal, ordinal), !wanted.has(key));
          wanted.add(key);
        }
        for (let id = 0; id <= 3; id++) {
          const ordinals = Array.from({ length: 71 }, (_, i) => i).filter((i) => wanted.has(`${id}:${i}`));
          assert.deepEqual(live.count(id), {
            units: ordinals.length,
            rawBytes: ordinals.reduce((sum, i) => sum + i, 0),
          });
          for (let i = 0; i <= 70; i++) assert.equal(live.has(id, i), wanted.has(`${id}:${i}`));
        }
      }),
    );
  });
});
