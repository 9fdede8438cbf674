import assert from 'node:assert/strict';
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { join } from 'node:path';
import { atEnd, type Scope, until } from './place.ts';

/** The program as it is shipped. */
export const BUILT = join(import.meta.dirname, '../../dist/lightkeeper.js');
const TIMEOUT_MS = 120_000;

/** How a process is started. */
export interface StartOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Words before the command: `setpriv …`, `strace …`. */
  readonly under?: readonly string[];
  readonly cwd?: string;
  readonly timeoutMs?: number;
  /** An open file that the process has as its descriptor 3. */
  readonly fd3?: number;
  /** Its standard input is a pipe, instead of nothing. */
  readonly writesStdin?: boolean;
}

/** How a process ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

/** Processes that have not ended: they must not outlive the tests, however these end. */
const alive = new Set<ChildProcess>();

function killAlive(): void {
  for (const child of alive) killGroup(child);
}

process.once('exit', killAlive);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    killAlive();
    process.exit(1);
  });
}

/** Kills a process and all that it has started. */
export function killGroup({ pid, exitCode, signalCode }: ChildProcess): void {
  if (pid === undefined || exitCode !== null || signalCode !== null) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Starts a process in a group of its own, without the settings that this process has from outside. */
function spawnGroup(command: readonly string[], options: StartOptions): ChildProcess {
  const [program = '', ...args] = [...(options.under ?? []), ...command];
  const { LIGHTKEEPER_STORE: _, LIGHTKEEPER_STATE: __, ...env } = process.env;
  const spawnOptions: SpawnOptions = {
    env: { ...env, ...options.env },
    detached: true,
    stdio: [
      options.writesStdin === true ? 'pipe' : 'ignore',
      'pipe',
      'pipe',
      ...(options.fd3 === undefined ? [] : [options.fd3]),
    ],
  };
  if (options.cwd !== undefined) spawnOptions.cwd = options.cwd;
  return spawn(program, args, spawnOptions);
}

/** A started process, with what it has written so far. */
export class Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';

  constructor(command: readonly string[], options: StartOptions = {}) {
    const began = performance.now();
    this.child = spawnGroup(command, options);
    alive.add(this.child);
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.ended = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code, signal) => {
        alive.delete(this.child);
        const { stdout, stderr } = this;
        resolve({ code, signal, stdout, stderr, ms: performance.now() - began });
      });
    });
  }

  /** The process itself, under whatever it was started with. */
  get pid(): number {
    return this.child.pid ?? assert.fail('it was not started');
  }

  /** What it has written, on both streams. */
  get text(): string {
    return `${this.stdout}\n${this.stderr}`;
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Kills the process when the test ends, and waits for its end. */
  endWith(t: Scope): this {
    atEnd(t, async () => {
      killGroup(this.child);
      await this.ended.catch(() => {});
    });
    return this;
  }

  /** Waits until something holds; fails if the process ends before. */
  async until(what: string, holds: () => boolean, ms?: number): Promise<void> {
    await until(what, () => holds() || this.hasEnded, ms).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${this.text}`);
    });
    assert.ok(holds(), `it ended before: ${what}\n${this.text}`);
  }

  /** Waits until it has written what matches, on either stream. */
  async says(what: RegExp, ms?: number): Promise<RegExpExecArray> {
    await this.until(`${what}`, () => what.test(this.text), ms);
    return what.exec(this.text) ?? assert.fail(this.text);
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Ends the process by a signal, or kills it if it does not end in time. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Ended & { readonly tookMs: number }> {
    const began = performance.now();
    this.kill(signal);
    const ended = await this.#endedWithin(TIMEOUT_MS);
    return { ...ended, tookMs: performance.now() - began };
  }

  async #endedWithin(ms: number): Promise<Ended> {
    const late = setTimeout(() => killGroup(this.child), ms);
    return await this.ended.finally(() => clearTimeout(late));
  }

  /** Runs a process to its end. */
  static toEnd(command: readonly string[], options: StartOptions = {}): Promise<Ended> {
    return new Running(command, options).#endedWithin(options.timeoutMs ?? TIMEOUT_MS);
  }
}

/** Starts `lightkeeper`. */
export function startLightkeeper(args: readonly string[], options: StartOptions = {}): Running {
  return new Running([process.execPath, BUILT, ...args], options);
}

/** Runs a process to its end. */
export function runToEnd(command: readonly string[], options: StartOptions = {}): Promise<Ended> {
  return Running.toEnd(command, options);
}

/** Runs `lightkeeper` to its end. */
export function lightkeeper(args: readonly string[], options: StartOptions = {}): Promise<Ended> {
  return runToEnd([process.execPath, BUILT, ...args], options);
}

/** Returns how a process ended as a text for a failed test. */
export function outcomeText({ code, signal, stdout, stderr }: Omit<Ended, 'ms'>): string {
  return `exit ${code ?? signal}\n${stdout.slice(0, 4000)}\n${stderr.slice(0, 4000)}`;
}

/** Runs `lightkeeper … --json`, which must end with `code`, and returns its one document. */
export async function jsonOf<T>(
  args: readonly string[],
  options: StartOptions & { code?: number } = {},
): Promise<T> {
  const ended = await lightkeeper([...args, '--json'], options);
  assert.equal(ended.code, options.code ?? 0, outcomeText(ended));
  return JSON.parse(ended.stdout) as T;
}

/** What a refusal must say. */
export interface Refusal {
  readonly code: number;
  readonly error: RegExp;
  readonly hint: RegExp;
}

/** Asserts that a command ended as a refusal does: an error that says what, a hint that says the mend. */
export function assertRefused(ended: Omit<Ended, 'ms'>, { code, error, hint }: Refusal): void {
  const [first = '', second = '', ...more] = ended.stderr.trimEnd().split('\n');
  assert.match(first, /^error: Cannot /, outcomeText(ended));
  assert.match(first, error, outcomeText(ended));
  assert.match(second, /^hint: /, outcomeText(ended));
  assert.match(second, hint, outcomeText(ended));
  assert.deepEqual(more, [], outcomeText(ended));
  assert.equal(ended.code, code, outcomeText(ended));
}

/** How an agent is started. */
export interface AgentOptions extends StartOptions {
  readonly command?: 'up' | 'agent';
}

/** A running agent. */
export class Agent extends Running {
  /** Starts an agent on a free port, unless the words name another; it is killed when the test ends. */
  constructor(t: Scope, words: readonly string[], options: AgentOptions = {}) {
    const http =
      words.includes('--http') || words.includes('--default-http') ? [] : ['--http', '127.0.0.1:0'];
    const flags = words.filter((word) => word !== '--default-http');
    super([process.execPath, BUILT, options.command ?? 'up', ...flags, ...http], options);
    this.endWith(t);
  }

  /** Starts of the ids of the snapshots that it has printed, side snapshots left out. */
  get points(): string[] {
    const printed = / snapshot ([0-9a-f]{12}):/g;
    const logged = / snapshot taken .*? snapshot=([0-9a-f]{12})/g;
    const found = [...this.stdout.matchAll(printed), ...this.stderr.matchAll(logged)];
    return found.map(([, id]) => id as string);
  }

  /** Waits for its n-th point. */
  async point(n: number, ms?: number): Promise<string> {
    await this.until(`point ${n}`, () => this.points.length >= n, ms);
    return this.points[n - 1] ?? assert.fail(this.text);
  }
}
