import { spawn } from 'node:child_process';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { generate } from '../demo/generate.ts';
import { OURS, PLACE } from './peers.ts';
import type { Report } from './report.ts';

const IDLE_MS = 60_000;

/** Memory of an `up` that has had nothing to do for a minute. */
export async function idle(bytes: number, report: Report): Promise<void> {
  const place = join(PLACE, 'idle');
  await rm(place, { recursive: true, force: true });
  await mkdir(place, { recursive: true });
  const dir = join(place, 'rag');
  await generate(dir, { seed: 3, bytes });
  const [program, ...args] = [
    ...OURS,
    'up',
    '--dir',
    dir,
    '--state',
    join(place, 'state'),
    '--http',
    '127.0.0.1:0',
  ];
  const child = spawn(program as string, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  try {
    await sleep(IDLE_MS + 15_000);
    const status = await readFile(`/proc/${child.pid}/status`, 'utf8');
    const rss = Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? Number.NaN) * 1024;
    report.ratio('Idle memory of `up`', rss / 1e6 / 110, {
      floor: 1,
      text: `${(rss / 1e6).toFixed(0)} MB a minute after the first snapshot of ${(bytes / 1e9).toFixed(1)} GB (at most 110)`,
    });
  } finally {
    child.kill('SIGTERM');
    await new Promise((resolve) => child.once('exit', resolve));
  }
}
