import { join } from 'node:path';
import { generate } from '../demo/generate.ts';
import { freshPlace } from './guarded.ts';
import { filesBytes, measure, median } from './measure.ts';
import { OURS } from './peers.ts';
import type { Report } from './report.ts';

const ROUNDS = 3;
const FLOOR_MB_S = 200;
const GOAL_MB_S = 400;

/** Speed and memory of the checks of a graph, the start of the program included. */
export async function checks(bytes: number, report: Report): Promise<void> {
  const dir = join(await freshPlace('check'), 'rag');
  await generate(dir, { seed: 4, bytes });
  const size = await filesBytes(dir);
  const runs = [];
  for (let round = 0; round < ROUNDS; round++)
    runs.push(await measure({ name: 'ours', command: [...OURS, 'validate', '--dir', dir] }));
  const speed = size / 1e6 / median(runs.map(({ seconds }) => seconds));
  const memory = Math.max(...runs.map(({ rssBytes }) => rssBytes)) / 1e6;
  report.ratio('Checks of a graph (`validate`)', FLOOR_MB_S / speed, {
    floor: 1,
    goal: FLOOR_MB_S / GOAL_MB_S,
    text: `${speed.toFixed(0)} MB/s over ${(size / 1e9).toFixed(1)} GB on one core (at least ${FLOOR_MB_S}, goal ${GOAL_MB_S}), peak memory ${memory.toFixed(0)} MB`,
  });
}
