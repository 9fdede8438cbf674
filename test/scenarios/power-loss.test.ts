import { after, describe, it } from 'node:test';
import { drawCuts, record, runCut } from '../prove/power.ts';
import { inParallel } from '../prove/store-calls.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
/** `npm run prove -- power` runs eight for each moment. */
const CUTS = 16;

const recording = await record(SEED);
after(() => recording.folder.drop());

describe(`a power loss (seed ${SEED})`, () => {
  it('loses no committed snapshot', async () => {
    await inParallel(2, drawCuts(recording, CUTS), (cut) => runCut(recording, cut));
  });
});
