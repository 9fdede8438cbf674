import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  cutLength,
  gearTable,
  LIST_ENTRIES_INLINE,
  PIECE_ENTRIES_MAX,
  PIECE_ENTRIES_MIN,
  pieceEnds,
  UNIT_BYTES_MAX,
  UNIT_BYTES_MIN,
  UNIT_BYTES_NORMAL,
} from '../../core/boundaries.ts';

const MIB = 1024 * 1024;
const STANDARD = gearTable(0n);

/** Bytes that any tool can make again: SHA-256("lightkeeper golden", i u32 LE), one after another. */
function seeded(length: number, name = 'lightkeeper golden'): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(length / 32) * 32);
  const number = Buffer.alloc(4);
  for (let at = 0; at < length; at += 32) {
    number.writeUInt32LE(at / 32);
    bytes.set(createHash('sha256').update(name).update(number).digest(), at);
  }
  return bytes.subarray(0, length);
}

/** Ends of the units of a whole file. */
function cutsOf(bytes: Uint8Array, gear = STANDARD): number[] {
  const ends: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    at += cutLength(gear, bytes, at, bytes.length, true);
    ends.push(at);
  }
  return ends;
}

function unitsOf(bytes: Uint8Array): string[] {
  let start = 0;
  return cutsOf(bytes).map((end) => {
    const unit = createHash('sha256').update(bytes.subarray(start, end)).digest('hex');
    start = end;
    return unit;
  });
}

/** Units of `after` that are not in `before`. */
function newUnits(before: Uint8Array, after: Uint8Array): number {
  const known = new Set(unitsOf(before));
  return unitsOf(after).filter((unit) => !known.has(unit)).length;
}

/** The rule as decisions/0001 words it, one byte at a time in whole numbers. */
function wordedCut(gear: Int32Array, bytes: Uint8Array, start: number): number {
  const limit = Math.min(bytes.length - start, 64 * 1024);
  let hash = 0n;
  for (let length = 6 * 1024 + 1; length <= limit; length++) {
    const summand = BigInt((gear[bytes[start + length - 1] ?? 0] ?? 0) >>> 0);
    hash = (hash * 2n + summand) % 2n ** 32n;
    const zeroBits = length <= 16 * 1024 ? 15n : 11n;
    if (hash >> (32n - zeroBits) === 0n) return length;
  }
  return limit;
}

// From an implementation in another language that was written from decisions/0001 alone.
const GOLDEN_STANDARD = [
  16488, 27516, 40091, 56536, 75090, 86658, 103209, 114115, 135696, 146354, 153347, 169763, 187911, 205931,
  222492, 239206, 257592, 274008, 290418, 305844, 322303, 339389, 360093, 375777, 392149, 409841, 428046,
  444826, 463831, 483281, 501627, 518934, 537181, 547423, 561698, 578259, 598145, 610382, 627164, 643962,
  662413, 671016, 687651, 708176, 726857, 736353, 753088, 770495, 787061, 809618, 827201, 844314, 862149,
  882000, 892904, 910728, 920285, 936898, 947086, 953509, 975485, 983320, 1000029, 1019292, 1025483, 1043131,
  1048576,
];
const GOLDEN_OTHER = [
  16547, 31815, 44192, 52516, 69120, 84635, 104521, 121238, 138308, 156535, 173786, 191725, 198090, 218866,
  236042, 252879, 263840, 282866, 298144, 310820, 320122, 338571, 356846, 373398, 379558, 401837, 423085,
  434225, 443016, 460191, 478313, 496373, 513970, 532144, 549096, 566728, 586935, 607408, 625856, 644350,
  661399, 669939, 684187, 700835, 718617, 735515, 752572, 763508, 783662, 808776, 822070, 840261, 858497,
  879291, 896674, 915830, 933565, 950295, 959883, 976793, 999905, 1018638, 1035067, 1048576,
];

/** Bytes with runs, repeats and noise: what files are made of. */
const lumpy = fc
  .array(
    fc.record({
      byte: fc.integer({ min: 0, max: 255 }),
      length: fc.integer({ min: 0, max: 40_000 }),
      noise: fc.boolean(),
    }),
    { maxLength: 8 },
  )
  .map((lumps) => {
    const parts = lumps.map(({ byte, length, noise }) =>
      noise ? seeded(length, `lump ${byte}`) : Buffer.alloc(length, byte),
    );
    return Uint8Array.from(Buffer.concat(parts));
  });

