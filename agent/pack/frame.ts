import { crc32 } from 'node:zlib';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { checkCount, KNOWN_FIELDS } from '../../core/proto-limits.ts';
import { UNIT_ID_BYTES, unitIdInPlace } from '../../core/unit.ts';
import {
  Codec_Value,
  type FrameHeader,
  FrameHeaderSchema,
  type UnitKind_Value,
} from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { compressedCap, compressInto, decompressInto } from './zstd.ts';

/** Original bytes that make a frame of byte units. */
export const FRAME_RAW_BYTES = 4 * 1024 * 1024;
/** The same where there is much of it: the fast level looks back 512 KiB, so longer frames would only hold memory. */
export const FRAME_BULK_BYTES = 2 * 1024 * 1024;
/** No frame decodes to more. */
export const FRAME_DECODED_CAP = 64 * 1024 * 1024;
/** Bytes before the header of a frame. */
export const FRAME_PREFIX_BYTES = 16;

const MAGIC = 0x31464b4c;
const FRAME_VERSION = 1;
/** Most units of a frame, so that a header cannot ask for much memory. */
export const FRAME_UNITS_MAX = 0xffff;
const HEADER_BYTES_MAX = 4 << 20;
const STREAMS_MAX = 16;

/** The units of a frame before they are encoded: their bytes one after another. */
export interface FrameContent {
  readonly kind: UnitKind_Value;
  readonly ids: Uint8Array;
  readonly lengths: readonly number[];
  readonly bytes: Uint8Array;
  /** Keeps the bytes as they are, so that the frame's length does not depend on them. */
  readonly raw?: boolean;
  /** One of many frames: speed before size. */
  readonly bulk?: boolean;
}

/** Most bytes that a frame of `units` units and `rawBytes` bytes can take. */
export function frameCap(units: number, rawBytes: number): number {
  return FRAME_PREFIX_BYTES + 128 + units * (UNIT_ID_BYTES + 5) + compressedCap(rawBytes);
}

/** Encodes units as one frame into `out`, which has `frameCap` bytes at least. */
export function encodeFrame(out: Buffer, content: FrameContent): { length: number; codec: Codec_Value } {
  const header = (codec: Codec_Value, stored: number): Uint8Array =>
    toBinary(
      FrameHeaderSchema,
      create(FrameHeaderSchema, {
        version: FRAME_VERSION,
        kind: content.kind,
        decodedCap: content.bytes.length,
        streams: [{ codec, rawLength: content.bytes.length, storedLength: stored }],
        unitIds: content.ids,
        unitLengths: [...content.lengths],
      }),
    );
  // Zero values are left out, so this length holds for a stored length that is none.
  let bodyAt = FRAME_PREFIX_BYTES + header(Codec_Value.ZSTD, 1).length;
  let codec = Codec_Value.ZSTD;
  let stored =
    content.raw === true
      ? content.bytes.length
      : compressInto(out.subarray(bodyAt), content.bytes, { bulk: content.bulk === true });
  if (stored >= content.bytes.length) {
    codec = Codec_Value.RAW;
    stored = content.bytes.length;
    bodyAt = FRAME_PREFIX_BYTES + header(codec, stored).length;
    out.set(content.bytes, bodyAt);
  }
  const head = header(codec, stored);
  out.set(head, FRAME_PREFIX_BYTES);
  out.writeUInt32LE(MAGIC, 0);
  out.writeUInt32LE(head.length, 4);
  out.writeUInt32LE(stored, 8);
  const length = FRAME_PREFIX_BYTES + head.length + stored;
  out.writeUInt32LE(checksum(out.subarray(0, length)), 12);
  return { length, codec };
}

/** Over what says how to read the frame; the units in it are proven by their ids. */
function checksum(frame: Buffer): number {
  const headEnd = FRAME_PREFIX_BYTES + frame.readUInt32LE(4);
  return crc32(frame.subarray(FRAME_PREFIX_BYTES, headEnd), crc32(frame.subarray(0, 12)));
}

