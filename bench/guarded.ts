import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { OURS, PLACE } from './peers.ts';

const WAIT_MS = 120_000;
/** The kernel counts processor time in hundredths of a second. */
const TICKS_A_SECOND = 100;

/** A running agent, and when it has told of its points. */
export class Guarded {
  readonly child: ChildProcess;
  readonly toldMs: number[] = [];
  /** When each of them was committed: before it was looked into. */
  readonly committedMs: number[] = [];
  #out = '';

  constructor(words: readonly string[]) {
    const [program = '', ...args] = [...OURS, ...words];
    this.child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    // A bench that fails must not leave it behind.
    process.once('exit', () => this.child.kill('SIGKILL'));
    // `up` prints on standard output, `agent` logs on standard error.
    for (const stream of [this.child.stdout, this.child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => this.#read(text));
  }

  #read(text: string): void {
    const now = Date.now();
    this.#out += text;
    const told = this.#out
      .split('\n')
      .slice(0, -1)
      .filter((line) => / snapshot [0-9a-f]{12}:| snapshot taken /.test(line));
    for (const line of told.slice(this.toldMs.length)) {
      this.toldMs.push(now);
      this.committedMs.push(now - gradedMs(line));
    }
  }

  /** When its n-th point was committed, by the wall clock; waits until it is told of. */
  async point(n: number): Promise<number> {
    const end = performance.now() + WAIT_MS;
    while (this.toldMs.length < n) {
      if (performance.now() > end || this.child.exitCode !== null)
        throw new Error(`point ${n} does not come:\n${this.#out}`);
      await sleep(5);
    }
    return this.committedMs[n - 1] as number;
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

/** How long a point was looked into, by the line that tells of it. */
function gradedMs(line: string): number {
  const [, logged] = / gradeMs=(\d+)/.exec(line) ?? [];
  if (logged !== undefined) return Number(logged);
  const [, amount = '0', unit] = /graded in ([\d.]+) (ms|s)/.exec(line) ?? [];
  return Number(amount) * (unit === 's' ? 1000 : 1);
}

/** An empty folder for one part of a bench. */
export async function freshPlace(name: string): Promise<string> {
  const place = join(PLACE, name);
  await rm(place, { recursive: true, force: true });
  await mkdir(place, { recursive: true });
  return place;
}
