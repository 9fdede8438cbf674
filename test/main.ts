// `npm test`, and with the word `long` `npm run test:long`: test files, some processes at a time.
// Many wait for other processes, so that there are more than cores.
import { spawnSync } from 'node:child_process';
import { type Selection, testFiles, timedTests } from './files.ts';

const CONCURRENCY = 3;
// A group of files counts as one test, and takes minutes on a busy machine.
const TIMEOUT_MS = 600_000;

/** Runs test files, and returns whether all have passed. */
function run(files: readonly string[], concurrency: number): boolean {
  if (files.length === 0) return true;
  const options = ['--test', `--test-concurrency=${concurrency}`, `--test-timeout=${TIMEOUT_MS}`];
  const { status } = spawnSync(process.execPath, ['--import', 'tsx', ...options, ...files], {
    stdio: 'inherit',
  });
  return status === 0;
}

const selection: Selection = process.argv[2] === 'long' ? 'long' : 'quick';
const timed = run(timedTests(selection), 1);
const all = run(testFiles(selection), CONCURRENCY);
process.exitCode = timed && all ? 0 : 1;
