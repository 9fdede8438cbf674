// `npm test`: all tests, some processes at a time. Many wait for other processes, so that there are more than cores.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { largeTests, timedTests } from './files.ts';

const CONCURRENCY = 3;
const TIMEOUT_MS = 280_000;

/** Runs test files, and returns whether all have passed. */
function run(files: readonly string[], concurrency: number): boolean {
  const options = ['--test', `--test-concurrency=${concurrency}`, `--test-timeout=${TIMEOUT_MS}`];
  const { status } = spawnSync(process.execPath, ['--import', 'tsx', ...options, ...files], {
    stdio: 'inherit',
  });
  return status === 0;
}

const [first = '', ...others] = largeTests();
const timed = run(timedTests(), 1);
const all = run([first, join(import.meta.dirname, 'small.ts'), ...others], CONCURRENCY);
process.exitCode = timed && all ? 0 : 1;
