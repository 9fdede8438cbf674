import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { isAbsolute } from 'node:path';
import { exitCodeOf } from '../../cli/exit.ts';
import { printError } from '../../cli/print-error.ts';
import { runCommand } from '../../cli/run-command.ts';
import { normalise } from '../../core/errors.ts';
import type { Ended } from './program.ts';

/** What a command that runs in this process has written. */
interface Own {
  stdout: string;
  stderr: string;
}

const own = new AsyncLocalStorage<Own>();

function keepWrites(name: 'stdout' | 'stderr'): void {
  const stream = process[name];
  const write = stream.write.bind(stream) as (...args: unknown[]) => boolean;
  stream.write = (...args: unknown[]) => {
    const running = own.getStore();
    if (running === undefined) return write(...args);
    running[name] += String(args[0]);
    return true;
  };
}

keepWrites('stdout');
keepWrites('stderr');

/** Flags whose value is a path, which must not depend on the folder of this process. */
const PATH_FLAGS = new Set(['--dir', '--store', '--state', '--to', '--in-place']);

/** The end of the command before: there is one exit code for all of a process. */
let last: Promise<unknown> = Promise.resolve();

/**
 * Runs one command line in this process, as `main.ts` does, after those that were begun before: for what does not depend
 * on a process of its own, its variables or its folder. To start the program costs more than most commands.
 */
export function commandHere(args: readonly string[]): Promise<Ended> {
  for (const [i, word] of args.entries())
    assert.ok(!PATH_FLAGS.has(args[i - 1] ?? '') || isAbsolute(word), `${word} would be below the sources`);
  const running = last.then(() => run(args));
  last = running.catch(() => {});
  return running;
}

async function run(args: readonly string[]): Promise<Ended> {
  const began = performance.now();
  const written: Own = { stdout: '', stderr: '' };
  const ofThisProcess = process.exitCode;
  process.exitCode = undefined;
  try {
    await own.run(written, () => runOrPrint(args));
    const code = Number(process.exitCode ?? 0);
    return { code, signal: null, ...written, ms: performance.now() - began };
  } finally {
    process.exitCode = ofThisProcess;
  }
}

async function runOrPrint(args: readonly string[]): Promise<void> {
  try {
    await runCommand(args);
  } catch (error) {
    const failure = normalise(error);
    printError(failure, args.includes('--json'));
    process.exitCode = exitCodeOf(failure.code);
  }
}
