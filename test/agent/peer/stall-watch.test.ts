import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { StallWatch } from '../../../agent/peer/stall-watch.ts';
import type { LightkeeperError } from '../../../core/errors.ts';

const LIMITS = { welcomeMs: 300, stallMs: 400, progressBytes: 100 };

function watched(t: TestContext, stream: { isWelcome: boolean; isWaiting: boolean }) {
  const stalls: LightkeeperError[] = [];
  const watch = new StallWatch(LIMITS, {
    isWelcome: () => stream.isWelcome,
    isWaiting: () => stream.isWaiting,
    onStall: (error) => stalls.push(error),
  });
  t.after(() => watch.stop());
  return { watch, stalls };
}

describe('a watch for stalls', { concurrency: 4 }, () => {
  it('ends a stream without a Welcome, once', async (t) => {
    const { stalls } = watched(t, { isWelcome: false, isWaiting: false });
    await sleep(1500);
    assert.deepEqual(
      stalls.map(({ code }) => code),
      ['DEADLINE'],
    );
    assert.match(stalls[0]?.message ?? '', /Welcome/);
  });

  it('ends a stream on which less arrives than must', async (t) => {
    const { watch, stalls } = watched(t, { isWelcome: true, isWaiting: true });
    for (let i = 0; i < 30; i++) {
      watch.progress(1);
      await sleep(50);
    }
    assert.equal(stalls[0]?.code, 'DEADLINE');
  });

  it('lets a stream be that makes progress, completes things, or has nothing to wait for', async (t) => {
    const fast = watched(t, { isWelcome: true, isWaiting: true });
    const completing = watched(t, { isWelcome: true, isWaiting: true });
    const idle = watched(t, { isWelcome: true, isWaiting: false });
    for (let i = 0; i < 40; i++) {
      fast.watch.progress(60);
      completing.watch.restart();
      await sleep(30);
    }
    assert.deepEqual([...fast.stalls, ...completing.stalls, ...idle.stalls], []);
  });
});
