import { normalise, systemCode } from '../../core/errors.ts';
import { hex, sameBytes, UNIT_ID_BYTES } from '../../core/unit.ts';
import type { FrameInfo } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  PACK_HEADER_BYTES,
  PACK_TRAILER_BYTES,
  packHash,
  parsePackFooter,
  parsePackHeader,
  parsePackTrailer,
} from './format.ts';
import { allocateDecodeBuffer, decodeFrame, findDamagedUnits, parseFrame } from './frame.ts';
import { PackBytes } from './pack-bytes.ts';
import type { PackReference } from './pack-store.ts';

const STEP_BYTES = 1024 * 1024;

/** The result of a check of every byte of one pack. */
export type PackReport =
  | { readonly state: 'whole'; readonly bytes: number; readonly units: number }
  /** The file does not exist. */
  | { readonly state: 'missing'; readonly problem: string }
  /** The hash holds, but this version cannot read the content. */
  | { readonly state: 'unsupported'; readonly bytes: number; readonly problem: string }
  | {
      readonly state: 'damaged';
      readonly bytes: number;
      readonly problem: string;
      /** Ids of the units that are intact. */
      readonly good: readonly string[];
    };

/** Checks every byte of a pack: its hash first, then its content. */
export function verifyPack(reference: PackReference, packId: string): PackReport {
  let pack: PackBytes;
  try {
    pack = PackBytes.open(reference);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return { state: 'missing', problem: 'it is missing' };
    return { state: 'damaged', bytes: 0, problem: normalise(error).message, good: [] };
  }
  try {
    if (hashOf(pack) !== packId) return reportDamage(pack, 'its bytes do not hash to its name');
    try {
      const frames = readTable(pack);
      const units = frames.reduce((sum, frame) => sum + proveUnits(pack, frame), 0);
      return { state: 'whole', bytes: pack.size, units };
    } catch (error) {
      const { code, message } = normalise(error);
      if (code === 'TOO_NEW' || code === 'TOO_OLD')
        return { state: 'unsupported', bytes: pack.size, problem: message };
      return reportDamage(pack, message);
    }
  } catch (error) {
    // A disk that does not return the bytes is damage to every snapshot that needs them.
    return { state: 'damaged', bytes: 0, problem: normalise(error).message, good: [] };
  } finally {
    pack.close();
  }
}

function hashOf(pack: PackBytes): string {
  const hash = packHash();
  const step = Buffer.allocUnsafe(STEP_BYTES);
  for (let at = 0; at < pack.size; ) {
    const read = pack.readInto(step, at);
    if (read === 0) break;
    hash.update(step.subarray(0, read));
    at += read;
  }
  return hash.digest('hex');
}

function readTable(pack: PackBytes): FrameInfo[] {
  parsePackHeader(pack.readAt(0, PACK_HEADER_BYTES));
  const trailer = parsePackTrailer(
    pack.readAt(Math.max(0, pack.size - PACK_TRAILER_BYTES), PACK_TRAILER_BYTES),
    pack.size,
  );
  return parsePackFooter(pack.readAt(trailer.footerOffset, trailer.footerLength), trailer);
}

/** Returns the number of units of a frame. Throws if one does not hash to its id. */
function proveUnits(pack: PackBytes, info: FrameInfo): number {
  const frame = parseFrame(pack.readAt(info.offset, info.length));
  const { buffer, decoded } = allocateDecodeBuffer(frame.decodedLength);
  decodeFrame(frame, decoded);
  const wrong = findDamagedUnits(frame, buffer);
  if (wrong.length > 0 || !sameBytes(frame.header.unitIds, info.unitIds)) {
    throw new Error(`${wrong.length} units of the frame at ${info.offset} do not hash to their ids`);
  }
  return frame.header.unitLengths.length;
}

/** Returns the report of a damaged pack, with its intact units. */
function reportDamage(pack: PackBytes, problem: string): PackReport {
  const good: string[] = [];
  for (const { ids } of intactFrames(pack)) good.push(...ids);
  return { state: 'damaged', bytes: pack.size, problem, good };
}

/** The intact units of one frame of a damaged pack. */
export interface IntactFrame {
  readonly kind: number;
  readonly ids: string[];
  readonly units: Buffer[];
}

/** Yields the readable frames of a damaged pack, each with its intact units. */
export function* intactFrames(pack: PackBytes): Generator<IntactFrame> {
  for (const { offset, length } of frameExtents(pack)) {
    try {
      const frame = parseFrame(pack.readAt(offset, length));
      const { buffer, decoded } = allocateDecodeBuffer(frame.decodedLength);
      decodeFrame(frame, decoded);
      const wrong = new Set(findDamagedUnits(frame, buffer));
      const ids: string[] = [];
      const units: Buffer[] = [];
      let at = 0;
      for (const [i, unitLength] of frame.header.unitLengths.entries()) {
        if (!wrong.has(i)) {
          ids.push(hex(frame.header.unitIds.subarray(i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES)));
          units.push(decoded.subarray(at, at + unitLength));
        }
        at += unitLength;
      }
      yield { kind: frame.header.kind, ids, units };
    } catch (error) {
      // This frame is damaged; others may be intact.
      if (normalise(error).code === 'INTERNAL') throw error;
    }
  }
}

/** Yields the probable extents of the frames: from the footer, or else from the prefixes of the frames. */
function* frameExtents(pack: PackBytes): Generator<{ offset: number; length: number }> {
  try {
    const trailer = parsePackTrailer(
      pack.readAt(Math.max(0, pack.size - PACK_TRAILER_BYTES), PACK_TRAILER_BYTES),
      pack.size,
    );
    const frames = parsePackFooter(pack.readAt(trailer.footerOffset, trailer.footerLength), trailer);
    yield* frames;
    return;
  } catch (error) {
    if (normalise(error).code === 'INTERNAL') throw error;
  }
  let offset = PACK_HEADER_BYTES;
  while (offset + 16 <= pack.size) {
    const prefix = pack.readAt(offset, 16);
    const length = 16 + prefix.readUInt32LE(4) + prefix.readUInt32LE(8);
    if (prefix.toString('latin1', 0, 4) !== 'LKF1' || offset + length > pack.size) {
      offset = nextMagic(pack, offset + 1);
      continue;
    }
    yield { offset, length };
    // The lengths themselves may be damaged: the next frame may begin before the end that they give.
    const follows = pack.readAt(offset + length, 4).toString('latin1');
    const ok = follows === 'LKF1' || follows.length < 4 || follows[0] === '\0' || follows[0] === '\x01';
    offset = ok ? offset + length : nextMagic(pack, offset + 1);
  }
}

function nextMagic(pack: PackBytes, from: number): number {
  const magic = Buffer.from('LKF1');
  for (let at = from; at < pack.size; at += STEP_BYTES - 3) {
    const found = pack.readAt(at, Math.min(STEP_BYTES, pack.size - at)).indexOf(magic);
    if (found >= 0) return at + found;
  }
  return pack.size;
}
