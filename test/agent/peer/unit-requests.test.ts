import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { UnitRequests } from '../../../agent/peer/unit-requests.ts';
import { LightkeeperError } from '../../../core/errors.ts';

const id = (n: number) => Buffer.alloc(32, n);
const invalid = (error: unknown) => error instanceof LightkeeperError && error.code === 'PEER_INVALID';

function make() {
  const sent: [bigint, number][] = [];
  const requests = new UnitRequests((wantId, ids) => {
    sent.push([wantId, ids.length / 32]);
    return Promise.resolve();
  });
  return { requests, sent };
}

describe('requests for units', () => {
  it('end when each unit has arrived or is missing, in whatever order', async () => {
    const { requests, sent } = make();
    const first = requests.request([id(1), id(2), id(3)]);
    const second = requests.request([id(3), id(4)]);
    assert.deepEqual(sent, [
      [1n, 3],
      [2n, 2],
    ]);
    assert.equal(requests.isWanted(id(3)), true);
    requests.arrived([id(3), id(1)]);
    assert.equal(requests.isWanted(id(3)), false);
    requests.missing(1n, id(2));
    assert.deepEqual(await first, [id(2)]);
    requests.arrived([id(4)]);
    assert.deepEqual(await second, []);
    assert.deepEqual(await requests.request([]), []);
  });

  it('refuse frames that nobody asked for, and late ones after a while', async () => {
    const { requests } = make();
    assert.throws(() => requests.admit(1n), invalid);
    const asked = requests.request([id(1)]);
    assert.throws(() => requests.admit(0n), invalid);
    assert.throws(() => requests.admit(2n), invalid);
    assert.equal(requests.admit(1n), true);
    requests.arrived([id(1)]);
    await asked;
    for (let i = 0; i < 64; i++) assert.equal(requests.admit(1n), false);
    assert.throws(() => requests.admit(1n), invalid);
    assert.throws(() => requests.missing(1n, Buffer.alloc(31)), invalid);
  });

  it('all fail when the stream ends', async () => {
    const { requests } = make();
    const asked = [requests.request([id(1)]), requests.request([id(2)])];
    requests.fail(new Error('gone'));
    for (const one of asked) await assert.rejects(one, /gone/);
    assert.equal(requests.isWanted(id(1)), false);
    await assert.rejects(requests.request([id(3)]), /gone/, 'a later one fails too');
  });
});
