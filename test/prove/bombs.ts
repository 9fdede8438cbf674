import assert from 'node:assert/strict';
import { crc32 } from 'node:zlib';
import { parsePackFooter } from '../../agent/pack/format.ts';
import { allocateDecodeBuffer, decodeFrame, parseFrame } from '../../agent/pack/frame.ts';
import { compressedCap, compressInto } from '../../agent/pack/zstd.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { parseAnnotation, parseFileList, parseManifest } from '../../core/manifest.ts';
import { sealFrame } from './mutate.ts';

/** Bytes that ask for far more than they are. */
export interface Bomb {
  readonly name: string;
  readonly read: () => unknown;
}

const MESSAGE_BYTES = 4 * 1024 * 1024;
const GROWTH_BYTES_MAX = 96 * 1024 * 1024;
const PACK_HEADER_BYTES = 40;

/** A field that holds an empty message, again and again: two bytes make an object each. */
function emptyFields(field: number): Buffer {
  return Buffer.alloc(MESSAGE_BYTES, Buffer.from([(field << 3) | 2, 0]));
}

/** As above, of a field that no version knows: parsers keep those, an object each. */
function unknownFields(): Buffer {
  return Buffer.alloc(MESSAGE_BYTES, Buffer.from([0xfa, 0x3e, 0]));
}

function packed(bytes: Buffer): Buffer {
  const out = Buffer.alloc(compressedCap(bytes.length));
  return out.subarray(0, compressInto(out, bytes));
}

function footerOf(body: Buffer, options: { codec: number; rawLength: number }) {
  const prefix = Buffer.alloc(5);
  prefix[0] = options.codec;
  prefix.writeUInt32LE(options.rawLength, 1);
  const bytes = Buffer.concat([prefix, body]);
  const trailer = {
    footerOffset: PACK_HEADER_BYTES + 1000,
    footerLength: bytes.length,
    footerCrc: crc32(bytes),
    digest: Buffer.alloc(32),
  };
  return parsePackFooter(bytes, trailer);
}

/** The header of a frame with one unit, that says how long it is. */
function frameThatClaims(length: number, body: Buffer, codec: number): Buffer {
  const varint = (value: number) => {
    const out: number[] = [];
    for (let rest = value; ; rest = Math.floor(rest / 128)) {
      if (rest < 128) return Buffer.from([...out, rest]);
      out.push((rest % 128) | 128);
    }
  };
  const number = (field: number, value: number) => Buffer.concat([Buffer.from([field << 3]), varint(value)]);
  const bytes = (field: number, value: Buffer) =>
    Buffer.concat([Buffer.from([(field << 3) | 2]), varint(value.length), value]);
  const stream = Buffer.concat([number(1, codec), number(2, length), number(3, body.length)]);
  const header = [
    number(1, 1),
    number(4, 1),
    number(5, length),
    bytes(6, stream),
    bytes(7, Buffer.alloc(32)),
  ];
  return sealFrame(Buffer.concat([...header, bytes(8, varint(length))]), body);
}

function readFrame(frame: Buffer): void {
  const parsed = parseFrame(frame);
  decodeFrame(parsed, allocateDecodeBuffer(parsed.decodedLength).decoded);
}

const ZEROS = Buffer.alloc(64 * 1024 * 1024);

/** Each must be refused without taking the memory that it asks for. */
export const BOMBS: readonly Bomb[] = [
  { name: 'a list of two million empty files', read: () => parseFileList(emptyFields(1), '') },
  { name: 'a list of files with a million unknown fields', read: () => parseFileList(unknownFields(), '') },
  { name: 'a manifest with two million findings', read: () => parseManifest(emptyFields(12)) },
  { name: 'a manifest with a million unknown fields', read: () => parseManifest(unknownFields()) },
  { name: 'an annotation with a million unknown fields', read: () => parseAnnotation(unknownFields()) },
  {
    name: 'a footer of two million frames',
    read: () => footerOf(emptyFields(1), { codec: 0, rawLength: MESSAGE_BYTES }),
  },
  {
    name: 'a footer that is small and unpacks to 64 MiB',
    read: () => footerOf(packed(ZEROS), { codec: 1, rawLength: ZEROS.length }),
  },
  {
    name: 'a footer that says it is 4 GiB',
    read: () => footerOf(packed(ZEROS), { codec: 1, rawLength: 0xffffffff }),
  },
  {
    name: 'a frame of two million streams',
    read: () => parseFrame(sealFrame(emptyFields(6), Buffer.alloc(0))),
  },
  {
    name: 'a frame of four million lengths',
    read: () => {
      const lengths = Buffer.alloc(MESSAGE_BYTES - 100);
      const head = Buffer.from([
        (8 << 3) | 2,
        ...[0, 7, 14, 21].map((n) => ((lengths.length >> n) & 0x7f) | (n < 21 ? 0x80 : 0)),
      ]);
      return parseFrame(sealFrame(Buffer.concat([head, lengths]), Buffer.alloc(0)));
    },
  },
  {
    name: 'a frame that says it is 4 GiB',
    read: () => readFrame(frameThatClaims(0xffffffff, packed(ZEROS), 1)),
  },
  {
    name: 'a frame that unpacks to more than it says',
    read: () => readFrame(frameThatClaims(1000, packed(ZEROS), 1)),
  },
  {
    name: 'a frame that unpacks to less than it says',
    read: () => readFrame(frameThatClaims(32 * 1024 * 1024, packed(Buffer.alloc(1000)), 1)),
  },
];

/** Fails unless the bomb is refused, and what that took was bounded. */
export function defuse({ name, read }: Bomb): void {
  const before = process.memoryUsage();
  const refused = (error: unknown) =>
    error instanceof LightkeeperError && ['DAMAGED', 'TOO_NEW', 'TOO_OLD'].includes(error.code);
  assert.throws(read, refused, name);
  const now = process.memoryUsage();
  const grown = now.arrayBuffers - before.arrayBuffers + Math.max(0, now.heapUsed - before.heapUsed);
  assert.ok(grown < GROWTH_BYTES_MAX, `${name} took ${grown} bytes of memory`);
}
