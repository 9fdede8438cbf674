import assert from 'node:assert/strict';
import {
  appendFileSync,
  closeSync,
  mkdirSync,
  openSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { Case } from '../support/case.ts';
import { fillMany, noise } from '../support/fill.ts';
import { assertSameTree, readTree } from '../support/tree.ts';
import { type Scratch, scratch } from './store-calls.ts';

const GB = 1_000_000_000;
const STEP = 50_000_000;

/** 3 GB that no compressor makes smaller, and of which no part occurs twice. */
function writeDense(file: string): void {
  const fd = openSync(file, 'w');
  for (let at = 0; at < 3 * GB; at += STEP) writeSync(fd, noise(at, STEP));
  closeSync(fd);
}

function writeSparse(file: string): void {
  writeFileSync(file, 'the first bytes');
  truncateSync(file, 3 * GB);
  appendFileSync(file, noise('tail', 100_000));
}

const TREES: Readonly<Record<string, (dir: string) => void>> = {
  'one file of 3 GB': (dir) => writeDense(join(dir, 'dense')),
  'one sparse file of 3 GB': (dir) => writeSparse(join(dir, 'sparse')),
  '100,000 small files': (dir) => fillMany(dir, 100_000),
};

async function roundTrip(name: string, folder: Scratch, log: (line: string) => void): Promise<void> {
  const subject = new Case(folder.fresh('data'), folder.fresh('store'));
  mkdirSync(subject.dir);
  TREES[name]?.(subject.dir);
  const seconds: string[] = [];
  const timed = async <T>(what: string, run: () => Promise<T>): Promise<T> => {
    const began = performance.now();
    const result = await run();
    seconds.push(`${what} ${((performance.now() - began) / 1000).toFixed(1)} s`);
    return result;
  };
  const { unchanged, findings, rawBytes, storedBytes } = await timed('snapshot', () => subject.snapshot());
  assert.deepEqual({ unchanged, findings }, { unchanged: false, findings: [] });
  const back = folder.fresh('back');
  await timed('restore', () => subject.restore('latest', back));
  assertSameTree(readTree(subject.dir), back);
  assert.equal((await timed('unchanged', () => subject.snapshot())).unchanged, true);
  assert.equal(await timed('verify', () => subject.assertSound()), 1);
  log(`${name}, ${rawBytes} bytes in ${storedBytes}: ${seconds.join(', ')}; every byte came back`);
}

/** Directories far larger than a test may take: a snapshot, and a restore that is equal byte for byte. */
export async function run(log: (line: string) => void): Promise<void> {
  for (const name of Object.keys(TREES)) {
    const folder = scratch('sizes');
    try {
      await roundTrip(name, folder, log);
    } finally {
      folder.drop();
    }
  }
}
