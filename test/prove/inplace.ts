import assert from 'node:assert/strict';
import { join } from 'node:path';
import { outcomeText, runToEnd } from '../support/program.ts';

const TEST = join(import.meta.dirname, '../scenarios/restore-in-place.test.ts');
const CUT_OFF = 'a kill|at each of its effects|on a bind mount|on a memory disk';
const TIMEOUT_MS = 3_600_000;

/** The proof: a restore in place is killed at each of its effects, on a plain directory, a bind mount, a memory disk. */
export async function run(log: (line: string) => void): Promise<void> {
  const command = [process.execPath, '--import', 'tsx', '--test', '--test-name-pattern', CUT_OFF, TEST];
  const env = { LIGHTKEEPER_COUNT: '100000', LIGHTKEEPER_SEED: process.env.LIGHTKEEPER_SEED ?? '1' };
  const ended = await runToEnd(command, { env, timeoutMs: TIMEOUT_MS });
  const lines = ended.stdout.split('\n').filter((line) => /^\s*(?:not )?ok .*state whole|kills:/.test(line));
  for (const line of lines) log(line.trim());
  assert.equal(ended.code, 0, outcomeText(ended));
  assert.equal(lines.filter((line) => /kills:/.test(line)).length, 3, 'on three kinds of directory');
}
