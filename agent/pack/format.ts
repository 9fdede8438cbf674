import { createHash, type Hash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { checkCount, KNOWN_FIELDS } from '../../core/proto-limits.ts';
import { UNIT_ID_BYTES } from '../../core/unit.ts';
import { type FrameInfo, PackFooterSchema, PackKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { FRAME_PREFIX_BYTES } from './frame.ts';
import { compressedCap, compressInto, decompressInto } from './zstd.ts';

/** Bytes at which a pack is closed. */
export const PACK_BYTES = 64 * 1024 * 1024;
/** Bytes of the header, before the first frame. */
export const PACK_HEADER_BYTES = 40;
/** Bytes of the trailer, after the footer. */
export const PACK_TRAILER_BYTES = 56;

const MAGIC = Buffer.from('LKPACK\r\n', 'latin1');
const END = Buffer.from('LKEND\r\n\0', 'latin1');
/** Format of stores, packs and manifests that this version reads and writes. */
export const STORE_FORMAT = 2;
const FOOTER_PREFIX_BYTES = 5;
const FOOTER_BYTES_MAX = 64 << 20;

const TOO_NEW_HINT = 'use the version of Lightkeeper that wrote this store, or a newer one';

/** Returns the error of a file of another format. `doing` is the action that it prevents. */
export function formatError(doing: string, format: number): LightkeeperError {
  const message = `Cannot ${doing}: it has format ${format}, and this version reads format ${STORE_FORMAT}`;
  return format > STORE_FORMAT
    ? new LightkeeperError('TOO_NEW', message, { hint: TOO_NEW_HINT })
    : new LightkeeperError('TOO_OLD', message, {
        hint: 'use the version of Lightkeeper that wrote it, and name a new store with --store for this one',
      });
}

function damaged(state: string): LightkeeperError {
  return new LightkeeperError('DAMAGED', `Cannot read a pack: ${state}`, {
    hint: 'run lightkeeper verify, then lightkeeper repair',
  });
}

/** Encodes the header of a pack: its first 40 bytes. */
export function encodePackHeader(kind: PackKind_Value, storeId: Uint8Array): Buffer {
  const header = Buffer.alloc(PACK_HEADER_BYTES);
  MAGIC.copy(header, 0);
  header.writeUInt16LE(STORE_FORMAT, 8);
  header[10] = kind;
  header.set(storeId, 20);
  header.writeUInt32LE(crc32(header.subarray(0, 36)), 36);
  return header;
}

/** Parses the header of a pack. DAMAGED, TOO_NEW or TOO_OLD if it cannot be read. */
export function parsePackHeader(bytes: Buffer): { kind: PackKind_Value; storeId: Buffer } {
  if (bytes.length < PACK_HEADER_BYTES) throw damaged('it is truncated');
  if (!bytes.subarray(0, 8).equals(MAGIC)) throw damaged('it does not begin with the magic number of a pack');
  if (bytes.readUInt32LE(36) !== crc32(bytes.subarray(0, 36))) {
    throw damaged('the checksum of its header does not match');
  }
  const format = bytes.readUInt16LE(8);
  if (format !== STORE_FORMAT) throw formatError('read a pack', format);
  const required = bytes.readUInt32LE(12);
  if (required !== 0) {
    throw new LightkeeperError(
      'TOO_NEW',
      `Cannot read a pack: it needs features 0x${required.toString(16)}`,
      {
        hint: TOO_NEW_HINT,
      },
    );
  }
  const kind = bytes[10];
  if (kind !== PackKind_Value.DATA && kind !== PackKind_Value.META) throw damaged(`it is of kind ${kind}`);
  return { kind, storeId: Buffer.from(bytes.subarray(20, 36)) };
}

/** The part of a pack that has been written. */
export interface WrittenPart {
  /** Length in bytes. */
  readonly length: number;
  /** Running hash of its bytes. */
  readonly hash: Hash;
}

/**
 * Encodes the footer and trailer of a pack. Returns them and the name of the pack. With `raw` the footer is not
 * compressed.
 */
// The length of a raw footer does not depend on the ids in it.
export function encodePackEnd(
  frames: FrameInfo[],
  { length, hash, raw: isRaw }: WrittenPart & { readonly raw: boolean },
): { end: Buffer; packId: Buffer } {
  const raw = toBinary(PackFooterSchema, create(PackFooterSchema, { frames }));
  const footer = Buffer.alloc(FOOTER_PREFIX_BYTES + compressedCap(raw.length));
  const packed = isRaw ? raw.length : compressInto(footer.subarray(FOOTER_PREFIX_BYTES), raw);
  const zstd = packed < raw.length;
  if (!zstd) footer.set(raw, FOOTER_PREFIX_BYTES);
  footer[0] = zstd ? 1 : 0;
  footer.writeUInt32LE(raw.length, 1);
  const used = footer.subarray(0, FOOTER_PREFIX_BYTES + (zstd ? packed : raw.length));
  const trailer = Buffer.alloc(PACK_TRAILER_BYTES);
  trailer.writeBigUInt64LE(BigInt(length), 0);
  trailer.writeUInt32LE(used.length, 8);
  trailer.writeUInt32LE(crc32(used), 12);
  hash.update(used).update(trailer.subarray(0, 16));
  hash.copy().digest().copy(trailer, 16);
  END.copy(trailer, 48);
  const packId = hash.update(trailer.subarray(16)).digest();
  return { end: Buffer.concat([used, trailer]), packId };
}

/** The trailer of a pack: the place of its footer, and hashes. */
export interface PackTrailer {
  readonly footerOffset: number;
  readonly footerLength: number;
  readonly footerCrc: number;
  /** SHA-256 of all bytes before this field. */
  readonly digest: Buffer;
}

/** Parses the trailer, the last 56 bytes of a pack of `size` bytes. */
export function parsePackTrailer(bytes: Buffer, size: number): PackTrailer {
  if (bytes.length !== PACK_TRAILER_BYTES) throw damaged('it is truncated');
  if (!bytes.subarray(48).equals(END)) throw damaged('it does not end with the magic number of a pack');
  const footerOffset = Number(bytes.readBigUInt64LE(0));
  const footerLength = bytes.readUInt32LE(8);
  if (
    footerOffset < PACK_HEADER_BYTES ||
    footerLength < FOOTER_PREFIX_BYTES ||
    footerOffset + footerLength + PACK_TRAILER_BYTES !== size
  ) {
    throw damaged('its trailer does not locate its footer');
  }
  return {
    footerOffset,
    footerLength,
    footerCrc: bytes.readUInt32LE(12),
    digest: Buffer.from(bytes.subarray(16, 48)),
  };
}

/** Parses the footer of a pack. Returns its frames, which must fill the pack. */
export function parsePackFooter(bytes: Buffer, trailer: PackTrailer): FrameInfo[] {
  if (bytes.length !== trailer.footerLength || crc32(bytes) !== trailer.footerCrc) {
    throw damaged('the checksum of its footer does not match');
  }
  const rawLength = bytes.readUInt32LE(1);
  const body = bytes.subarray(FOOTER_PREFIX_BYTES);
  // A footer is mostly hashes: it never shrinks below a hundredth, so this bounds what is allocated.
  if (rawLength > FOOTER_BYTES_MAX || rawLength > body.length * 200 + 1024)
    throw damaged('its footer is too long');
  let raw: Uint8Array = body;
  if (bytes[0] === 1) {
    raw = Buffer.alloc(rawLength);
    decompressInto(raw, body);
  } else if (bytes[0] !== 0 || body.length !== rawLength) {
    throw damaged('its footer has an unknown encoding');
  }
  let frames: FrameInfo[];
  try {
    checkCount(raw, PackFooterSchema.field.frames.number, trailer.footerOffset / FRAME_PREFIX_BYTES);
    frames = fromBinary(PackFooterSchema, raw, KNOWN_FIELDS).frames;
  } catch (error) {
    throw new LightkeeperError('DAMAGED', 'Cannot read a pack: its footer does not parse', { cause: error });
  }
  let at = PACK_HEADER_BYTES;
  for (const frame of frames) {
    if (frame.offset !== at || frame.unitIds.length !== frame.unitLengths.length * UNIT_ID_BYTES) {
      throw damaged('its footer does not describe its frames');
    }
    at += frame.length;
  }
  if (at !== trailer.footerOffset) throw damaged('its frames do not fill it');
  return frames;
}

/** Begins the hash over the bytes of a pack. */
export function packHash(): Hash {
  return createHash('sha256');
}
