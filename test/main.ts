// `npm test`: all tests, some processes at a time. Many wait for other processes, so that there are more than cores.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { largeTests } from './files.ts';

const CONCURRENCY = 3;
const TIMEOUT_MS = 280_000;

const [first = '', ...others] = largeTests();
const options = [`--test-concurrency=${CONCURRENCY}`, `--test-timeout=${TIMEOUT_MS}`];
const files = [first, join(import.meta.dirname, 'small.ts'), ...others];
const { status } = spawnSync(process.execPath, ['--import', 'tsx', '--test', ...options, ...files], {
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
