import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { dropPeerCorpus, makePeerCorpus, runPeerCases } from '../prove/peers.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
/** `npm run prove -- peers` runs ten thousand. */
const CASES = 1000;

const corpus = await makePeerCorpus(SEED);
after(() => dropPeerCorpus(corpus));

describe(`mutated messages between agents (seed ${SEED})`, () => {
  it('are refused with a LightkeeperError or used correctly, and never hang', async () => {
    const failures: unknown[] = [];
    await runPeerCases(corpus, CASES, (error) => failures.push(error));
    assert.deepEqual(failures.map(String), []);
  });
});
