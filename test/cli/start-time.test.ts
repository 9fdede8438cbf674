import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Place } from '../support/cli-place.ts';
import { BUILT, runToEnd } from '../support/program.ts';

const PACKAGE = join(import.meta.dirname, '../../package.json');
const { version: VERSION } = JSON.parse(readFileSync(PACKAGE, 'utf8')) as { version: string };

/** Seconds that a command takes: on the clock or, as other processes compute too, on the processor. */
async function secondsOf(command: readonly string[], printed: RegExp): Promise<number> {
  const timed = ['bash', '-c', 'TIMEFORMAT="%R %U %S"; time "$@"', 'bash'];
  const { code, stdout, stderr } = await runToEnd([...timed, ...command], { env: new Place().env });
  assert.equal(code, 0);
  assert.match(stdout, printed);
  const [real = 0, user = 0, system = 0] = stderr.trim().split(' ').map(Number);
  return Math.min(real, user + system);
}

const SIMPLE_QUESTIONS: Readonly<Record<string, RegExp>> = {
  '--version': new RegExp(`^${VERSION.replaceAll('.', '\\.')}\n$`),
  '-V': new RegExp(`^${VERSION.replaceAll('.', '\\.')}\n$`),
  '--help': /^Usage: lightkeeper /,
};
const LIMIT_S = 0.15;
/** The limit as a multiple of the start of Node alone. */
const LIMIT_RATIO = LIMIT_S / 0.04;
const ATTEMPTS = 5;

describe('a simple question', () => {
  for (const [flag, printed] of Object.entries(SIMPLE_QUESTIONS)) {
    it(`${flag} ends within 150 ms`, async () => {
      let best = Number.POSITIVE_INFINITY;
      let bare = Number.POSITIVE_INFINITY;
      for (let i = 0; i < ATTEMPTS && best >= LIMIT_S; i++) {
        if (i > 0) await sleep(500);
        best = Math.min(best, await secondsOf([process.execPath, BUILT, flag], printed));
        bare = Math.min(bare, await secondsOf([process.execPath, '-e', '0'], /^$/));
      }
      // On a quiet machine Node alone takes 40 ms. Where that takes longer, so may the program, in proportion.
      const limit = Math.max(LIMIT_S, bare * LIMIT_RATIO);
      assert.ok(best < limit, `${best} s at best; Node alone takes ${bare} s`);
    });
  }
});
