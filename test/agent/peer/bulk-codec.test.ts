import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { create, equals, fromBinary, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { BULK_CODECS } from '../../../agent/peer/bulk-codec.ts';
import { FrameJoiner, SENT_FRAME_BYTES_MAX, splitFrame } from '../../../agent/peer/frame-parts.ts';
import { LightkeeperError } from '../../../core/errors.ts';
import {
  FetchUnitsResponseSchema,
  FollowRequestSchema,
  FollowResponseSchema,
  type FramePart,
  FramePartSchema,
} from '../../../gen/lightkeeper/v1/peer_pb.ts';

const SCHEMAS = [FollowResponseSchema, FollowRequestSchema, FetchUnitsResponseSchema];

function codecOf(name: string) {
  const codec = BULK_CODECS.get(name);
  assert.ok(codec !== undefined);
  return codec as { serialize: (message: unknown) => Buffer; deserialize: (bytes: Buffer) => unknown };
}

describe('the codec of bulk messages', () => {
  const parts = fc.record({
    wantId: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    frameLength: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    offset: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    data: fc.uint8Array({ maxLength: 300 }),
  });

  for (const schema of SCHEMAS) {
    it(`writes and reads the same bytes as protobuf: ${schema.name}`, () => {
      const { serialize, deserialize } = codecOf(schema.typeName);
      fc.assert(
        fc.property(parts, (part) => {
          const value = create(FramePartSchema, part);
          const message = create(schema, { message: { case: 'framePart', value } } as object);
          const own = serialize(message);
          assert.ok(equals(schema, fromBinary(schema, own), message), 'protobuf reads what the codec writes');
          for (const bytes of [own, Buffer.from(toBinary(schema, message))])
            assert.ok(equals(schema, deserialize(bytes) as never, message));
        }),
      );
    });

    it(`reads any bytes as protobuf does, or refuses them: ${schema.name}`, () => {
      const { deserialize } = codecOf(schema.typeName);
      const outcome = (read: () => unknown) => {
        try {
          return toBinary(schema, read() as never);
        } catch {
          return 'refused';
        }
      };
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 40 }), fc.boolean(), (given, asPart) => {
          const field = schema.fields.find(({ name }) => name === 'frame_part');
          const bytes = Buffer.from(given);
          if (asPart && bytes.length > 1) bytes.set([((field?.number ?? 0) << 3) | 2, bytes.length - 2]);
          const plain = outcome(() => fromBinary(schema, bytes, { readUnknownFields: false }));
          const own = outcome(() => deserialize(bytes));
          if (plain !== 'refused') assert.deepEqual(own, plain);
        }),
        { numRuns: 3000 },
      );
    });
  }

  it('copies no byte of a frame that it reads', () => {
    const { serialize, deserialize } = codecOf(FollowResponseSchema.typeName);
    const value = create(FramePartSchema, { wantId: 1n, frameLength: 9, data: randomBytes(9) });
    const bytes = serialize(create(FollowResponseSchema, { message: { case: 'framePart', value } }));
    const read = deserialize(bytes) as { message: { value: FramePart } };
    assert.equal(read.message.value.data.buffer, bytes.buffer);
  });
});

describe('the pieces of a frame', () => {
  it('join to the same frame', () => {
    for (const length of [1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_500_000]) {
      const frame = randomBytes(length);
      const joiner = new FrameJoiner();
      const joined = [...splitFrame(7n, frame)].map((part) => joiner.add(part));
      const last = joined.pop();
      assert.ok(joined.every((one) => one === undefined));
      assert.deepEqual(last, { wantId: 7n, bytes: frame });
    }
  });

  it('are refused out of order, too long, empty, or of two frames at once', () => {
    const [first, second] = [...splitFrame(1n, randomBytes(1_500_000))] as [FramePart, FramePart];
    const refused = (...parts: FramePart[]) => {
      const joiner = new FrameJoiner();
      assert.throws(
        () => {
          for (const part of parts) joiner.add(part);
        },
        (error: unknown) => error instanceof LightkeeperError && error.code === 'PEER_INVALID',
      );
    };
    refused(second);
    refused(first, first);
    refused(first, { ...second, wantId: 2n });
    refused(first, { ...second, offset: second.offset + 1 });
    refused(first, { ...second, frameLength: second.frameLength + 1 });
    refused(first, { ...second, data: new Uint8Array() });
    refused(first, { ...second, data: randomBytes(600_000) });
    refused({ ...first, frameLength: 0, data: new Uint8Array() });
    refused({ ...first, frameLength: SENT_FRAME_BYTES_MAX + 1 });
  });
});
