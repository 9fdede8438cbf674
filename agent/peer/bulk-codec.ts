import { type Message as AnyMessage, create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { GenMessage } from '@bufbuild/protobuf/codegenv2';
import { KNOWN_DIGESTS_MAX } from '../../core/following/history.ts';
import { checkNestedCount } from '../../core/proto-limits.ts';
import {
  AcknowledgementSchema,
  FactsUpdateSchema,
  type FetchUnitsResponse,
  FetchUnitsResponseSchema,
  type FollowRequest,
  FollowRequestSchema,
  type FollowResponse,
  FollowResponseSchema,
  type FramePart,
  FramePartSchema,
  HelloSchema,
  ListedSnapshotSchema,
  PositionLogPartSchema,
  SnapshotListPartSchema,
  SnapshotOfferSchema,
  SnapshotsGoneSchema,
  SnapshotsWantedSchema,
  WatchGraphsRequestSchema,
  WatchGraphsResponseSchema,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import type { MessageCodec, MessageCodecs, SomeCodec } from '../../host/grpc/codec.ts';
import { checkOfPeer } from '../store/receive/check-frame.ts';
import { OFFERS_WANTED_MAX, PART_ENTRIES_MAX } from './protocol.ts';

/** Tags of the fields of FramePart, in the order in which they are written. */
const WANT_ID = 0x08;
const FRAME_LENGTH = 0x10;
const OFFSET = 0x18;
const DATA = 0x22;
/** Most bytes of a varint. */
const VARINT_BYTES_MAX = 10;
/** Most bytes before the data of a frame part. */
const HEAD_BYTES_MAX = 5 * (1 + VARINT_BYTES_MAX);

/** Most tags of a part of a list of snapshots. */
const PART_TAGS_MAX = 200_000;
/** Most annotations of one message. */
const ANNOTATIONS_MAX = 1000;

/** A path of fields, and how often its last one may occur in a message. */
interface FieldCount {
  readonly path: readonly { readonly number: number }[];
  readonly most: number;
}

const inResponse = FollowResponseSchema.field;
const inRequest = FollowRequestSchema.field;
const listed = [inResponse.snapshotList, SnapshotListPartSchema.field.snapshots];

/** How often fields may occur, by the names of messages. */
// Two bytes of a message can become an object of two hundred.
const COUNTS: ReadonlyMap<string, readonly FieldCount[]> = new Map([
  [
    FollowResponseSchema.typeName,
    [
      { path: [inResponse.positionLog, PositionLogPartSchema.field.entries], most: PART_ENTRIES_MAX },
      { path: listed, most: PART_ENTRIES_MAX },
      { path: [...listed, ListedSnapshotSchema.field.tags], most: PART_TAGS_MAX },
      { path: [inResponse.offer, SnapshotOfferSchema.field.annotations], most: ANNOTATIONS_MAX },
      {
        path: [inResponse.offer, SnapshotOfferSchema.field.listed, ListedSnapshotSchema.field.tags],
        most: PART_TAGS_MAX,
      },
      { path: [inResponse.snapshotsGone, SnapshotsGoneSchema.field.digests], most: OFFERS_WANTED_MAX },
      { path: [inResponse.facts, FactsUpdateSchema.field.annotations], most: ANNOTATIONS_MAX },
    ],
  ],
  [
    FollowRequestSchema.typeName,
    [
      { path: [inRequest.hello, HelloSchema.field.knownDigests], most: KNOWN_DIGESTS_MAX },
      { path: [inRequest.snapshotsWanted, SnapshotsWantedSchema.field.digests], most: OFFERS_WANTED_MAX },
      {
        path: [inRequest.acknowledgement, AcknowledgementSchema.field.olderDigests],
        most: PART_ENTRIES_MAX,
      },
    ],
  ],
  [
    WatchGraphsRequestSchema.typeName,
    [{ path: [WatchGraphsRequestSchema.field.graphIds], most: PART_ENTRIES_MAX }],
  ],
  [
    WatchGraphsResponseSchema.typeName,
    [{ path: [WatchGraphsResponseSchema.field.graphs], most: PART_ENTRIES_MAX }],
  ],
]);

/** Parses a message of a peer. PEER_INVALID unless it is one, and within the bounds of its fields. */
function parsePeerMessage<Message extends AnyMessage>(schema: GenMessage<Message>, bytes: Buffer): Message {
  return checkOfPeer(`a ${schema.name}`, () => {
    for (const { path, most } of COUNTS.get(schema.typeName) ?? [])
      checkNestedCount(
        bytes,
        path.map(({ number }) => number),
        most,
      );
    return fromBinary(schema, bytes, { readUnknownFields: false });
  });
}

/** Returns the codec of a message that carries no frames. */
function boundedCodec<Message extends AnyMessage>(
  schema: GenMessage<Message>,
): [name: string, codec: SomeCodec] {
  const codec: MessageCodec<Message> = {
    serialize: (message) => Buffer.from(toBinary(schema, message)),
    deserialize: (bytes) => parsePeerMessage(schema, bytes),
  };
  return [schema.typeName, codec];
}

/** A message that may carry a piece of a frame. */
type BulkMessage = FollowResponse | FollowRequest | FetchUnitsResponse;

// The default codec copies bulk several times and takes two thirds of the time of a stream.
/** Codecs of the messages that carry frames: the bytes of a frame are copied once on sending, never on receiving. */
export const BULK_CODECS: MessageCodecs = new Map<string, SomeCodec>([
  bulkCodec(FollowResponseSchema),
  bulkCodec(FollowRequestSchema),
  bulkCodec(FetchUnitsResponseSchema),
  boundedCodec(WatchGraphsRequestSchema),
  boundedCodec(WatchGraphsResponseSchema),
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
      if (part === undefined) return parsePeerMessage(schema, bytes);
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
