import assert from 'node:assert/strict';
import { it } from 'node:test';
import { random } from '../../demo/random.ts';
import { allCuts, assertMet, runCuts, someCuts } from '../prove/following.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
/** `npm run prove -- following` runs two hundred. */
const CUTS = 20;

it(`a kill of source or follower at a labelled effect: both converge (seed ${SEED})`, async (t) => {
  const cuts = someCuts(await allCuts(t), CUTS, random(SEED));
  const { met, failures } = await runCuts(cuts);
  assert.deepEqual(failures, []);
  assertMet(met, cuts.length);
});
