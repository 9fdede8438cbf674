import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { GenMessage } from '@bufbuild/protobuf/codegenv2';
import {
  type FetchUnitsResponse,
  FetchUnitsResponseSchema,
  type FollowRequest,
  FollowRequestSchema,
  type FollowResponse,
  FollowResponseSchema,
  type FramePart,
  FramePartSchema,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import type { MessageCodec, MessageCodecs, SomeCodec } from '../../host/grpc/codec.ts';

/** Tags of the fields of FramePart, in the order in which they are written. */
const WANT_ID = 0x08;
const FRAME_LENGTH = 0x10;
const OFFSET = 0x18;
const DATA = 0x22;
/** Most bytes of a varint. */
const VARINT_BYTES_MAX = 10;
/** Most bytes before the data of a frame part. */
const HEAD_BYTES_MAX = 5 * (1 + VARINT_BYTES_MAX);

/** A message that may carry a piece of a frame. */
type BulkMessage = FollowResponse | FollowRequest | FetchUnitsResponse;

// The default codec copies bulk several times and takes two thirds of the time of a stream.
/** Codecs of the messages that carry frames: the bytes of a frame are copied once on sending, never on receiving. */
export const BULK_CODECS: MessageCodecs = new Map<string, SomeCodec>([
  bulkCodec(FollowResponseSchema),
  bulkCodec(FollowRequestSchema),
  bulkCodec(FetchUnitsResponseSchema),
]);

function bulkCodec<Message extends BulkMessage>(
  schema: GenMessage<Message>,
): [name: string, codec: SomeCodec] {
  const field = schema.fields.find(({ name }) => name === 'frame_part');
  const tag = ((field?.number ?? 0) << 3) | 2;
  const codec: MessageCodec<Message> = {
    serialize: (message) => {
      const { message: content } = message;
      if (content.case === 'framePart') return encodePart(tag, content.value);
      const { buffer, byteOffset, byteLength } = toBinary(schema, message);
      return Buffer.from(buffer, byteOffset, byteLength);
    },
    deserialize: (bytes) => {
      const part = decodePart(tag, bytes);
      if (part === undefined) return fromBinary(schema, bytes, { readUnknownFields: false });
      const message = create(schema);
      message.message = { case: 'framePart', value: part };
      return message;
    },
  };
  return [schema.typeName, codec];
}

function encodePart(tag: number, { wantId, frameLength, offset, data }: FramePart): Buffer {
  const head = Buffer.allocUnsafe(HEAD_BYTES_MAX);
  let at = 0;
  head[at] = WANT_ID;
  at = writeVarint(head, at + 1, wantId);
  at = writeField(head, at, FRAME_LENGTH, frameLength);
  at = writeField(head, at, OFFSET, offset);
  at = writeField(head, at, DATA, data.length);
  const start = Buffer.allocUnsafe(1 + VARINT_BYTES_MAX);
  const startLength = writeField(start, 0, tag, at + data.length);
  return Buffer.concat([start.subarray(0, startLength), head.subarray(0, at), data]);
}

function writeField(out: Buffer, at: number, tag: number, value: number): number {
  out[at] = tag;
  return writeVarint(out, at + 1, BigInt(value));
}

/** Writes a varint and returns the offset after it. */
function writeVarint(out: Buffer, at: number, value: bigint): number {
  let rest = value;
  let end = at;
  for (; rest >= 0x80n; rest >>= 7n) out[end++] = Number(rest & 0x7fn) | 0x80;
  out[end++] = Number(rest);
  return end;
}

/** Returns the frame part in a message, as a view; undefined if the message is another one or was written otherwise. */
function decodePart(tag: number, bytes: Buffer): FramePart | undefined {
  const reader = new VarintReader(bytes);
  const length = reader.field(tag);
  if (length === undefined || reader.at + Number(length) !== bytes.length) return undefined;
  const wantId = reader.field(WANT_ID);
  const frameLength = wantId === undefined ? undefined : reader.field(FRAME_LENGTH);
  const offset = frameLength === undefined ? undefined : reader.field(OFFSET);
  const dataLength = offset === undefined ? undefined : reader.field(DATA);
  if (wantId === undefined || frameLength === undefined || offset === undefined || dataLength === undefined)
    return undefined;
  if (reader.at + Number(dataLength) !== bytes.length || frameLength > 0xffff_ffffn || offset > 0xffff_ffffn)
    return undefined;
  return create(FramePartSchema, {
    wantId,
    frameLength: Number(frameLength),
    offset: Number(offset),
    data: bytes.subarray(reader.at),
  });
}

class VarintReader {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** Returns the varint after a tag; undefined if another tag follows, or the varint does not end. */
  field(tag: number): bigint | undefined {
    if (this.#bytes[this.at] !== tag) return undefined;
    let value = 0n;
    for (let i = 0; i < VARINT_BYTES_MAX; i++) {
      const byte = this.#bytes[this.at + 1 + i];
      if (byte === undefined) return undefined;
      value |= BigInt(byte & 0x7f) << BigInt(7 * i);
      if (byte < 0x80) {
        this.at += 2 + i;
        return value;
      }
    }
    return undefined;
  }
}
