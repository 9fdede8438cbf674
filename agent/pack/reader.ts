import { LightkeeperError } from '../../core/errors.ts';
import type { FrameInfo, PackKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  PACK_HEADER_BYTES,
  PACK_TRAILER_BYTES,
  parsePackFooter,
  parsePackHeader,
  parsePackTrailer,
} from './format.ts';
import { decodeFrame, decodeRoom, parseFrame, unitsThatDiffer } from './frame.ts';
import type { PackStore } from './pack-store.ts';

/** Reads what a pack says of itself, checksums checked: its kind and its frames. */
export async function readPackTable(
  packs: PackStore,
  packId: string,
  size: number,
): Promise<{ kind: PackKind_Value; storeId: Buffer; frames: FrameInfo[] }> {
  if (size < PACK_HEADER_BYTES + PACK_TRAILER_BYTES) {
    throw new LightkeeperError('DAMAGED', `Cannot read pack "${packId}": it is cut`);
  }
  const header = parsePackHeader(await packs.get(packId, 0, PACK_HEADER_BYTES));
  const end = await packs.get(packId, size - PACK_TRAILER_BYTES, PACK_TRAILER_BYTES);
  const trailer = parsePackTrailer(end, size);
  const footer = await packs.get(packId, trailer.footerOffset, trailer.footerLength);
  return { ...header, frames: parsePackFooter(footer, trailer) };
}

/** The units of one frame, each hashed. */
export async function readFrameUnits(packs: PackStore, packId: string, info: FrameInfo): Promise<Buffer[]> {
  const parsed = parseFrame(await packs.get(packId, info.offset, info.length));
  const { room, decoded } = decodeRoom(parsed.decodedLength);
  decodeFrame(parsed, decoded);
  if (parsed.header.kind !== info.kind || unitsThatDiffer(parsed, room).length > 0) {
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
