import { capturedMs } from '../../../core/manifest.ts';
import { epochOf } from '../../../core/position.ts';
import type { Manifest } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';

/** Returns a key of the index: its letter, then its parts. */
export function key(letter: string, ...parts: (Uint8Array | string)[]): Buffer {
  return Buffer.concat([
    Buffer.from(letter),
    ...parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)),
  ]);
}

/** Encodes a number as four bytes that sort like the numbers. */
export function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value);
  return out;
}

/** Encodes a number as eight bytes that sort like the numbers. */
export function u64(value: bigint): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(value);
  return out;
}

/** Returns the first key after all keys that begin with `prefix`. */
export function after(prefix: Buffer): Buffer {
  const end = Buffer.from(prefix);
  for (let i = end.length - 1; i >= 0; i--) {
    if ((end[i] as number) < 0xff) {
      end[i] = (end[i] as number) + 1;
      return end.subarray(0, i + 1);
    }
  }
  return Buffer.from([0xff]);
}

/** Returns the key of a snapshot's record. Keys sort by graph, then by position, or capture time for side snapshots. */
export function recordKey(manifest: Manifest, digest: Uint8Array): Buffer {
  const { graphId, sequence } = manifest;
  if (sequence === 0n) {
    const at = BigInt(Math.max(0, capturedMs(manifest)));
    return key('x', graphId, '\0', u64(at), digest);
  }
  return key('s', graphId, '\0', u64(epochOf(manifest).number), u64(sequence), digest);
}

/** Returns the graph of a record's key. */
export function graphOfKey(recordAt: Buffer): string {
  return recordAt.subarray(1, recordAt.indexOf(0)).toString();
}
