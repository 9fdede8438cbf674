import { createHash, hash } from 'node:crypto';
import type { UnitKind_Value } from '../gen/lightkeeper/store/v1/pack_pb.ts';

/** Bytes of a unit id. */
export const UNIT_ID_BYTES = 32;

/** Bytes before a unit that `unitIdInPlace` overwrites and restores. */
export const UNIT_PREFIX_BYTES = 6;

/** Returns the id of a unit: SHA-256(kind, 1, length, bytes). */
// The bytes are the original ones, never what a codec made of them.
export function unitId(kind: UnitKind_Value, bytes: Uint8Array): Buffer {
  const prefix = Buffer.allocUnsafe(UNIT_PREFIX_BYTES);
  prefix[0] = kind;
  prefix[1] = 1;
  prefix.writeUInt32LE(bytes.length, 2);
  return createHash('sha256').update(prefix).update(bytes).digest();
}

/** Returns the id of the `length` bytes at `start` of a buffer. Equal to `unitId` of them. */
// The six bytes before them hold the prefix for a while, so that one call hashes all: a tenth faster than two
// updates.
export function unitIdInPlace(kind: UnitKind_Value, buffer: Buffer, start: number, length: number): Buffer {
  const at = start - UNIT_PREFIX_BYTES;
  const first = buffer.readUInt32LE(at);
  const second = buffer.readUInt16LE(at + 4);
  buffer[at] = kind;
  buffer[at + 1] = 1;
  buffer.writeUInt32LE(length, at + 2);
  const id = hash('sha256', buffer.subarray(at, start + length), 'buffer');
  buffer.writeUInt32LE(first, at);
  buffer.writeUInt16LE(second, at + 4);
  return id;
}

/** Returns the SHA-256 of stored bytes: digests of manifests, names of packs. */
export function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** Returns the bytes as lower-case hex digits. */
export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** Reports whether two byte strings are equal. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Splits concatenated unit ids, whose length is a multiple of 32 bytes. The parts are views. */
export function splitUnitIds(unitIds: Uint8Array): Buffer[] {
  const all = Buffer.from(unitIds.buffer, unitIds.byteOffset, unitIds.length);
  return Array.from({ length: all.length / UNIT_ID_BYTES }, (_, i) =>
    all.subarray(i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES),
  );
}
