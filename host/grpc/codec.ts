import { type DescMessage, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';

/** Converts messages of one type to bytes and back. */
export interface MessageCodec<Message> {
  readonly serialize: (message: Message) => Buffer;
  readonly deserialize: (bytes: Buffer) => Message;
}

/** Codecs that replace the default, by the full name of the message. */
// Bulk messages need one: the default copies every byte more often than the stream has time for.
export type MessageCodecs = ReadonlyMap<string, SomeCodec>;

/** A codec of a message type that the map does not know. */
export interface SomeCodec {
  readonly serialize: (message: never) => Buffer;
  readonly deserialize: (bytes: Buffer) => unknown;
}

/** Returns the codec of a message type. */
export function codecOf<Desc extends DescMessage>(
  desc: Desc,
  codecs: MessageCodecs,
): MessageCodec<MessageShape<Desc>> {
  const special = codecs.get(desc.typeName);
  if (special !== undefined) return special as unknown as MessageCodec<MessageShape<Desc>>;
  return {
    serialize: (message) => {
      const { buffer, byteOffset, byteLength } = toBinary(desc, message);
      return Buffer.from(buffer, byteOffset, byteLength);
    },
    deserialize: (bytes) => {
      try {
        return fromBinary(desc, bytes, { readUnknownFields: false });
      } catch (error) {
        // A decoder may throw anything for bytes that are no message.
        const message = `Cannot read a ${desc.name}: it does not parse`;
        throw new ConnectError(message, Code.InvalidArgument, undefined, undefined, error);
      }
    },
  };
}
