import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { describe, it } from 'node:test';
import type { LogSettings } from '../../host/config/log-settings.ts';
import { createLog, type Log } from '../../host/log.ts';

const ROOT = join(import.meta.dirname, '../..');
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/** Returns what a log writes, a line each. */
function linesOf(settings: LogSettings, write: (log: Log) => void): string[] {
  let text = '';
  const stream = new Writable({
    write: (chunk, _, done) => {
      text += String(chunk);
      done();
    },
  });
  write(createLog(settings, stream));
  assert.ok(text === '' || text.endsWith('\n'));
  return text.split('\n').slice(0, -1);
}

describe('a log as text', () => {
  it('has time, level, message and key=value, a line per event', () => {
    const [line = '', ...more] = linesOf({ level: 'info', format: 'text' }, (log) =>
      log.warn('disk is slow', { graph: 'main', ms: 12, dir: '/a b', empty: '', list: ['x', 'y'] }),
    );
    assert.deepEqual(more, []);
    const [time = '', ...rest] = line.split(' ');
    assert.match(time, RFC3339);
    assert.equal(rest.join(' '), 'warn  disk is slow graph=main ms=12 dir="/a b" empty="" list=["x","y"]');
  });

  it('stays on one line, without control characters', () => {
    const [line = '', ...more] = linesOf({ level: 'info', format: 'text' }, (log) =>
      log.info('a\nb\x1b[31m', { dir: '/d\n\x9b31m', word: 'x\u2028y' }),
    );
    assert.deepEqual(more, []);
    assert.match(line, / a\\u000ab\\u001b\[31m dir="\/d\\n\\u009b31m" word="x\\u2028y"$/);
  });
});

describe('a log as JSON', () => {
  it('is one object per line with time, level, message and the fields', () => {
    const [line = '', ...more] = linesOf({ level: 'info', format: 'json' }, (log) =>
      log.error('no\nspace', { graph: 'main', bytes: 1 }),
    );
    assert.deepEqual(more, []);
    const { time, ...rest } = JSON.parse(line) as Record<string, unknown>;
    assert.match(String(time), RFC3339);
    assert.deepEqual(rest, { level: 'error', message: 'no\nspace', graph: 'main', bytes: 1 });
  });
});

describe('the level of a log', () => {
  const levels = ['debug', 'info', 'warn', 'error'] as const;
  for (const [i, level] of levels.entries()) {
    it(`${level} leaves out what is below it`, () => {
      const lines = linesOf({ level, format: 'json' }, (log) => {
        for (const one of levels) log[one]('event');
      });
      const written = lines.map((line) => (JSON.parse(line) as { level: string }).level);
      assert.deepEqual(written, levels.slice(i));
    });
  }
});

/** Logs lines for a while, then reports on standard output that it is alive. */
const CHILD = `
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLog } from './host/log.ts';
const [format, count] = process.argv.slice(1);
const log = createLog({ level: 'info', format });
for (let i = 0; i < Number(count); i++) {
  log.info('event', { i, padding: 'x'.repeat(1000) });
  if (i % 100 === 0) await sleep(10);
}
await sleep(50);
process.stdout.write('alive');
if (process.stderr.writableLength > 2e6) process.exit(1);
if (process.stderr.writableLength > 0) await once(process.stderr, 'drain');
log.info('last');
`;

function startChild(words: readonly string[], stderr: number | 'pipe') {
  const args = ['--import', 'tsx', '--input-type=module', '-e', CHILD, ...words];
  const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', stderr] });
  let out = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  const ended = once(child, 'close').then(([code, signal]: unknown[]) => ({ code, signal, out }));
  return { child, ended };
}

describe('a log that cannot be written', { concurrency: true, timeout: 60_000 }, () => {
  const alive = { code: 0, signal: null, out: 'alive' };

  for (const format of ['text', 'json']) {
    it(`to a full disk ends nothing, as ${format}`, async () => {
      const full = openSync('/dev/full', 'w');
      const { ended } = startChild([format, '300'], full);
      closeSync(full);
      assert.deepEqual(await ended, alive);
    });

    it(`to a reader that has gone ends nothing, as ${format}`, async () => {
      const { child, ended } = startChild([format, '300'], 'pipe');
      child.stderr?.destroy();
      assert.deepEqual(await ended, alive);
    });
  }

  it('to a reader that stalls keeps little, and later reports how many lines were lost', async () => {
    const count = 5000;
    const { child, ended } = startChild(['text', `${count}`], 'pipe');
    const [said] = (await once(child.stdout ?? assert.fail('a pipe'), 'data')) as [string];
    assert.equal(said, 'alive');
    let text = '';
    child.stderr?.setEncoding('utf8').on('data', (more: string) => {
      text += more;
    });
    assert.deepEqual(await ended, alive);
    const lines = text.split('\n').slice(0, -1);
    const [, lost = ''] = / log lines were lost lines=(\d+)$/.exec(lines.at(-2) ?? '') ?? [];
    assert.match(lines.at(-1) ?? '', / last$/);
    assert.ok(Number(lost) > 0);
    assert.equal(lines.filter((line) => line.includes(' event ')).length + Number(lost), count);
  });
});
