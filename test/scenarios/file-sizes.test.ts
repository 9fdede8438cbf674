import assert from 'node:assert/strict';
import { appendFileSync, existsSync, mkdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { Case } from '../support/case.ts';
import { fill, fillMany, noise } from '../support/fill.ts';
import { needing } from '../support/machine.ts';
import { tempFolder } from '../support/place.ts';
import { assertRefused } from '../support/program.ts';
import { assertSameTree, readTree } from '../support/tree.ts';

const GB = 1_000_000_000;

async function emptyCase(t: TestContext): Promise<{ place: string; subject: Case }> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'data'), join(place, 'store'));
  mkdirSync(subject.dir);
  return { place, subject };
}

/** Snapshots, restores, and looks whether a second snapshot finds nothing new; answers the times in seconds. */
async function roundTrip(t: TestContext, place: string, subject: Case): Promise<void> {
  const timed = async <T>(what: string, run: () => Promise<T>): Promise<T> => {
    const began = performance.now();
    const result = await run();
    t.diagnostic(`${what}: ${((performance.now() - began) / 1000).toFixed(1)} s`);
    return result;
  };
  const { unchanged, findings } = await timed('snapshot', () => subject.snapshot());
  assert.deepEqual({ unchanged, findings }, { unchanged: false, findings: [] });
  await timed('restore', () => subject.restore('latest', join(place, 'back')));
  assertSameTree(readTree(subject.dir), join(place, 'back'));
  assert.equal((await timed('unchanged', () => subject.snapshot())).unchanged, true);
  assert.equal(await timed('verify', () => subject.assertSound()), 1);
}

describe('file sizes', { concurrency: 2 }, () => {
  it('an empty directory is captured and restored', async (t) => {
    const { place, subject } = await emptyCase(t);
    const { files, rawBytes } = await subject.snapshot();
    assert.deepEqual({ files, rawBytes }, { files: 0, rawBytes: '0' });
    await subject.restore('latest', join(place, 'back'));
    assert.equal(readTree(join(place, 'back')).size, 0);
    assert.ok(statSync(join(place, 'back')).isDirectory());
    assert.equal((await subject.snapshot()).unchanged, true);
    // From something to nothing is a change; what was before is still there.
    fill(subject.dir, { file: 'x' });
    const { snapshotId } = await subject.snapshot();
    const wanted = readTree(subject.dir);
    truncateSync(join(subject.dir, 'file'));
    assert.equal((await subject.snapshot()).rawBytes, '0');
    await subject.restore(snapshotId, join(place, 'before'));
    assertSameTree(wanted, join(place, 'before'));
    assert.equal(await subject.assertSound(), 3);
  });

  it('files of zero and one byte and at unit and block borders are captured and restored', async (t) => {
    const { place, subject } = await emptyCase(t);
    const block = 2 << 20;
    const lengths = [0, 1, 2, 4095, 4096, 4097, 6144, 8192, 65_535, 65_536, 65_537, 131_072];
    for (const base of [block, block + 65_536]) lengths.push(base - 1, base, base + 1);
    for (const length of lengths) {
      fill(subject.dir, {
        [`noise/${length}`]: noise(length, length),
        [`zeros/${length}`]: Buffer.alloc(length),
        [`empty folders/${length}/deeper/`.slice(0, -1)]: '',
      });
    }
    await roundTrip(t, place, subject);
  });

  it('a file of more than one pack is captured and restored, and an appended line costs little', async (t) => {
    const { place, subject } = await emptyCase(t);
    const file = join(subject.dir, 'dense');
    writeFileSync(file, noise('dense', 68_000_000));
    await roundTrip(t, place, subject);
    appendFileSync(file, 'a line more');
    const { newBytes } = await subject.snapshot();
    assert.ok(Number(newBytes) < 200_000, `${newBytes} bytes are new`);
    await subject.assertSound();
  });

  it('a sparse file of 3 GB is captured, and its restore needs the whole size', async (t) => {
    const place = await tempFolder(t);
    // On a memory disk a hole costs nothing to read; elsewhere the system fills 3 GB of its cache with zeros.
    const dir = await tempFolder(t, existsSync('/dev/shm') ? '/dev/shm' : undefined);
    const subject = new Case(dir, join(place, 'store'));
    const file = join(dir, 'sparse');
    writeFileSync(file, 'the first bytes');
    truncateSync(file, 3 * GB);
    appendFileSync(file, noise('tail', 100_000));
    const { rawBytes, newBytes } = await subject.snapshot({ flags: ['--disk-reserve', '0'] });
    assert.equal(rawBytes, String(3 * GB + 100_000));
    assert.ok(Number(newBytes) < 500_000, `${newBytes} bytes are new`);
    assert.equal((await subject.snapshot({ flags: ['--disk-reserve', '0'] })).unchanged, true);
    await subject.assertSound();
    const [shown] = (await subject.show('latest')).files;
    assert.equal(shown?.size, rawBytes);
    // Holes are not kept: the restored file needs its whole size, and a disk that has it.
    const words = [
      'restore',
      '--snapshot',
      'latest',
      '--to',
      join(place, 'back'),
      '--disk-reserve',
      '900TiB',
    ];
    assertRefused(await subject.run(words), { code: 4, error: /disk reserve/, hint: /--disk-reserve/ });
  });

  it('a sparse file is restored with the same bytes', async (t) => {
    const { place, subject } = await emptyCase(t);
    const file = join(subject.dir, 'sparse');
    writeFileSync(file, '');
    truncateSync(file, 80_000_000);
    appendFileSync(file, 'the end');
    await subject.snapshot();
    await subject.restore('latest', join(place, 'back'));
    assertSameTree(readTree(subject.dir), join(place, 'back'));
  });

  it('5,000 small files are captured and restored, and one change costs its bytes', async (t) => {
    const { place, subject } = await emptyCase(t);
    fillMany(subject.dir, 5000);
    await roundTrip(t, place, subject);
    writeFileSync(join(subject.dir, 'f3/n3456'), 'changed');
    const { newBytes } = await subject.snapshot();
    assert.equal(newBytes, '7');
    await subject.assertSound();
  });

  it('a limit of 256 open files is enough, and lower ones are reported', needing('prlimit'), async (t) => {
    const { place, subject } = await emptyCase(t);
    fillMany(subject.dir, 600);
    fill(subject.dir, { large: noise('large', 9_000_000) });
    const under = ['prlimit', '--nofile=256'];
    await subject.snapshot({ under });
    await subject.restore('latest', join(place, 'back'), { under });
    assertSameTree(readTree(subject.dir), join(place, 'back'));
    // Too few for it: told so wherever it is met, and never taken for damage.
    for (const limit of [80, 150]) {
      const words = [
        'restore',
        '--snapshot',
        'latest',
        '--disk-reserve',
        '0',
        '--to',
        join(place, `few${limit}`),
      ];
      const ended = await subject.run(words, { under: ['prlimit', `--nofile=${limit}`] });
      if (ended.code === 0) assertSameTree(readTree(subject.dir), join(place, `few${limit}`));
      else assertRefused(ended, { code: 1, error: /EMFILE/, hint: /limit of open files/ });
    }
    assert.deepEqual(
      [...readTree(place).keys()].filter((path) => path.startsWith('.lightkeeper')),
      [],
    );
    await subject.assertSound();
  });
});
