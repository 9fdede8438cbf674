import { LightkeeperError } from '../../core/errors.ts';
import type { FrameInfo, PackKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  PACK_HEADER_BYTES,
  PACK_TRAILER_BYTES,
  parsePackFooter,
  parsePackHeader,
  parsePackTrailer,
} from './format.ts';
import { allocateDecodeBuffer, decodeFrame, findDamagedUnits, parseFrame } from './frame.ts';
import type { PackStore } from './pack-store.ts';

/** Reads and verifies the header and the footer of a pack of `size` bytes. Returns its kind, store and frames. */
export async function readPackTable(
  packs: PackStore,
  packId: string,
  size: number,
): Promise<{ kind: PackKind_Value; storeId: Buffer; frames: FrameInfo[] }> {
  if (size < PACK_HEADER_BYTES + PACK_TRAILER_BYTES) {
    throw new LightkeeperError('DAMAGED', `Cannot read pack "${packId}": it is truncated`);
  }
  const header = parsePackHeader(await packs.get(packId, 0, PACK_HEADER_BYTES));
  const end = await packs.get(packId, size - PACK_TRAILER_BYTES, PACK_TRAILER_BYTES);
  const trailer = parsePackTrailer(end, size);
  const footer = await packs.get(packId, trailer.footerOffset, trailer.footerLength);
  return { ...header, frames: parsePackFooter(footer, trailer) };
}

/** Reads the units of one frame. DAMAGED if one does not hash to its id. */
export async function readFrameUnits(packs: PackStore, packId: string, info: FrameInfo): Promise<Buffer[]> {
  const parsed = parseFrame(await packs.get(packId, info.offset, info.length));
  const { buffer, decoded } = allocateDecodeBuffer(parsed.decodedLength);
  decodeFrame(parsed, decoded);
  if (parsed.header.kind !== info.kind || findDamagedUnits(parsed, buffer).length > 0) {
    throw new LightkeeperError(
      'DAMAGED',
      `Cannot read pack "${packId}": a unit in it does not hash to its id`,
    );
  }
  const units: Buffer[] = [];
  let at = 0;
  for (const length of parsed.header.unitLengths) {
    units.push(decoded.subarray(at, at + length));
    at += length;
  }
  return units;
}
