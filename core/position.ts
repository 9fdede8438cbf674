import { create } from '@bufbuild/protobuf';
import {
  type Manifest,
  type PositionEntry,
  PositionEntrySchema,
} from '../gen/lightkeeper/store/v1/manifest_pb.ts';
import { type Epoch, type Position, PositionSchema } from '../gen/lightkeeper/v1/types_pb.ts';
import { must } from './assert.ts';
import { hex, sameBytes } from './unit.ts';

/** Bytes of a mint id. */
export const MINT_ID_BYTES = 16;

/** Returns the epoch of a manifest or position that was parsed, which always has one. */
export function epochOf({ epoch }: { readonly epoch?: Epoch | undefined }): Epoch {
  return must(epoch, 'an epoch');
}

/** Returns the entry of the position log for a manifest. */
export function positionEntry(manifest: Manifest, digest: Uint8Array): PositionEntry {
  const { graphId, sequence, parentDigest, storeId } = manifest;
  const entry = { graphId, epoch: epochOf(manifest), sequence, digest, parentDigest, storeId };
  return create(PositionEntrySchema, entry);
}

/** Returns the position of a manifest as the API shows it. */
export function positionView(manifest: Manifest, digest: Uint8Array): Position {
  const { number, mintId } = epochOf(manifest);
  const { sequence } = manifest;
  return create(PositionSchema, { epoch: number, mintId: hex(mintId), sequence, digest: hex(digest) });
}

/** Reports whether a position came from another store than `storeId`. */
// Entries of earlier builds name no store: they were captured here.
export function isForeign(entry: PositionEntry, storeId: Uint8Array): boolean {
  return entry.storeId.length > 0 && !sameBytes(entry.storeId, storeId);
}

/** Reports whether a position lies after `head` in the history of their graph. */
export function isBeyond(entry: PositionEntry, head: PositionEntry): boolean {
  const [one, other] = [epochOf(entry).number, epochOf(head).number];
  return one > other || (one === other && entry.sequence > head.sequence);
}
