import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { type Generated, generate, ingest } from '../demo/generate.ts';
import { builtFile } from '../host/built.ts';
import { median } from './measure.ts';
import { OURS, PLACE } from './peers.ts';
import type { Report } from './report.ts';

const WAIT_MS = 120_000;
const SETTLE_MS = 15_000;
const WATCHED_MS = 60_000;
/** The kernel counts processor time in hundredths of a second. */
const TICKS_A_SECOND = 100;
const GRAPHS = 20;
const MB = 1e6;

/** A running agent, and when it has told of its points. */
class Guarded {
  readonly child: ChildProcess;
  readonly toldMs: number[] = [];
  #out = '';

  constructor(words: readonly string[]) {
    const [program = '', ...args] = [...OURS, ...words];
    this.child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      const now = Date.now();
      this.#out += text;
      const told = this.#out.match(/ snapshot [0-9a-f]{12}:/g)?.length ?? 0;
      while (this.toldMs.length < told) this.toldMs.push(now);
    });
  }

  /** When its n-th point was told, by the wall clock. */
  async point(n: number): Promise<number> {
    const end = performance.now() + WAIT_MS;
    while (this.toldMs.length < n) {
      if (performance.now() > end || this.child.exitCode !== null)
        throw new Error(`point ${n} does not come:\n${this.#out}`);
      await sleep(5);
    }
    return this.toldMs[n - 1] as number;
  }

  /** The quiet window that holds for its graph, in milliseconds. */
  async quietMs(): Promise<number> {
    const url = /(http:\/\/\S+)\/metrics/.exec(this.#out)?.[1] ?? '';
    const { graphs } = (await (await fetch(`${url}/readiness`)).json()) as { graphs: { quietMs: number }[] };
    return graphs[0]?.quietMs ?? Number.NaN;
  }

  /** Processor time so far, in seconds, and resident memory now, in bytes. */
  async cost(): Promise<{ cpuSeconds: number; rssBytes: number }> {
    const line = await readFile(`/proc/${this.child.pid}/stat`, 'latin1');
    const fields = line.slice(line.lastIndexOf(')') + 2).split(' ');
    const status = await readFile(`/proc/${this.child.pid}/status`, 'latin1');
    return {
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND,
      rssBytes: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1024,
    };
  }

  async end(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGTERM');
    await ended;
  }
}

async function freshPlace(name: string): Promise<string> {
  const place = join(PLACE, name);
  await rm(place, { recursive: true, force: true });
  await mkdir(place, { recursive: true });
  return place;
}

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
async function busy(report: Report): Promise<void> {
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
