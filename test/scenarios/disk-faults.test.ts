import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { briefly, Case } from '../support/case.ts';
import { fill, fillGraph, noise } from '../support/fill.ts';
import { needing, smallDisk } from '../support/machine.ts';
import { tempFolder } from '../support/place.ts';
import { assertRefused, outcomeText } from '../support/program.ts';
import { packsOf } from '../support/store-format.ts';
import { assertSameTree, type Fact, readTree } from '../support/tree.ts';

const NO_RESERVE = { flags: ['--disk-reserve', '0'] };

interface Taken {
  readonly place: string;
  readonly subject: Case;
  readonly wanted: ReadonlyMap<string, Fact>;
  readonly snapshotId: string;
}

async function taken(t: TestContext, parent?: string): Promise<Taken> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'data'), join(parent ?? place, 'store'));
  fillGraph(subject.dir);
  const { snapshotId } = await subject.snapshot(NO_RESERVE);
  return { place, subject, wanted: readTree(subject.dir), snapshotId };
}

/** The snapshot from before is whole, whatever happened since. */
async function assertUnharmed({ place, subject, wanted, snapshotId }: Taken, name = 'before'): Promise<void> {
  await subject.assertSound();
  await subject.restore(snapshotId, join(place, name));
  assertSameTree(wanted, join(place, name));
}

/** Leaves so many bytes free on a disk. */
function leaveFree(disk: string, bytes: number): void {
  rmSync(join(disk, 'filler'), { force: true });
  const { bavail, bsize } = statfsSync(disk);
  writeFileSync(join(disk, 'filler'), Buffer.alloc(Math.max(0, bavail * bsize - bytes)));
}

