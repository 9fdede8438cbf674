import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  hex,
  sameBytes,
  sha256,
  UNIT_ID_BYTES,
  UNIT_PREFIX_BYTES,
  unitId,
  unitIdInPlace,
} from '../../core/unit.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';

const { BYTES, LIST, FILES, MANIFEST } = UnitKind_Value;
const kinds = fc.constantFrom(BYTES, LIST, FILES, MANIFEST);

describe('a unit id', () => {
  // printf '\x01\x01\x03\x00\x00\x00abc' | sha256sum
  it('never changes between versions', () => {
    const golden: [UnitKind_Value, string, string][] = [
      [BYTES, '', '1a71797cab8ed23c72233b7706b166a33049e4e87dfbc55b9e252f9c1843eca6'],
      [BYTES, 'abc', 'd6898d962d377525ea1ddbec3d9c67b5bc059f899d10efbfd2215c4c2df234ab'],
      [LIST, 'abc', 'fa9549bbc2552b695c4a4ce9f71a42aa237f068a9c3e824a9f0e552d6e22aea3'],
    ];
    for (const [kind, text, id] of golden) assert.equal(hex(unitId(kind, Buffer.from(text))), id);
  });

  it('is the SHA-256 of kind, number of lengths, length and bytes', () => {
    const check = (kind: UnitKind_Value, bytes: Uint8Array) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(bytes.length);
      const worded = Buffer.concat([Buffer.from([kind, 1]), length, bytes]);
      const id = unitId(kind, bytes);
      assert.equal(id.length, UNIT_ID_BYTES);
      assert.equal(hex(id), createHash('sha256').update(worded).digest('hex'));
    };
    fc.assert(fc.property(kinds, fc.uint8Array({ maxLength: 1000 }), check));
  });

  it('differs for the same bytes of two kinds', () => {
    const bytes = Buffer.from('the same');
    assert.equal(new Set([BYTES, LIST, FILES, MANIFEST].map((kind) => hex(unitId(kind, bytes)))).size, 4);
  });

  it('is the same when made in place, and leaves other bytes alone', () => {
    const check = (kind: UnitKind_Value, before: Uint8Array, bytes: Uint8Array, after: Uint8Array) => {
      const room = Buffer.concat([before, bytes, after]);
      const copy = Buffer.from(room);
      const id = unitIdInPlace(kind, room, before.length, bytes.length);
      assert.deepEqual(id, unitId(kind, bytes));
      assert.deepEqual(room, copy);
    };
    const room = fc.uint8Array({ minLength: UNIT_PREFIX_BYTES, maxLength: 20 });
    fc.assert(fc.property(kinds, room, fc.uint8Array({ maxLength: 1000 }), room, check));
  });
});

describe('hashes and hex', () => {
  it('are the standard ones', () => {
    assert.equal(
      hex(sha256(Buffer.from('abc'))),
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
    assert.equal(hex(new Uint8Array([0, 10, 255])), '000aff');
    assert.equal(hex(new Uint8Array([1, 2, 3, 4]).subarray(1, 3)), '0203');
  });

  it('compare bytes in any kind of array', () => {
    assert.equal(sameBytes(Buffer.from('ab'), new Uint8Array([97, 98])), true);
    assert.equal(sameBytes(Buffer.from('ab'), Buffer.from('a')), false);
    assert.equal(sameBytes(new Uint8Array(), Buffer.alloc(0)), true);
  });
});
