import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { watchOnce } from '../../agent/watch/fs-events.ts';
import { freshPlace, until } from '../support/place.ts';

const ROUNDS = 40;

function watches(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'FSEventWrap').length;
}

describe('a watch for the next event', () => {
  it('hears of it once, ends by itself and leaves nothing open, whenever the event comes', async (t) => {
    const dir = await freshPlace(t);
    let heard = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const file = join(dir, `f${round}`);
      const folder = join(dir, `d${round}`);
      let nudges = 0;
      const gaveUp = () => assert.fail('there is no reason to give up');
      const begun = watchOnce(Buffer.from(dir), { names: 1, nudge: () => nudges++, gaveUp });
      // Sometimes before it has begun, sometimes after.
      if (round % 3 > 0) await sleep(round % 9);
      if (round % 3 < 2) await begun;
      mkdirSync(folder);
      writeFileSync(file, 'x');
      writeFileSync(file, 'xy');
      const watch = await begun;
      await sleep(20);
      rmSync(folder, { recursive: true });
      assert.equal(nudges <= 1, true, `${nudges} nudges`);
      heard += nudges;
      if (nudges === 0) await watch?.close();
    }
    assert.equal(heard > ROUNDS / 2, true, `${heard} of ${ROUNDS} heard`);
    await until('all watches are closed', () => watches() === 0);
  });

  it('begins on a directory that is not there as if there were nothing to hear', async (t) => {
    const dir = join(await freshPlace(t), 'none');
    const watch = await watchOnce(Buffer.from(dir), { names: 0, nudge: () => {}, gaveUp: () => {} });
    await watch?.close();
    await until('all watches are closed', () => watches() === 0);
  });
});
