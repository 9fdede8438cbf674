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

/** Original bytes at which a frame of byte units is closed. */
export const FRAME_RAW_BYTES = 4 * 1024 * 1024;
/** Original bytes at which a frame of a large capture is closed. */
// The fast level has a window of 512 KiB, so longer frames would only hold memory.
export const FRAME_BULK_BYTES = 2 * 1024 * 1024;
/** Most bytes that a frame may decode to. */
export const FRAME_DECODED_CAP = 64 * 1024 * 1024;
/** Bytes before the header of a frame. */
export const FRAME_PREFIX_BYTES = 16;

const MAGIC = 0x31464b4c;
const FRAME_VERSION = 1;
/** Most units of a frame. */
// It bounds the memory that a damaged header can ask for.
export const FRAME_UNITS_MAX = 0xffff;
const HEADER_BYTES_MAX = 4 << 20;
const STREAMS_MAX = 16;

/** The units of a frame before they are encoded. */
export interface FrameContent {
  readonly kind: UnitKind_Value;
  /** Ids of the units, concatenated. */
  readonly ids: Uint8Array;
  /** Length of each unit in bytes. */
  readonly lengths: readonly number[];
  /** Bytes of the units, concatenated. */
  readonly bytes: Uint8Array;
  /** Stores the bytes uncompressed, so that the length of the frame does not depend on them. */
  readonly raw?: boolean;
  /** Compresses for speed rather than size. */
  readonly bulk?: boolean;
}

/** Returns the most bytes that a frame of `units` units and `rawBytes` original bytes can take. */
export function frameCap(units: number, rawBytes: number): number {
  return FRAME_PREFIX_BYTES + 128 + units * (UNIT_ID_BYTES + 5) + compressedCap(rawBytes);
}

/** Encodes units as one frame into `out`, which has at least `frameCap` bytes. Returns the length in bytes. */
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
  // proto3 leaves a zero out: any other stored length gives a header of this length.
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

/** Returns the checksum of a frame's prefix and header. */
// The units themselves are proven by their ids.
function checksum(frame: Buffer): number {
  const headEnd = FRAME_PREFIX_BYTES + frame.readUInt32LE(4);
  return crc32(frame.subarray(FRAME_PREFIX_BYTES, headEnd), crc32(frame.subarray(0, 12)));
}

/** A frame whose checksum and header have been verified and whose streams are still encoded. */
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

/** Parses `bytes` as one frame. DAMAGED if it is none. */
// No allocation here depends on a length in the bytes.
export function parseFrame(bytes: Buffer): ParsedFrame {
  if (bytes.length < FRAME_PREFIX_BYTES) throw damaged('it is truncated');
  if (bytes.readUInt32LE(0) !== MAGIC) throw damaged('it does not begin with the magic number of a frame');
  const headLength = bytes.readUInt32LE(4);
  const bodyLength = bytes.readUInt32LE(8);
  if (headLength > HEADER_BYTES_MAX || FRAME_PREFIX_BYTES + headLength + bodyLength !== bytes.length) {
    throw damaged('its lengths do not add up');
  }
  if (bytes.readUInt32LE(12) !== checksum(bytes)) throw damaged('its checksum does not match');
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
  if (stream.storedLength !== bodyLength) throw damaged('its streams do not fill its body');
  if (stream.codec === Codec_Value.RAW && stream.storedLength !== sum)
    throw damaged('its raw stream is truncated');
}

/** Decodes a parsed frame into `out`, which has exactly `decodedLength` bytes. Does not hash the units. */
export function decodeFrame(frame: ParsedFrame, out: Uint8Array): void {
  const [stream] = frame.header.streams;
  if (stream?.codec === Codec_Value.ZSTD) decompressInto(out, frame.body);
  else out.set(frame.body);
}

/** Bytes before a decoded frame that hashing its units overwrites. */
export const DECODE_HEADROOM_BYTES = 8;

/** Allocates a buffer for `length` decoded bytes. Returns it, and its part behind the headroom. */
export function allocateDecodeBuffer(length: number): { buffer: Buffer; decoded: Buffer } {
  const buffer = Buffer.allocUnsafe(DECODE_HEADROOM_BYTES + length);
  return { buffer, decoded: buffer.subarray(DECODE_HEADROOM_BYTES) };
}

/** Hashes the units of a frame decoded into `buffer` behind the headroom. Returns the places of those that differ. */
export function findDamagedUnits({ header }: ParsedFrame, buffer: Buffer): number[] {
  const wrong: number[] = [];
  const ids = Buffer.from(header.unitIds.buffer, header.unitIds.byteOffset, header.unitIds.byteLength);
  let at = DECODE_HEADROOM_BYTES;
  for (const [i, length] of header.unitLengths.entries()) {
    const id = unitIdInPlace(header.kind, buffer, at, length);
    if (id.compare(ids, i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES) !== 0) wrong.push(i);
    at += length;
  }
  return wrong;
}

/** Proves an encoded frame: decodes it into `buffer` behind the headroom and hashes every unit. */
// No frame counts as stored before it is proven.
export function proveFrame(frame: Buffer, buffer: Buffer): void {
  const parsed = parseFrame(frame);
  decodeFrame(parsed, buffer.subarray(DECODE_HEADROOM_BYTES, DECODE_HEADROOM_BYTES + parsed.decodedLength));
  if (findDamagedUnits(parsed, buffer).length > 0) {
    throw new LightkeeperError('INTERNAL', 'Cannot store a frame: it does not decode to what was captured', {
      hint: 'nothing was stored; check the memory of this machine',
    });
  }
}

/** A frame whose units have been decoded and hashed. */
export interface DecodedFrame {
  readonly parsed: ParsedFrame;
  readonly bytes: Buffer;
  /** Offset of each unit in `bytes`, then the end of the last one. */
  readonly starts: readonly number[];
}

/** Decodes a frame into a buffer from `allocate` and hashes every unit. DAMAGED if one does not match its id. */
export function decodeVerified(
  bytes: Buffer,
  allocate: (bytes: number) => Buffer = Buffer.allocUnsafe,
): DecodedFrame {
  const parsed = parseFrame(bytes);
  const buffer = allocate(DECODE_HEADROOM_BYTES + parsed.decodedLength);
  const decoded = buffer.subarray(DECODE_HEADROOM_BYTES);
  decodeFrame(parsed, decoded);
  if (findDamagedUnits(parsed, buffer).length > 0)
    throw new LightkeeperError('DAMAGED', 'Cannot read a frame: a unit in it does not hash to its id');
  const starts = [0];
  let at = 0;
  for (const length of parsed.header.unitLengths) {
    at += length;
    starts.push(at);
  }
  return { parsed, bytes: decoded, starts };
}

/** Estimated bytes that a decoded frame takes in memory beside its buffers. */
const FRAME_OVERHEAD_BYTES = 8 * 1024;

/** Caches the most recently used decoded frames, up to a number of bytes. */
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
    this.#bytes += memoryBytes(frame);
    for (const [old, oldFrame] of this.#frames) {
      if (this.#bytes <= this.#limitBytes || old === key) break;
      this.#frames.delete(old);
      this.#bytes -= memoryBytes(oldFrame);
    }
  }

  clear(): void {
    this.#frames.clear();
    this.#bytes = 0;
  }
}

/** Returns the bytes that a decoded frame takes in memory. */
function memoryBytes({ parsed, bytes }: DecodedFrame): number {
  return FRAME_OVERHEAD_BYTES + bytes.length + parsed.body.length + parsed.header.unitIds.length;
}
