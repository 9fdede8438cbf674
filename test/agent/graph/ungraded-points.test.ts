import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { generate } from '../../../demo/generate.ts';
import type { Snapshot } from '../../support/case.ts';
import { tempFolder, until } from '../../support/place.ts';
import { Agent, jsonOf } from '../../support/program.ts';

it('an agent at rest grades older points that are not graded', async (t) => {
  const place = await tempFolder(t);
  const [dir, store] = [join(place, 'rag'), join(place, 'store')];
  await generate(dir, { seed: 3, documents: 2, dimension: 8 });
  for (const n of ['1', '2', '3']) {
    writeFileSync(join(dir, 'notes'), n);
    await jsonOf(['snapshot', '--dir', dir, '--store', store, '--no-grade', '--disk-reserve', '0']);
  }
  new Agent(t, ['--dir', dir, '--store', store, '--disk-reserve', '0']);
  const grades = async () => {
    const { snapshots } = await jsonOf<{ snapshots: Snapshot[] }>(['list', '--store', store]);
    return snapshots.map(({ grade }) => grade);
  };
  await until(
    'all points are graded',
    async () => {
      await sleep(1000);
      return !(await grades()).includes('UNGRADED');
    },
    60_000,
  );
  assert.deepEqual(await grades(), ['VALID', 'VALID', 'VALID']);
});