/** A frame whose checksum and header have been read; its streams are still encoded. */
export interface ParsedFrame {
  readonly header: FrameHeader;
  readonly body: Buffer;
  readonly decodedLength: number;
}

function damaged(state: string): LightkeeperError {
  return new LightkeeperError('DAMAGED', `Cannot read a frame: ${state}`, {
    hint: 'run lightkeeper verify, then lightkeeper repair',
  });
}

/** Reads the frame that `bytes` begins with and ends with; allocates nothing that the bytes ask for. */
export function parseFrame(bytes: Buffer): ParsedFrame {
  if (bytes.length < FRAME_PREFIX_BYTES) throw damaged('it is cut');
  if (bytes.readUInt32LE(0) !== MAGIC) throw damaged('it does not begin as one');
  const headLength = bytes.readUInt32LE(4);
  const bodyLength = bytes.readUInt32LE(8);
  if (headLength > HEADER_BYTES_MAX || FRAME_PREFIX_BYTES + headLength + bodyLength !== bytes.length) {
    throw damaged('its lengths do not add up');
  }
  if (bytes.readUInt32LE(12) !== checksum(bytes)) throw damaged('its checksum does not hold');
  const bodyAt = FRAME_PREFIX_BYTES + headLength;
  let header: FrameHeader;
  try {
    const raw = bytes.subarray(FRAME_PREFIX_BYTES, bodyAt);
    checkCount(raw, FrameHeaderSchema.field.streams.number, STREAMS_MAX);
    header = fromBinary(FrameHeaderSchema, raw, KNOWN_FIELDS);
  } catch (error) {
    throw new LightkeeperError('DAMAGED', 'Cannot read a frame: its header does not parse', { cause: error });
  }
  checkHeader(header, bodyLength);
  return { header, body: bytes.subarray(bodyAt), decodedLength: header.decodedCap };
}

function checkHeader(header: FrameHeader, bodyLength: number): void {
  const hint = 'use the version of Lightkeeper that wrote this store, or a newer one';
  if (header.version !== FRAME_VERSION) {
    throw new LightkeeperError('TOO_NEW', `Cannot read a frame: it has version ${header.version}`, { hint });
  }
  if (header.requiredFeatures !== 0) {
    const bits = header.requiredFeatures.toString(16);
    throw new LightkeeperError('TOO_NEW', `Cannot read a frame: it needs features 0x${bits}`, { hint });
  }
  const [stream, ...others] = header.streams;
  if (stream === undefined || others.length > 0) throw damaged('it does not have one stream');
  if (stream.codec !== Codec_Value.RAW && stream.codec !== Codec_Value.ZSTD) {
    throw new LightkeeperError('TOO_NEW', `Cannot read a frame: it needs codec ${stream.codec}`, { hint });
  }
  const units = header.unitLengths.length;
  if (units === 0 || units > FRAME_UNITS_MAX || header.unitIds.length !== units * UNIT_ID_BYTES) {
    throw damaged('its ids do not match its lengths');
  }
  let sum = 0;
  for (const length of header.unitLengths) sum += length;
  if (sum !== header.decodedCap || sum !== stream.rawLength || sum > FRAME_DECODED_CAP) {
    throw damaged('its unit lengths do not add up');
  }
  if (stream.storedLength !== bodyLength) throw damaged('its streams do not fill it');
  if (stream.codec === Codec_Value.RAW && stream.storedLength !== sum) throw damaged('its raw stream is cut');
}

/** Decodes a parsed frame into `out`, which has `decodedLength` bytes exactly. Units are not hashed here. */
export function decodeFrame(frame: ParsedFrame, out: Uint8Array): void {
  const [stream] = frame.header.streams;
  if (stream?.codec === Codec_Value.ZSTD) decompressInto(out, frame.body);
  else out.set(frame.body);
}

/** Bytes that must be free before a decoded frame whose units are to be hashed. */
export const DECODE_HEADROOM_BYTES = 8;

