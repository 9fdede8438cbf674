import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

const ROOT = join(import.meta.dirname, '../..');

/** Takes `lastMs` for its last work after a stop; ends with 130 by its own listener, as the program does. */
const CHILD = `
import { abortOnStopSignals } from './host/lifecycle.ts';
const lastMs = Number(process.argv[1]);
for (const name of ['SIGINT', 'SIGTERM'])
  process.on(name, () => { if (process.listenerCount(name) === 1) process.exit(130); });
const alive = setInterval(() => {}, 1000);
const signal = abortOnStopSignals(() => process.stdout.write('stopping'));
signal.addEventListener('abort', () => setTimeout(() => clearInterval(alive), lastMs));
process.stdout.write('ready');
`;

interface Child {
  readonly child: ChildProcess;
  readonly says: (word: string) => Promise<void>;
  readonly text: () => string;
  readonly ended: Promise<number | null>;
}

async function start(lastMs: number): Promise<Child> {
  const args = ['--import', 'tsx', '--input-type=module', '-e', CHILD, `${lastMs}`];
  const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  const says = async (word: string) => {
    while (!out.includes(word)) await sleep(10);
  };
  const ended = once(child, 'close').then(([code]: (number | null)[]) => code ?? null);
  await says('ready');
  return { child, says, text: () => out, ended };
}

describe('stop signals of a daemon', { concurrency: true, timeout: 20_000 }, () => {
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    it(`${name} aborts, and the process ends by itself with 0`, async () => {
      const { child, ended, text } = await start(0);
      child.kill(name);
      assert.equal(await ended, 0);
      assert.equal(text(), 'readystopping');
    });
  }

  it('the same signal within a second is one signal', async () => {
    const { child, says, ended, text } = await start(500);
    child.kill('SIGTERM');
    await says('stopping');
    child.kill('SIGTERM');
    child.kill('SIGINT');
    assert.equal(await ended, 0);
    assert.equal(text(), 'readystopping');
  });

  it('the same signal after a second ends the process at once', async () => {
    const { child, says, ended } = await start(15_000);
    child.kill('SIGINT');
    await says('stopping');
    await sleep(1200);
    child.kill('SIGINT');
    assert.equal(await ended, 130);
  });
});