describe('chunk boundaries of bytes', () => {
  it('never change between versions', () => {
    assert.deepEqual([...STANDARD.subarray(0, 2)], [772_091_994, 3_020_126_599 | 0]);
    assert.deepEqual(cutsOf(seeded(MIB)), GOLDEN_STANDARD);
    assert.deepEqual(cutsOf(seeded(MIB), gearTable(0x0123456789abcdefn)), GOLDEN_OTHER);
  });

  it('follow the rule of the store format', () => {
    const bytes = seeded(256 * 1024, 'worded');
    let start = 0;
    for (const end of cutsOf(bytes)) {
      assert.equal(end - start, wordedCut(STANDARD, bytes, start));
      start = end;
    }
  });

  it('cover every byte within the limits', () => {
    const within = (bytes: Uint8Array) => {
      const ends = cutsOf(bytes);
      assert.equal(ends.at(-1) ?? 0, bytes.length);
      for (const [i, end] of ends.entries()) {
        const length = end - (ends[i - 1] ?? 0);
        assert.equal(length > 0 && length <= UNIT_BYTES_MAX, true);
        assert.equal(length >= UNIT_BYTES_MIN || i === ends.length - 1, true);
      }
    };
    fc.assert(fc.property(lumpy, within), { numRuns: 50 });
    for (const length of [0, 1, UNIT_BYTES_MIN - 1, UNIT_BYTES_MIN, UNIT_BYTES_MIN + 1, UNIT_BYTES_MAX + 1])
      within(seeded(length));
  });

  it('fall at the maximum where the rule never applies', () => {
    assert.deepEqual(cutsOf(new Uint8Array(300_000)), [65_536, 131_072, 196_608, 262_144, 300_000]);
  });

  it('average about 16 KiB', () => {
    const mean = MIB / cutsOf(seeded(MIB)).length;
    assert.ok(mean > UNIT_BYTES_NORMAL * 0.8 && mean < UNIT_BYTES_NORMAL * 1.25, `${mean} bytes`);
  });

  it('do not depend on the size of the buffer', () => {
    const aWindow = fc.integer({ min: 1, max: 80_000 });
    const check = (bytes: Uint8Array, window: number) => {
      let start = 0;
      for (const end of cutsOf(bytes)) {
        const seen = Math.min(bytes.length, start + window);
        const length = cutLength(STANDARD, bytes, start, seen, seen === bytes.length);
        assert.equal(length === end - start || (length === 0 && window < UNIT_BYTES_MAX), true);
        start = end;
      }
    };
    fc.assert(fc.property(lumpy, aWindow, check), { numRuns: 50 });
  });

  it('fall at the maximum at the latest', () => {
    const bytes = new Uint8Array(UNIT_BYTES_MAX);
    assert.equal(cutLength(STANDARD, bytes, 0, UNIT_BYTES_MAX - 1, false), 0);
    assert.equal(cutLength(STANDARD, bytes, 0, UNIT_BYTES_MAX, false), UNIT_BYTES_MAX);
  });

  it('recover after an insertion at the start, middle or end', () => {
    const bytes = seeded(2 * MIB);
    const patch = seeded(1000, 'patch');
    for (const place of [0, 17, MIB, 2 * MIB - 1, 2 * MIB]) {
      const after = Buffer.concat([bytes.subarray(0, place), patch, bytes.subarray(place)]);
      assert.ok(newUnits(bytes, Uint8Array.from(after)) <= 4, `at ${place}`);
    }
  });

  it('recover after a removal at the start or in the middle', () => {
    const bytes = seeded(2 * MIB);
    for (const [place, length] of [
      [0, 1],
      [MIB, 1],
      [MIB, 100_000],
    ] as const) {
      const after = Buffer.concat([bytes.subarray(0, place), bytes.subarray(place + length)]);
      assert.ok(newUnits(bytes, Uint8Array.from(after)) <= 4, `${length} bytes at ${place}`);
    }
  });

  it('change only near a changed byte', () => {
    const bytes = seeded(MIB);
    const after = Uint8Array.from(bytes);
    after[MIB / 2] = (after[MIB / 2] ?? 0) ^ 1;
    const changed = newUnits(bytes, after);
    assert.ok(changed >= 1 && changed <= 4, `${changed} units`);
  });

  it('depend on the content, not on its offset', () => {
    const bytes = seeded(200_000);
    const moved = new Uint8Array(bytes.length + 12_345);
    moved.set(bytes, 12_345);
    for (const end of cutsOf(bytes)) {
      const start = cutsOf(bytes).findLast((other) => other < end) ?? 0;
      assert.equal(cutLength(STANDARD, moved, 12_345 + start, moved.length, true), end - start);
    }
  });

  it('differ between seeds', () => {
    assert.notDeepEqual(cutsOf(seeded(MIB), gearTable(1n)), GOLDEN_STANDARD);
    assert.notDeepEqual(gearTable(1n), gearTable(2n ** 63n));
  });
});

describe('a list piece', () => {
  it('ends after an entry with seven zero bits, between the limits', () => {
    for (let first = 0; first < 256; first++) {
      const suits = first === 0 || first === 0x80;
      assert.equal(pieceEnds(PIECE_ENTRIES_MIN - 1, first), false);
      assert.equal(pieceEnds(PIECE_ENTRIES_MIN, first), suits);
      assert.equal(pieceEnds(PIECE_ENTRIES_MAX - 1, first), suits);
      assert.equal(pieceEnds(PIECE_ENTRIES_MAX, first), true);
    }
  });

  it('respects the limits of the store format', () => {
    assert.deepEqual([PIECE_ENTRIES_MIN, PIECE_ENTRIES_MAX, LIST_ENTRIES_INLINE], [32, 512, 8]);
    assert.deepEqual([UNIT_BYTES_MIN, UNIT_BYTES_NORMAL, UNIT_BYTES_MAX], [6144, 16_384, 65_536]);
  });
});
