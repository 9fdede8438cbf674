import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
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
import { decodeFrame, decodeRoom, parseFrame, unitsThatDiffer } from './frame.ts';

const STEP_BYTES = 1024 * 1024;

/** What reading every byte of one pack showed. */
export interface PackReport {
  readonly bytes: number;
  readonly units: number;
  /** Undefined if all holds. */
  readonly problem: string | undefined;
  /** The hash holds, but this version cannot read what is inside. */
  readonly tooNew: boolean;
  /** The file is not there. */
  readonly missing: boolean;
  /** Ids of the units that still decode to what they were; only filled for a damaged pack. */
  readonly good: string[];
}

/** Reads a pack from first byte to last: its hash first, and only then what is in it. */
export function verifyPack(path: string, packId: string): PackReport {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    const missing = systemCode(error) === 'ENOENT';
    const problem = missing ? 'it is missing' : normalise(error).message;
    return { bytes: 0, units: 0, problem, missing, tooNew: false, good: [] };
  }
  try {
    const size = Number(fstatSync(fd, { bigint: true }).size);
    const hash = hashFile(fd, size);
    if (hash !== packId) return salvage(fd, size, 'its bytes do not hash to its name');
    try {
      const frames = readTable(fd, size);
      const units = frames.reduce((sum, frame) => sum + proveUnits(fd, frame), 0);
      return { bytes: size, units, problem: undefined, missing: false, tooNew: false, good: [] };
    } catch (error) {
      const { code, message } = normalise(error);
      if (code === 'TOO_NEW')
        return { bytes: size, units: 0, problem: message, missing: false, tooNew: true, good: [] };
      return salvage(fd, size, message);
    }
  } catch (error) {
    // The disk refuses to give the bytes: that is damage to whoever needs them.
    return { bytes: 0, units: 0, problem: normalise(error).message, missing: false, tooNew: false, good: [] };
  } finally {
    closeSync(fd);
  }
}

function readAt(fd: number, position: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const read = readSync(fd, bytes, done, length - done, position + done);
    if (read === 0) break;
    done += read;
  }
  return bytes.subarray(0, done);
}

function hashFile(fd: number, size: number): string {
  const hash = packHash();
  const step = Buffer.allocUnsafe(STEP_BYTES);
  for (let at = 0; at < size; ) {
    const read = readSync(fd, step, 0, STEP_BYTES, at);
    if (read === 0) break;
    hash.update(step.subarray(0, read));
    at += read;
  }
  return hash.digest('hex');
}

function readTable(fd: number, size: number): FrameInfo[] {
  parsePackHeader(readAt(fd, 0, PACK_HEADER_BYTES));
  const trailer = parsePackTrailer(
    readAt(fd, Math.max(0, size - PACK_TRAILER_BYTES), PACK_TRAILER_BYTES),
    size,
  );
  return parsePackFooter(readAt(fd, trailer.footerOffset, trailer.footerLength), trailer);
}

/** Answers how many units a frame has; throws if one of them is not what its id says. */
function proveUnits(fd: number, info: FrameInfo): number {
  const frame = parseFrame(readAt(fd, info.offset, info.length));
  const { room, decoded } = decodeRoom(frame.decodedLength);
  decodeFrame(frame, decoded);
  const wrong = unitsThatDiffer(frame, room);
  if (wrong.length > 0 || !sameBytes(frame.header.unitIds, info.unitIds)) {
    throw new Error(`${wrong.length} units of the frame at ${info.offset} do not hash to their ids`);
  }
  return frame.header.unitLengths.length;
}

/** Finds what is still good in a damaged pack: by its table if that reads, else by walking the frames. */
function salvage(fd: number, size: number, problem: string): PackReport {
  const good: string[] = [];
  for (const { ids } of goodFrames(fd, size)) good.push(...ids);
  return { bytes: size, units: good.length, problem, missing: false, tooNew: false, good };
}

/** A unit that was read out of a damaged pack and hashes to its id. */
export interface GoodFrame {
  readonly kind: number;
  readonly ids: string[];
  readonly units: Buffer[];
}

/** Every frame of a damaged pack that still reads, with those of its units that hash to their ids. */
export function* goodFrames(fd: number, size: number): Generator<GoodFrame> {
  for (const { offset, length } of frameExtents(fd, size)) {
    try {
      const frame = parseFrame(readAt(fd, offset, length));
      const { room, decoded } = decodeRoom(frame.decodedLength);
      decodeFrame(frame, decoded);
      const wrong = new Set(unitsThatDiffer(frame, room));
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
      // This frame is the damaged one, or one of them; the others are looked at all the same.
      if (normalise(error).code === 'INTERNAL') throw error;
    }
  }
}

/** Where frames seem to be: from the footer, or from the lengths that they begin with. */
function* frameExtents(fd: number, size: number): Generator<{ offset: number; length: number }> {
  try {
    const trailer = parsePackTrailer(
      readAt(fd, Math.max(0, size - PACK_TRAILER_BYTES), PACK_TRAILER_BYTES),
      size,
    );
    const frames = parsePackFooter(readAt(fd, trailer.footerOffset, trailer.footerLength), trailer);
    yield* frames;
    return;
  } catch (error) {
    if (normalise(error).code === 'INTERNAL') throw error;
  }
  let offset = PACK_HEADER_BYTES;
  while (offset + 16 <= size) {
    const prefix = readAt(fd, offset, 16);
    const length = 16 + prefix.readUInt32LE(4) + prefix.readUInt32LE(8);
    if (prefix.toString('latin1', 0, 4) !== 'LKF1' || offset + length > size) {
      offset = nextMagic(fd, offset + 1, size);
      continue;
    }
    yield { offset, length };
    // The lengths may be what is damaged: a frame may begin before the end that they claim.
    const follows = readAt(fd, offset + length, 4).toString('latin1');
    const ok = follows === 'LKF1' || follows.length < 4 || follows[0] === '\0' || follows[0] === '\x01';
    offset = ok ? offset + length : nextMagic(fd, offset + 1, size);
  }
}

function nextMagic(fd: number, from: number, size: number): number {
  const magic = Buffer.from('LKF1');
  for (let at = from; at < size; at += STEP_BYTES - 3) {
    const found = readAt(fd, at, Math.min(STEP_BYTES, size - at)).indexOf(magic);
    if (found >= 0) return at + found;
  }
  return size;
}
