#!/usr/bin/env node
import { LightkeeperError, normalise } from '../core/errors.ts';
import { version } from '../host/version.ts';
import { EXIT, exitCodeOf } from './exit.ts';
import { printError } from './print-error.ts';

// An interrupt must not print a second document.
/** Whether the command has printed its result or its error. */
let isReported = false;

async function main(args: readonly string[]): Promise<void> {
  try {
    // Scripts ask for it often: the rest of the program is not loaded for that.
    if (args.length === 1 && (args[0] === '--version' || args[0] === '-V')) {
      process.stdout.write(`${version}\n`);
    } else {
      const { runCommand } = await import('./run-command.ts');
      await runCommand(args);
    }
    isReported = true;
  } catch (error) {
    isReported = true;
    const failure = normalise(error);
    printError(failure, args.includes('--json'));
    if (process.env.LIGHTKEEPER_DEBUG === '1') console.error(error);
    process.exitCode = exitCodeOf(failure.code);
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // A daemon has its own listeners and ends by itself. A command may end at any time: nothing unfinished is stored.
    if (process.listenerCount(signal) !== 1) return;
    const failure = new LightkeeperError('CANCELLED', 'Cannot finish: it was interrupted');
    if (!isReported) printError(failure, process.argv.includes('--json'));
    process.exit(EXIT.interrupted);
  });
}
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // A daemon has its own listener, and goes on without a reader.
  if (process.stdout.listenerCount('error') !== 1) return;
  // Without a reader there is nothing left to do.
  if (error.code === 'EPIPE') process.exit(EXIT.done);
  throw error;
});

await main(process.argv.slice(2));
