import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { BOMBS, defuse } from '../prove/bombs.ts';
import { makeCorpus, runCases } from '../prove/mutate.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
/** `npm run prove -- mutate` runs twenty thousand. */
const CASES = 600;

const corpus = await makeCorpus(SEED);
after(() => corpus.folder.drop());

describe(`mutated bytes (seed ${SEED})`, () => {
  it('are refused with a LightkeeperError or read correctly', async () => {
    const failures: unknown[] = [];
    await runCases(corpus, CASES, (error) => failures.push(error));
    assert.deepEqual(failures.map(String), []);
  });
});

describe('a decompression bomb', () => {
  for (const bomb of BOMBS) it(`${bomb.name} is refused within bounds`, () => defuse(bomb));
});
