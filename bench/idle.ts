import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { generate } from '../demo/generate.ts';
import { freshPlace, Guarded } from './guarded.ts';
import type { Report } from './report.ts';

const IDLE_MS = 60_000;

/** Memory of an `up` that has had nothing to do for a minute. */
export async function idle(bytes: number, report: Report): Promise<void> {
  const place = await freshPlace('idle');
  const dir = join(place, 'rag');
  await generate(dir, { seed: 3, bytes });
  const agent = new Guarded(['up', '--dir', dir, '--state', join(place, 'state'), '--http', '127.0.0.1:0']);
  try {
    await sleep(IDLE_MS + 15_000);
    const { rssBytes } = await agent.cost();
    report.ratio('Idle memory of `up`', rssBytes / 1e6 / 110, {
      floor: 1,
      text: `${(rssBytes / 1e6).toFixed(0)} MB a minute after the first snapshot of ${(bytes / 1e9).toFixed(1)} GB (at most 110)`,
    });
  } finally {
    await agent.end();
  }
}
