import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Followers } from '../../../agent/peer/followers.ts';
import { LightkeeperError } from '../../../core/errors.ts';

function joining(name: string, storeId = name) {
  const ends: string[] = [];
  const follower = {
    name,
    target: undefined,
    graphId: 'g',
    address: '',
    storeId,
    version: '',
    held: undefined,
    acknowledgedMs: undefined,
    lag: undefined,
    requestUnits: undefined,
    requestHoldings: undefined,
    end: (error: LightkeeperError) => void ends.push(error.code),
  };
  return { follower, ends };
}
const refused = (error: unknown) => error instanceof LightkeeperError && error.code === 'REFUSED';

describe('the followers of an agent', () => {
  it('have one stream a store: a new one ends the earlier one', () => {
    const followers = new Followers();
    const [first, second, other] = [joining('b'), joining('b'), joining('b', 'another')];
    followers.connect(first.follower);
    followers.connect(other.follower);
    followers.connect(second.follower);
    assert.deepEqual([first.ends, other.ends, second.ends], [['REFUSED'], [], []]);
  });

  it('cannot open streams without end, under one name or many', () => {
    const followers = new Followers();
    const same = Array.from({ length: 4 }, (_, n) => followers.connect(joining('b', `${n}`).follower));
    assert.throws(() => followers.connect(joining('b', 'x').follower), refused);
    followers.disconnect(same[0]!, '');
    followers.connect(joining('b', 'x').follower);
    for (let n = 4; n < 12; n++) followers.connect(joining(`${n}`).follower);
    assert.throws(() => followers.connect(joining('more').follower), refused);
  });

  it('are forgotten after they have left, if they are no targets and there are many', () => {
    const followers = new Followers();
    for (let n = 0; n < 1000; n++) followers.disconnect(followers.connect(joining(`${n}`).follower), '');
    assert.equal(followers.list().length, 100);
  });
});
