import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { exceededLimits, limitsJson } from '../../core/limits.ts';
import { GraphStatusSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';

const LIMITS = { rpoMs: 1000, lagMs: 100 };
const HELD = { epoch: 1n, sequence: 1n, digest: 'aa', mintId: 'bb' };

function exceeded(status: Parameters<typeof create<typeof GraphStatusSchema>>[1], limits = LIMITS) {
  return limitsJson(exceededLimits(limits, create(GraphStatusSchema, status)));
}

describe('the limits of a graph', () => {
  it('hold at the limit, and not beyond it', () => {
    const followers = [{ name: 'b', held: HELD, lag: { ms: 100n } }];
    assert.deepEqual(exceeded({ rpoMs: 1000n, followers }), []);
    const behind = [{ name: 'b', held: HELD, lag: { ms: 101n } }];
    assert.deepEqual(exceeded({ rpoMs: 1001n, followers: behind }), [
      { kind: 'RPO', limitMs: '1000', actualMs: '1001', follower: '' },
      { kind: 'LAG', limitMs: '100', actualMs: '101', follower: 'b' },
    ]);
  });

  it('are exceeded without a usable point, and by a follower that never acknowledged one', () => {
    assert.deepEqual(exceeded({ followers: [{ name: 'b', lag: { ms: 0n } }] }), [
      { kind: 'RPO', limitMs: '1000', follower: '' },
      { kind: 'LAG', limitMs: '100', follower: 'b' },
    ]);
  });

  it('judge a standby by its own lag alone', () => {
    assert.deepEqual(exceeded({ rpoMs: 5000n, source: { lag: { ms: 100n } } }), []);
    assert.deepEqual(exceeded({ source: { lag: { ms: 101n } } }), [
      { kind: 'LAG', limitMs: '100', actualMs: '101', follower: '' },
    ]);
    assert.deepEqual(exceeded({ source: {} }), [{ kind: 'LAG', limitMs: '100', follower: '' }]);
  });

  it('that are not set are never exceeded', () => {
    const none = { rpoMs: undefined, lagMs: undefined } as never;
    assert.deepEqual(exceeded({ followers: [{ name: 'b' }] }, none), []);
  });
});
