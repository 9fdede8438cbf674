import { describe, it } from 'node:test';
import { runLives } from '../prove/roundtrip.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
/** `npm run prove -- roundtrip` runs hundreds. */
const LIVES = 5;

describe(`snapshot and restore (seed ${SEED})`, () => {
  it('return the same directory after random changes', async () => {
    await runLives(SEED, LIVES);
  });
});
