import assert from 'node:assert/strict';
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { join } from 'node:path';

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
}

/** How a process ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

/** Starts a process in a group of its own, so that nothing below it outlives it. */
export function start(command: readonly string[], options: StartOptions = {}): ChildProcess {
  const [program = '', ...args] = [...(options.under ?? []), ...command];
  const { LIGHTKEEPER_STORE: _, LIGHTKEEPER_STATE: __, ...env } = process.env;
  const spawnOptions: SpawnOptions = { env: { ...env, ...options.env }, detached: true };
  if (options.cwd !== undefined) spawnOptions.cwd = options.cwd;
  if (options.fd3 !== undefined) spawnOptions.stdio = ['pipe', 'pipe', 'pipe', options.fd3];
  const child = spawn(program, args, spawnOptions);
  running.add(child);
  child.once('close', () => running.delete(child));
  return child;
}

/** What was started and has not ended: it must not outlive the tests, however they end. */
const running = new Set<ChildProcess>();

function killRunning(): void {
  for (const child of running) killGroup(child);
}

process.once('exit', killRunning);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    killRunning();
    process.exit(1);
  });
}

/** Ends a process with all that it has started. */
export function killGroup({ pid, exitCode, signalCode }: ChildProcess): void {
  if (pid === undefined || exitCode !== null || signalCode !== null) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Runs a process to its end. */
export function runToEnd(command: readonly string[], options: StartOptions = {}): Promise<Ended> {
  const began = performance.now();
  const child = start(command, options);
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const late = setTimeout(() => killGroup(child), options.timeoutMs ?? TIMEOUT_MS);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(late);
      resolve({ code, signal, stdout, stderr, ms: performance.now() - began });
    });
  });
}

/** Runs `lightkeeper` to its end. */
export function lightkeeper(args: readonly string[], options: StartOptions = {}): Promise<Ended> {
  return runToEnd([process.execPath, BUILT, ...args], options);
}

/** What ended as a text for a failed test. */
export function told({ code, signal, stdout, stderr }: Ended): string {
  return `exit ${code ?? signal}\n${stdout.slice(0, 4000)}\n${stderr.slice(0, 4000)}`;
}

/** Runs `lightkeeper … --json`, which must end with `code`, and answers its one document. */
export async function answerOf<T>(
  args: readonly string[],
  options: StartOptions & { code?: number } = {},
): Promise<T> {
  const ended = await lightkeeper([...args, '--json'], options);
  assert.equal(ended.code, options.code ?? 0, told(ended));
  return JSON.parse(ended.stdout) as T;
}

/** What a refusal must say. */
export interface Refusal {
  readonly code: number;
  readonly error: RegExp;
  readonly hint: RegExp;
}

/** Asserts that a command ended as a refusal does: an error that says what, a hint that says the mend. */
export function assertRefused(ended: Ended, { code, error, hint }: Refusal): void {
  const [first = '', second = '', ...more] = ended.stderr.trimEnd().split('\n');
  assert.match(first, /^error: Cannot /, told(ended));
  assert.match(first, error, told(ended));
  assert.match(second, /^hint: /, told(ended));
  assert.match(second, hint, told(ended));
  assert.deepEqual(more, [], told(ended));
  assert.equal(ended.code, code, told(ended));
}
