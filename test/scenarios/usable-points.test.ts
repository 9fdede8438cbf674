import { describe, it } from 'node:test';
import { proveGrades, STYLES } from '../prove/graded.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
/** A few points of each kind; `npm run prove -- graded` takes hundreds, with pauses of up to three seconds. */
const AMOUNT = {
  seed: SEED,
  captures: 2,
  documents: 12,
  pausesMs: [300],
  ingestEvery: '2s',
  withinMs: 30_000,
  withShares: false,
};

describe(`usable snapshots beside constant writes (seed ${SEED})`, { concurrency: 2 }, () => {
  for (const style of STYLES) {
    it(`keep every promise, written ${style.style}`, async (t) => {
      await proveGrades(t, [style], AMOUNT, (line) => t.diagnostic(line));
    });
  }
});
