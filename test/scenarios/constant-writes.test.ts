import { describe, it } from 'node:test';
import { writeConstantly } from '../prove/constant.ts';
import { needing } from '../support/machine.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
/** Each trouble once; `npm run prove -- constant` goes on for an hour. */
const AMOUNT = {
  seed: SEED,
  chapters: 7,
  writeMs: 1800,
  restMs: 1200,
  diskBytes: 64e6,
  instance: ['--ingest-every', '1500ms', '--query-every', '600ms', '--pause', '10ms'],
};

describe(`an agent beside constant writes (seed ${SEED})`, needing('mount', 'faketime'), () => {
  it('captures the last state after every disturbance, and every snapshot is sound', async (t) => {
    await writeConstantly(t, AMOUNT, (line) => t.diagnostic(line));
  });
});