describe('disk faults', { concurrency: 4 }, () => {
  describe('a full disk', { concurrency: 2, ...needing('mount') }, () => {
    it('fails the snapshot at any write and harms no earlier one', async (t) => {
      const disk = await smallDisk(t, 8_000_000);
      const all = await taken(t, disk.path);
      const { place, subject } = all;
      fill(subject.dir, {
        one: noise('one', 1_200_000),
        two: noise('two', 900_000),
        'sub/three': noise('three', 400_000),
      });
      let refused = 0;
      for (const free of [4096, 40_960, 1_300_000, 2_400_000, 2_510_000, 2_530_000]) {
        leaveFree(disk.path, free);
        const ended = await subject.run(subject.snapshotWords('--disk-reserve', '0'));
        if (ended.code === 0) break;
        refused += 1;
        assertRefused(ended, { code: 1, error: /ENOSPC|No space left/, hint: /free space/ });
      }
      assert.ok(refused >= 4, `refused ${refused} times`);
      rmSync(join(disk.path, 'filler'));
      await assertUnharmed(all);
      await subject.snapshot(NO_RESERVE);
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(subject.dir), join(place, 'back'));
      assert.deepEqual(readdirSync(join(subject.store, 'tmp')), []);
      assert.equal(await subject.assertSound(), 2);
    });

    it('to the last byte still restores and lists', async (t) => {
      const disk = await smallDisk(t, 4_000_000);
      const all = await taken(t, disk.path);
      leaveFree(disk.path, 0);
      await assertUnharmed(all);
      assert.equal((await all.subject.list()).length, 1);
      assert.equal((await all.subject.show('latest')).files.length, 4);
      fillGraph(all.subject.dir, 2);
      for (const words of [all.subject.snapshotWords('--disk-reserve', '0'), ['prune', '--keep-last', '1']]) {
        assertRefused(await all.subject.run(words), {
          code: 1,
          error: /No space left|ENOSPC/,
          hint: /free space/,
        });
      }
      rmSync(join(disk.path, 'filler'));
      await assertUnharmed(all, 'again');
    });

    it('leaves no new store, or an empty one', async (t) => {
      const disk = await smallDisk(t, 1_000_000);
      const place = await tempFolder(t);
      const subject = new Case(join(place, 'data'), join(disk.path, 'store'));
      fillGraph(subject.dir);
      for (const free of [0, 4096, 8192, 16_384, 24_576, 40_960]) {
        leaveFree(disk.path, free);
        const ended = await subject.run(subject.snapshotWords('--disk-reserve', '0'));
        assertRefused(ended, { code: 1, error: /ENOSPC|No space left/, hint: /free space/ });
      }
      rmSync(join(disk.path, 'filler'));
      await subject.snapshot(NO_RESERVE);
      assert.equal(await subject.assertSound(), 1);
    });

    it('fails a restore, which leaves nothing behind', async (t) => {
      const disk = await smallDisk(t, 2_000_000);
      const all = await taken(t);
      const { subject } = all;
      fill(subject.dir, { big: noise('big', 2_500_000) });
      await subject.snapshot();
      const restore = (to: string, ...more: string[]) =>
        subject.run(['restore', '--snapshot', 'latest', '--to', to, ...more]);
      const guarded = await restore(join(disk.path, 'a'), '--disk-reserve', '1MiB');
      assertRefused(guarded, { code: 4, error: /disk reserve/, hint: /--disk-reserve/ });
      const full = await restore(join(disk.path, 'a'), '--disk-reserve', '0');
      assertRefused(full, {
        code: full.code ?? 1,
        error: /ENOSPC|disk reserve|No space/,
        hint: /free space/,
      });
      assert.deepEqual(readdirSync(disk.path), []);
      mkdirSync(join(disk.path, 'there'));
      const there = await restore(join(disk.path, 'there'), '--disk-reserve', '0');
      assert.ok(there.code === 1 || there.code === 4, outcomeText(there));
      await assertUnharmed(all);
    });

    it('is prevented by the disk reserve before anything is written', async (t) => {
      const disk = await smallDisk(t, 64_000_000);
      const all = await taken(t, disk.path);
      const { subject } = all;
      fill(subject.dir, { more: noise('more', 1_000_000) });
      for (const flags of [[], ['--disk-reserve', '63.5MB'], ['--disk-reserve', '1GiB']]) {
        const ended = await subject.run(subject.snapshotWords(...flags));
        assertRefused(ended, { code: 4, error: /disk reserve must stay free/, hint: /--disk-reserve/ });
      }
      assert.equal((await subject.list()).length, 1);
      assert.equal((await subject.snapshot({ flags: ['--disk-reserve', '20MB'] })).unchanged, false);
      // What is there already needs no space: an unchanged directory is confirmed on the fullest disk.
      assert.equal((await subject.snapshot({ flags: ['--disk-reserve', '1GiB'] })).unchanged, true);
      await assertUnharmed(all);
    });
  });

  describe('one failing disk operation', { concurrency: 2 }, () => {
    const LABELS = [
      'store:owner:record',
      'store:data:write',
      'store:pack:rename',
      'store:pack:publish',
      'store:meta:end',
      'index:commit',
    ];
    it('fails a snapshot and harms nothing', async (t) => {
      const all = await taken(t);
      const { place, subject } = all;
      for (const [i, label] of LABELS.entries()) {
        fillGraph(subject.dir, 10 + i);
        const code = i % 2 === 0 ? 'ENOSPC' : 'EIO';
        const env = { LIGHTKEEPER_FAULT: `fail:${code}:${label}:1` };
        const ended = await subject.run(subject.snapshotWords(), { env });
        const hint = code === 'ENOSPC' ? /free space/ : /kernel log/;
        assertRefused(ended, { code: 1, error: new RegExp(code), hint });
      }
      await subject.snapshot();
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(subject.dir), join(place, 'back'));
      await assertUnharmed(all);
      assert.deepEqual(readdirSync(join(subject.store, 'tmp')), []);
    });

    it('fails a restore and leaves nothing behind', async (t) => {
      const all = await taken(t);
      const { place, subject } = all;
      const names = readdirSync(place);
      for (const [i, label] of [
        'restore:stage',
        'restore:create',
        'restore:write',
        'restore:rename',
      ].entries()) {
        const code = i % 2 === 0 ? 'EIO' : 'ENOSPC';
        const env = { LIGHTKEEPER_FAULT: `fail:${code}:${label}:1` };
        const words = ['restore', '--snapshot', 'latest', '--disk-reserve', '0', '--to', join(place, 'back')];
        const ended = await subject.run(words, { env });
        assertRefused(ended, { code: 1, error: new RegExp(code), hint: /free space|kernel log/ });
        assert.deepEqual(readdirSync(place), names, label);
      }
      await assertUnharmed(all);
    });
  });

  function failing(calls: string, code: string, more: { when?: string; path?: string } = {}): string[] {
    const when = more.when === undefined ? '' : `:when=${more.when}`;
    const path = more.path === undefined ? [] : ['-P', more.path];
    const inject = ['-e', `trace=${calls}`, '-e', `inject=${calls}:error=${code}${when}`];
    return ['strace', '-f', '--seccomp-bpf', '-qq', '-o', '/dev/null', ...path, ...inject];
  }

  describe('a disk with errors', { concurrency: 2, ...needing('strace') }, () => {
    it('that does not sync fails the snapshot and harms nothing', async (t) => {
      const all = await taken(t);
      const { subject } = all;
      fillGraph(subject.dir, 2);
      for (const when of ['1+', '3+', '5+']) {
        const under = failing('fsync,fdatasync', 'EIO', { when });
        const ended = await subject.run(subject.snapshotWords(), { under });
        if (ended.code !== 0)
          assertRefused(ended, { code: 1, error: /EIO|Input\/output/, hint: /kernel log/ });
        else assert.notEqual(when, '1+');
      }
      await subject.snapshot();
      await assertUnharmed(all);
    });

    it('under the directory gives findings by name', async (t) => {
      const all = await taken(t);
      const { place, subject } = all;
      const sizes = { small: 10, medium: 3_000_000, large: 12_000_000 };
      for (const [name, size] of Object.entries(sizes)) {
        fill(subject.dir, { [name]: noise(name, size) });
        const under = failing('read,pread64,preadv', 'EIO', { path: join(subject.dir, name) });
        const { findings, cutMethod, snapshotId } = await subject.snapshot({ under });
        assert.deepEqual(briefly(findings), [`unreadable ${name}`]);
        assert.match(findings[0]?.message ?? '', /EIO/);
        assert.match(findings[0]?.hint ?? '', /kernel log/);
        assert.equal(cutMethod, 'SETTLED');
        await subject.restore(snapshotId, join(place, name));
        const wanted = readTree(subject.dir);
        wanted.delete(name);
        assertSameTree(wanted, join(place, name));
      }
      assert.deepEqual((await subject.snapshot()).findings, []);
      await assertUnharmed(all);
    });

    it('in a folder of the directory gives a finding for the folder', async (t) => {
      const all = await taken(t);
      const { subject } = all;
      fill(subject.dir, { 'bad/file': 'x' });
      const under = failing('getdents64', 'EIO', { path: join(subject.dir, 'bad') });
      const { findings } = await subject.snapshot({ under });
      assert.deepEqual(briefly(findings), ['unreadable bad']);
      await assertUnharmed(all);
    });

    it('under the store fails a restore and is not reported as damage', async (t) => {
      const { place, subject } = await taken(t);
      const [pack = ''] = packsOf(subject.store, 'data');
      const under = failing('read,pread64', 'EIO', { path: pack });
      const words = ['restore', '--snapshot', 'latest', '--disk-reserve', '0', '--to', join(place, 'back')];
      assertRefused(await subject.run(words, { under }), { code: 1, error: /EIO/, hint: /kernel log/ });
      await subject.assertSound();
    });
  });

  describe('a damaged store under capture', { concurrency: 2 }, () => {
    /** Flips a bit in the body of every frame of a pack: its table of contents stays whole. */
    function damageFrames(path: string): void {
      const bytes = readFileSync(path);
      for (let at = bytes.indexOf('LKF1'); at >= 0; ) {
        const end = at + 16 + bytes.readUInt32LE(at + 4) + bytes.readUInt32LE(at + 8);
        bytes[end - 1] = (bytes[end - 1] as number) ^ 1;
        at = bytes.indexOf('LKF1', end);
      }
      writeFileSync(path, bytes);
    }

    it('never makes a snapshot lose a file', async (t) => {
      const place = await tempFolder(t);
      const subject = new Case(join(place, 'data'), join(place, 'store'));
      const large = noise('large', 3_000_000);
      fill(subject.dir, { large, small: '1' });
      await subject.snapshot();
      const [first = ''] = packsOf(subject.store, 'meta');
      // The next snapshot refers to the pieces of the list of "large" that are in the first pack.
      fill(subject.dir, { small: '2' });
      await subject.snapshot();
      damageFrames(first);
      large[1_500_000] = (large[1_500_000] as number) ^ 1;
      fill(subject.dir, { large });
      const copy = join(place, 'copy');
      cpSync(subject.dir, copy, { recursive: true, preserveTimestamps: true });
      const ended = await subject.run([...subject.snapshotWords(), '--json']);
      if (ended.code === 0) {
        assert.deepEqual((JSON.parse(ended.stdout) as { findings: unknown[] }).findings, []);
        await subject.restore('latest', join(place, 'back'));
        assertSameTree(readTree(subject.dir), join(place, 'back'));
      } else assert.match(ended.stderr, /^error: Cannot .*\nhint: .*repair/);
    });
  });
});
