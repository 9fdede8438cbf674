import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { transformSync } from 'esbuild';
import { random } from '../../demo/random.ts';
import type { Snapshot } from '../support/case.ts';
import { FLUSHED, generationOf } from '../support/flusher.ts';
import { killGroup, lightkeeper, outcomeText, Running } from '../support/program.ts';
import { type Scratch, scratch } from './store-calls.ts';

const command = promisify(execFile);
/** One document each five seconds. */
const EVERY_MS = 5000;
const SETTLE_TIMEOUT = '10s';
const PAUSES_MS = [0, 300, 1000, 3000];
const NOT_TORN_MIN = 0.6;

/** What was found in restored copies. */
interface Counts {
  attempts: number;
  torn: number;
  cut: number;
  mixed: number;
}

/** What a restored directory holds: files that are cut, or whole ones of more than one flush. */
function judge(dir: string, counts: Counts): void {
  const generations = FLUSHED.map((name) => {
    const path = join(dir, name);
    return existsSync(path) ? generationOf(name, readFileSync(path)) : 'cut';
  });
  if (generations.includes('cut')) counts.cut += 1;
  else if (new Set(generations).size > 1) counts.mixed += 1;
}

/** A way to take a copy of the directory and to bring it back. */
interface Tool {
  readonly name: string;
  /** Takes a copy and answers whether the tool itself calls it torn. */
  take(dir: string, back: string): Promise<boolean>;
}

function ours(folder: Scratch): Tool {
  const store = folder.fresh('store');
  return {
    name: 'lightkeeper',
    take: async (dir, back) => {
      const common = ['--store', store, '--disk-reserve', '0', '--json'];
      const words = ['snapshot', '--dir', dir, '--settle-timeout', SETTLE_TIMEOUT, ...common];
      const ended = await lightkeeper(words);
      assert.equal(ended.code === 0 || ended.code === 3, true, outcomeText(ended));
      const snapshot = JSON.parse(ended.stdout) as Snapshot;
      if (snapshot.grade === 'TORN') return true;
      const restored = await lightkeeper([
        'restore',
        '--snapshot',
        snapshot.snapshotId,
        '--to',
        back,
        ...common,
      ]);
      assert.equal(restored.code, 0, outcomeText(restored));
      return false;
    },
  };
}

async function borg(folder: Scratch): Promise<Tool> {
  const repo = folder.fresh('borg');
  const env = { ...process.env, BORG_BASE_DIR: folder.fresh('borg-base') };
  await command('borg', ['init', '-e', 'none', repo], { env });
  let n = 0;
  return {
    name: 'borg',
    take: async (dir, back) => {
      const archive = `${repo}::${n++}`;
      // Exit code 1 is a warning ("file changed while we backed it up"): borg keeps the archive.
      await command('borg', ['create', archive, '.'], { env, cwd: dir }).catch(
        (error: { code?: unknown }) => {
          if (error.code !== 1) throw error;
        },
      );
      mkdirSync(back);
      await command('borg', ['extract', archive], { env, cwd: back });
      return false;
    },
  };
}

async function restic(folder: Scratch): Promise<Tool> {
  const repo = folder.fresh('restic');
  const env = { ...process.env, RESTIC_PASSWORD: 'x', RESTIC_CACHE_DIR: folder.fresh('restic-cache') };
  await command('restic', ['-r', repo, 'init'], { env });
  return {
    name: 'restic',
    take: async (dir, back) => {
      await command('restic', ['-r', repo, 'backup', '.'], { env, cwd: dir });
      await command('restic', ['-r', repo, 'restore', 'latest', '--target', back], { env });
      return false;
    },
  };
}

async function flushing(folder: Scratch, style: string, dir: string, pauseMs: number): Promise<() => void> {
  const program = join(folder.path, 'flusher.mjs');
  const source = readFileSync(join(import.meta.dirname, '../support/flusher.ts'));
  writeFileSync(program, transformSync(source, { loader: 'ts' }).code);
  const running = new Running([process.execPath, program, style, dir, String(pauseMs), String(EVERY_MS)]);
  await running.says(/^ready$/m);
  return () => killGroup(running.child);
}

async function scenario(
  style: string,
  pauseMs: number,
  options: { captures: number; seed: number; log: (line: string) => void },
): Promise<string[]> {
  const folder = scratch('torn');
  const dir = folder.fresh('data');
  mkdirSync(dir);
  const draw = random(options.seed);
  const stop = await flushing(folder, style, dir, pauseMs);
  const failures: string[] = [];
  try {
    for (const tool of [ours(folder), await borg(folder), await restic(folder)]) {
      const counts: Counts = { attempts: 0, torn: 0, cut: 0, mixed: 0 };
      // What the peers make of it shows in fewer.
      const captures = tool.name === 'lightkeeper' ? options.captures : Math.ceil(options.captures / 3);
      for (let i = 0; i < captures; i++) {
        await sleep(draw(2000));
        const back = folder.fresh('back');
        counts.attempts += 1;
        if (await tool.take(dir, back)) counts.torn += 1;
        else judge(back, counts);
        rmSync(back, { recursive: true, force: true });
      }
      options.log(
        `${style}, pause ${pauseMs} ms, ${tool.name}: ${counts.attempts} captures, ${counts.torn} called torn; ` +
          `of the others ${counts.cut} hold a cut file, ${counts.mixed} mix flushes`,
      );
      if (tool.name !== 'lightkeeper') continue;
      if (counts.cut > 0) failures.push(`${style}, ${pauseMs} ms: ${counts.cut} cut files in settled points`);
      const share = 1 - counts.torn / counts.attempts;
      if (pauseMs <= 300 && share < NOT_TORN_MIN) {
        failures.push(`${style}, ${pauseMs} ms: only ${(share * 100).toFixed(0)} % are not torn`);
      }
    }
  } finally {
    stop();
    folder.drop();
  }
  return failures;
}

/** Captures of a directory that is flushed every five seconds, beside what borg and restic make of it. */
export async function run(log: (line: string) => void): Promise<void> {
  const captures = Number(process.env.LIGHTKEEPER_COUNT ?? 30);
  const seed = Number(process.env.LIGHTKEEPER_SEED ?? 1);
  log(
    `seed ${seed}: ${captures} captures for each style and pause, a third as many of the peers; two files of 60 MB, one document each 5 s`,
  );
  const failures: string[] = [];
  for (const style of ['inplace', 'rename']) {
    for (const pauseMs of PAUSES_MS) {
      failures.push(...(await scenario(style, pauseMs, { captures, seed, log })));
    }
  }
  assert.deepEqual(failures, []);
}
