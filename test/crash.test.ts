import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { random } from '../demo/random.ts';
import { type Case, casesOf, makeWorld, runCase, sampleOf, traceOf } from './prove/crash.ts';
import { MET_SHARE, makeHeld, runHeld } from './prove/held.ts';
import { inParallel } from './prove/store-calls.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
/** Of some two thousand; `npm run prove -- crash` runs them all. */
const CASES = 20;
const HELD_EVERY = 24;

const world = await makeWorld(SEED, { large: false });
after(() => world.folder.drop());

describe(`an interrupted command (seed ${SEED})`, () => {
  it('leaves a sound store, for a sample of kills and disk errors at labelled effects', async () => {
    const cases: Case[] = [];
    await inParallel(2, world.scenes, async (scene) => {
      cases.push(...casesOf(scene, await traceOf(world, scene)));
    });
    const byName = cases.sort((a, b) => (a.scene.name + a.fault < b.scene.name + b.fault ? -1 : 1));
    const sample = sampleOf(byName, CASES, random(SEED));
    assert.equal(sample.length, CASES);
    await inParallel(2, sample, (one) => runCase(world, one, 'own'));
  });

  it('that met a disk error can be repeated in the same process', async () => {
    const held = await makeHeld(SEED);
    try {
      const sample = held.cases.filter((_, i) => i % HELD_EVERY === SEED % HELD_EVERY);
      let met = 0;
      for (const one of sample) if (await runHeld(held, one)) met += 1;
      assert.ok(met >= sample.length * MET_SHARE, `${met} of ${sample.length} were met`);
    } finally {
      held.folder.drop();
    }
  });
});