/** A buffer for a frame's decoded bytes, and the room before them that hashing needs. */
export function decodeRoom(length: number): { room: Buffer; decoded: Buffer } {
  const room = Buffer.allocUnsafe(DECODE_HEADROOM_BYTES + length);
  return { room, decoded: room.subarray(DECODE_HEADROOM_BYTES) };
}

/**
 * Checks that every unit of a decoded frame hashes to its id; answers the places of those that do not. The
 * frame was decoded to `room` from `DECODE_HEADROOM_BYTES` on.
 */
export function unitsThatDiffer({ header }: ParsedFrame, room: Buffer): number[] {
  const wrong: number[] = [];
  const ids = Buffer.from(header.unitIds.buffer, header.unitIds.byteOffset, header.unitIds.byteLength);
  let at = DECODE_HEADROOM_BYTES;
  for (const [i, length] of header.unitLengths.entries()) {
    const id = unitIdInPlace(header.kind, room, at, length);
    if (id.compare(ids, i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES) !== 0) wrong.push(i);
    at += length;
  }
  return wrong;
}

/**
 * Proves a frame that was just encoded: decodes it into `room`, behind the headroom, and hashes every unit.
 * Nothing may count as stored before.
 */
export function proveFrame(frame: Buffer, room: Buffer): void {
  const parsed = parseFrame(frame);
  decodeFrame(parsed, room.subarray(DECODE_HEADROOM_BYTES, DECODE_HEADROOM_BYTES + parsed.decodedLength));
  if (unitsThatDiffer(parsed, room).length > 0) {
    throw new LightkeeperError('INTERNAL', 'Cannot store a frame: it does not decode to what was captured', {
      hint: 'nothing was stored; check the memory of this machine',
    });
  }
}

/** A frame whose units have been decoded and hashed. */
export interface DecodedFrame {
  readonly parsed: ParsedFrame;
  readonly bytes: Buffer;
  /** Where each unit begins, and where the last one ends. */
  readonly starts: readonly number[];
}

/** Decodes a frame and hashes every unit of it; DAMAGED if one is not what its id says. The room is of that length. */
export function decodeWhole(
  bytes: Buffer,
  roomFor: (bytes: number) => Buffer = Buffer.allocUnsafe,
): DecodedFrame {
  const parsed = parseFrame(bytes);
  const room = roomFor(DECODE_HEADROOM_BYTES + parsed.decodedLength);
  const decoded = room.subarray(DECODE_HEADROOM_BYTES);
  decodeFrame(parsed, decoded);
  if (unitsThatDiffer(parsed, room).length > 0)
    throw new LightkeeperError('DAMAGED', 'Cannot read a frame: a unit in it does not hash to its id');
  const starts = [0];
  let at = 0;
  for (const length of parsed.header.unitLengths) {
    at += length;
    starts.push(at);
  }
  return { parsed, bytes: decoded, starts };
}

/** What a frame holds in memory beside its bytes. */
const FRAME_OVERHEAD_BYTES = 8 * 1024;

/** Decoded frames that the next reader may want: the last ones used, up to so many bytes. */
export class FrameCache {
  readonly #limitBytes: number;
  readonly #frames = new Map<string, DecodedFrame>();
  #bytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get(key: string): DecodedFrame | undefined {
    const known = this.#frames.get(key);
    if (known === undefined) return undefined;
    this.#frames.delete(key);
    this.#frames.set(key, known);
    return known;
  }

  put(key: string, frame: DecodedFrame): void {
    this.#frames.set(key, frame);
    this.#bytes += heldBytes(frame);
    for (const [old, oldFrame] of this.#frames) {
      if (this.#bytes <= this.#limitBytes || old === key) break;
      this.#frames.delete(old);
      this.#bytes -= heldBytes(oldFrame);
    }
  }

  clear(): void {
    this.#frames.clear();
    this.#bytes = 0;
  }
}

/** Small frames cost more than their bytes. */
function heldBytes({ parsed, bytes }: DecodedFrame): number {
  return FRAME_OVERHEAD_BYTES + bytes.length + parsed.body.length + parsed.header.unitIds.length;
}
