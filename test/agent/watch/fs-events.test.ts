import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { subscribeOnce } from '../../../agent/watch/fs-events.ts';
import { tempFolder, until } from '../../support/place.ts';

const ROUNDS = 40;

function watches(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'FSEventWrap').length;
}

describe('a subscription to the next filesystem event', () => {
  it('reports one event, ends by itself and leaves nothing open', async (t) => {
    const dir = await tempFolder(t);
    let heard = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const file = join(dir, `f${round}`);
      const folder = join(dir, `d${round}`);
      let events = 0;
      const onGaveUp = () => assert.fail('there is no reason to give up');
      const begun = subscribeOnce(Buffer.from(dir), { names: 1, onEvent: () => events++, onGaveUp });
      // Sometimes before it has begun, sometimes after.
      if (round % 3 > 0) await sleep(round % 9);
      if (round % 3 < 2) await begun;
      mkdirSync(folder);
      writeFileSync(file, 'x');
      writeFileSync(file, 'xy');
      const watch = await begun;
      await sleep(20);
      rmSync(folder, { recursive: true });
      assert.equal(events <= 1, true, `${events} events`);
      heard += events;
      if (events === 0) await watch?.close();
    }
    assert.equal(heard > ROUNDS / 2, true, `${heard} of ${ROUNDS} heard`);
    await until('all watches are closed', () => watches() === 0);
  });

  it('accepts a missing directory', async (t) => {
    const dir = join(await tempFolder(t), 'none');
    const watch = await subscribeOnce(Buffer.from(dir), { names: 0, onEvent: () => {}, onGaveUp: () => {} });
    await watch?.close();
    await until('all watches are closed', () => watches() === 0);
  });
});
