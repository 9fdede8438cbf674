import { createHash } from 'node:crypto';
import type { UnitKind_Value } from '../gen/lightkeeper/v1/types_pb.ts';

/** Bytes of a unit id. */
export const UNIT_ID_BYTES = 32;

const PREFIX_BYTES = 6;

/**
 * Id of a unit with one length: SHA-256(kind, 1, length, bytes). The bytes are the original ones, never what a
 * codec made of them.
 */
export function unitId(kind: UnitKind_Value, bytes: Uint8Array): Buffer {
  const prefix = Buffer.allocUnsafe(PREFIX_BYTES);
  prefix[0] = kind;
  prefix[1] = 1;
  prefix.writeUInt32LE(bytes.length, 2);
  return createHash('sha256').update(prefix).update(bytes).digest();
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
