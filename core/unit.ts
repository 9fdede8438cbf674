import { createHash, hash } from 'node:crypto';
import type { UnitKind_Value } from '../gen/lightkeeper/store/v1/pack_pb.ts';

/** Bytes of a unit id. */
export const UNIT_ID_BYTES = 32;

/** Bytes before a unit that `unitIdInPlace` borrows. */
export const UNIT_PREFIX_BYTES = 6;

/**
 * Id of a unit with one length: SHA-256(kind, 1, length, bytes). The bytes are the original ones, never what a
 * codec made of them.
 */
export function unitId(kind: UnitKind_Value, bytes: Uint8Array): Buffer {
  const prefix = Buffer.allocUnsafe(UNIT_PREFIX_BYTES);
  prefix[0] = kind;
  prefix[1] = 1;
  prefix.writeUInt32LE(bytes.length, 2);
  return createHash('sha256').update(prefix).update(bytes).digest();
}

/**
 * As `unitId`, for the `length` bytes at `start` of a buffer. The six bytes before them are borrowed for the
 * prefix and put back, so that one call hashes all: a tenth faster than two updates.
 */
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

/** SHA-256 of bytes as they are stored: digests of manifests, names of packs. */
export function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** Lower-case hex digits. */
export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** Whether two byte strings are equal. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
