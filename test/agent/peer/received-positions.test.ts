import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import { ReceivedPositions } from '../../../agent/peer/received-positions.ts';
import { sha256 } from '../../../core/unit.ts';
import { PositionEntrySchema } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { position } from '../../support/lies.ts';

const entry = (n: number) => fromBinary(PositionEntrySchema, position('g', n, new Uint8Array(32)));
const digest = (n: number) => sha256(Buffer.from(`g ${n}`));

function filled(count: number): ReceivedPositions {
  const positions = new ReceivedPositions();
  for (let n = 1; n <= count; n++) positions.add(entry(n), position('g', n, new Uint8Array(32)));
  return positions;
}

describe('received positions', () => {
  it('are found, listed up to one, and dropped up to one', () => {
    const positions = filled(5);
    assert.equal(positions.find(digest(3))?.sequence, 3n);
    assert.equal(positions.find(digest(9)), undefined);
    assert.equal(positions.upTo(entry(3)).length, 3);
    positions.dropUpTo(entry(3));
    assert.equal(positions.find(digest(3)), undefined);
    assert.equal(positions.upTo(entry(5)).length, 2);
  });

  it('are bounded: the oldest are forgotten', () => {
    const positions = filled(50_010);
    assert.equal(positions.find(digest(10)), undefined);
    assert.equal(positions.find(digest(11))?.sequence, 11n);
  });

  it('do not hold the messages in which they came', () => {
    const positions = new ReceivedPositions();
    const message = Buffer.alloc(1 << 20);
    const bytes = position('g', 1, new Uint8Array(32));
    message.set(bytes);
    positions.add(entry(1), message.subarray(0, bytes.length));
    const [held] = positions.upTo(entry(1));
    assert.notEqual(held?.buffer, message.buffer);
  });
});
