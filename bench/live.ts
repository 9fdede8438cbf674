import { spawn } from 'node:child_process';
import { readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { type Generated, generate, ingest } from '../demo/generate.ts';
import { builtFile } from '../host/built.ts';
import { freshPlace, Guarded } from './guarded.ts';
import { median } from './measure.ts';
import type { Report } from './report.ts';

const SETTLE_MS = 15_000;
const WATCHED_MS = 60_000;
const GRAPHS = 20;
const MB = 1e6;

async function newestChangeMs(dir: string): Promise<number> {
  const stats = await Promise.all((await readdir(dir)).map((name) => stat(join(dir, name))));
  return Math.max(...stats.map(({ ctimeMs }) => ctimeMs));
}

/** From the end of the quiet window after an ingest, which rewrites every file, to the point that is told of. */
async function latency(
  bytes: number,
  options: { rounds: number; limitSeconds: number },
  report: Report,
): Promise<void> {
  const place = await freshPlace('live');
  const dir = join(place, 'rag');
  let state: Generated = await generate(dir, { seed: 5, bytes });
  const agent = new Guarded(['up', '--dir', dir, '--state', join(place, 'state'), '--http', '127.0.0.1:0']);
  const seconds: number[] = [];
  const windows: number[] = [];
  try {
    await agent.point(1);
    for (let round = 1; round <= options.rounds; round++) {
      await sleep(1500);
      const windowMs = await agent.quietMs();
      const points = agent.toldMs.length;
      state = await ingest(dir, state, 1);
      const changedMs = await newestChangeMs(dir);
      // A pause between two files that is longer than the window makes a point of its own.
      for (let told = points; ; told = agent.toldMs.length) {
        const atMs = await agent.point(told + 1);
        if (atMs < changedMs) continue;
        seconds.push((atMs - changedMs - windowMs) / 1000);
        windows.push(windowMs);
        break;
      }
    }
  } finally {
    await agent.end();
  }
  const [middle, most] = [median(seconds), Math.max(...seconds)];
  const size = bytes < 1e9 ? `${bytes / MB} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
  const among = `${options.rounds} ingests, at most ${most.toFixed(2)} s, windows up to ${(Math.max(...windows) / 1000).toFixed(1)} s`;
  report.ratio(`A settled change of ${size}, all files rewritten`, middle / options.limitSeconds, {
    floor: 1,
    text: `${middle.toFixed(2)} s from the end of the quiet window to the committed point (median of ${among}; at most ${options.limitSeconds} s)`,
  });
}

/** Processor and memory of an agent that guards twenty graphs in which nothing happens. */
async function manyIdle(report: Report): Promise<void> {
  const place = await freshPlace('idle20');
  const graphs = [];
  for (let i = 0; i < GRAPHS; i++) {
    const dir = join(place, `rag${i}`);
    await generate(dir, { seed: i, bytes: 10 * MB });
    graphs.push({ id: `g${i}`, dir });
  }
  const config = join(place, 'config.yaml');
  await writeFile(config, stringify({ state: join(place, 'state'), graphs }));
  const agent = new Guarded(['agent', '--config', config, '--http', '127.0.0.1:0']);
  try {
    await agent.point(GRAPHS);
    await sleep(SETTLE_MS);
    const before = await agent.cost();
    await sleep(WATCHED_MS);
    const after = await agent.cost();
    const share = ((after.cpuSeconds - before.cpuSeconds) / WATCHED_MS) * 1000;
    report.ratio(`${GRAPHS} idle graphs of 10 MB, processor`, share / 0.01, {
      floor: 1,
      text: `${(share * 100).toFixed(2)} % of a core over a minute (at most 1 %)`,
    });
    report.ratio(`${GRAPHS} idle graphs of 10 MB, memory`, after.rssBytes / (130 * MB), {
      floor: 1,
      text: `${(after.rssBytes / MB).toFixed(0)} MB (at most 130)`,
    });
  } finally {
    await agent.end();
  }
}

/** Processor of an agent beside an instance that takes a document each five seconds. */
export async function busy(report: Report): Promise<void> {
  const place = await freshPlace('busy');
  const dir = join(place, 'rag');
  await generate(dir, { seed: 9, bytes: 100 * MB });
  const words = ['--dir', dir, '--ingest-every', '5s', '--query-every', '0', '--pause', '20ms'];
  const instance = spawn(process.execPath, [builtFile('instance.js'), ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const { port } = await new Promise<{ port: number }>((resolve) =>
    instance.stdout.once('data', (data: Buffer) => resolve(JSON.parse(data.toString()))),
  );
  const flags = ['--state', join(place, 'state'), '--http', '127.0.0.1:0'];
  const url = ['--instance-url', `http://127.0.0.1:${port}`];
  const agent = new Guarded(['up', '--dir', dir, ...flags, ...url]);
  try {
    await agent.point(2);
    const [before, points] = [await agent.cost(), agent.toldMs.length];
    await sleep(WATCHED_MS);
    const after = await agent.cost();
    const share = ((after.cpuSeconds - before.cpuSeconds) / WATCHED_MS) * 1000;
    report.ratio('One document each five seconds into 100 MB, processor', share / 0.1, {
      floor: 1,
      text: `${(share * 100).toFixed(1)} % of a core over a minute with ${agent.toldMs.length - points} points (at most 10 %)`,
    });
  } finally {
    await agent.end();
    instance.kill('SIGKILL');
  }
}

/** What an agent costs, and how soon it has a change. */
export async function live(bytes: number, report: Report): Promise<void> {
  await latency(10 * MB, { rounds: 15, limitSeconds: 0.25 }, report);
  await latency(bytes, { rounds: 3, limitSeconds: 1.5 }, report);
  await manyIdle(report);
  await busy(report);
}
