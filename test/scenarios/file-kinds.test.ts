import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { briefly, Case } from '../support/case.ts';
import { fill, fillGraph, noise, setTime } from '../support/fill.ts';
import { asUser, NOBODY, needing } from '../support/machine.ts';
import { atEnd, tempFolder } from '../support/place.ts';
import { assertRefused, lightkeeper } from '../support/program.ts';
import { assertSameTree, readTree } from '../support/tree.ts';

async function emptyCase(t: TestContext): Promise<{ place: string; subject: Case }> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'data'), join(place, 'store'));
  mkdirSync(subject.dir);
  return { place, subject };
}

/** A case that the user NOBODY owns, with a store that is NOBODY's too. */
async function foreignCase(t: TestContext): Promise<{ place: string; subject: Case }> {
  const found = await emptyCase(t);
  const { place, subject } = found;
  mkdirSync(subject.store);
  for (const path of [place, subject.dir, subject.store]) chownSync(path, NOBODY, NOBODY);
  return found;
}

describe('file kinds', { concurrency: 4 }, () => {
  describe('links', { concurrency: 1 }, () => {
    it('that are symbolic are restored as they are', async (t) => {
      const { place, subject } = await emptyCase(t);
      fill(subject.dir, { 'sub/file': 'x' });
      fill(place, { 'outside/secret': 'not to be followed' });
      const targets = {
        dangling: 'nowhere',
        loop: 'loop',
        ring1: 'ring2',
        ring2: 'ring1',
        up: '..',
        self: '.',
        outward: join(place, 'outside'),
        folder: 'sub',
        'sub/back': '../sub/file',
        absolute: '/etc/passwd',
        proc: '/proc/self/fd/0',
        odd: 'new\nline \\ \u202e',
        long: 'l'.repeat(4095),
      };
      for (const [name, target] of Object.entries(targets)) symlinkSync(target, join(subject.dir, name));
      symlinkSync(Buffer.from([0xff, 0x2f, 0xfe]), join(subject.dir, 'bytes'));
      const wanted = readTree(subject.dir);
      const { findings } = await subject.snapshot();
      assert.deepEqual(findings, []);
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(wanted, join(place, 'back'));
      // Changed to point elsewhere and back: both are changes.
      unlinkSync(join(subject.dir, 'folder'));
      symlinkSync('elsewhere', join(subject.dir, 'folder'));
      assert.equal((await subject.snapshot()).unchanged, false);
      await subject.restore('latest', join(place, 'again'));
      assertSameTree(readTree(subject.dir), join(place, 'again'));
      await subject.assertSound();
    });

    it('that are hard stay one file inside the directory, and become a file if the other name is outside', async (t) => {
      const { place, subject } = await emptyCase(t);
      fill(subject.dir, { 'b/first': noise('b', 300_000), 'c/inside': 'two names', empty: '' });
      for (const name of ['a', 'b/second', 'z'])
        linkSync(join(subject.dir, 'b/first'), join(subject.dir, name));
      linkSync(join(subject.dir, 'empty'), join(subject.dir, 'empty too'));
      linkSync(join(subject.dir, 'c/inside'), join(place, 'outside'));
      const { files, rawBytes } = await subject.snapshot();
      assert.deepEqual({ files, rawBytes }, { files: 7, rawBytes: String(300_000 + 9) });
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(subject.dir), join(place, 'back'));
      assert.equal(statSync(join(place, 'back/c/inside')).nlink, 1);
      assert.equal((await subject.snapshot()).unchanged, true);
      // The first name goes: the next one carries the bytes.
      unlinkSync(join(subject.dir, 'a'));
      unlinkSync(join(subject.dir, 'b/first'));
      await subject.snapshot();
      await subject.restore('latest', join(place, 'again'));
      assertSameTree(readTree(subject.dir), join(place, 'again'));
      // A second name that becomes a file of its own, with the same bytes, is a change.
      unlinkSync(join(subject.dir, 'z'));
      fill(subject.dir, { z: noise('b', 300_000) });
      assert.equal((await subject.snapshot()).unchanged, false);
      await subject.restore('latest', join(place, 'apart'));
      assertSameTree(readTree(subject.dir), join(place, 'apart'));
      await subject.assertSound();
    });

    it('that are restored without their first name are listed', async (t) => {
      const { place, subject } = await emptyCase(t);
      fill(subject.dir, { first: 'bytes' });
      linkSync(join(subject.dir, 'first'), join(subject.dir, 'second'));
      await subject.snapshot();
      const { findings } = await subject.restore('latest', join(place, 'part'), {
        flags: ['--path', 'second'],
      });
      assert.deepEqual(briefly(findings), ['hard_link_skipped second']);
    });
  });

  describe('special files', { concurrency: 1 }, () => {
    it('a FIFO or socket is skipped with a finding and blocks nothing', async (t) => {
      const { place, subject } = await emptyCase(t);
      fillGraph(subject.dir);
      const wanted = readTree(subject.dir);
      execFileSync('mkfifo', [join(subject.dir, 'fifo'), join(subject.dir, 'blobs/fifo\n2')]);
      const server = createServer().listen(join(subject.dir, 'socket'));
      atEnd(t, () => server.close());
      const { findings } = await subject.snapshot({ timeoutMs: 20_000 });
      assert.deepEqual(briefly(findings), [
        'special_file blobs/fifo\n2',
        'special_file fifo',
        'special_file socket',
      ]);
      await subject.restore('latest', join(place, 'back'));
      wanted.delete('blobs');
      const back = readTree(join(place, 'back'));
      back.delete('blobs');
      assert.deepEqual([...back.keys()], [...wanted.keys()]);
      assert.equal((await subject.snapshot()).findings.length, 3);
    });

    it('a device is skipped with a finding', needing('root', 'mknod'), async (t) => {
      const { subject } = await emptyCase(t);
      fillGraph(subject.dir);
      execFileSync('mknod', [join(subject.dir, 'zero'), 'c', '1', '5']);
      execFileSync('mknod', [join(subject.dir, 'block'), 'b', '7', '200']);
      const { findings, files } = await subject.snapshot({ timeoutMs: 20_000 });
      assert.deepEqual(briefly(findings), ['special_file block', 'special_file zero']);
      assert.equal(files, 3);
    });
  });

  describe('modes, owners and times', { concurrency: 1 }, () => {
    it('are restored with set-uid bits, read-only folders and owners', async (t) => {
      const { place, subject } = await emptyCase(t);
      // What its owner may not read, only root can compare.
      const none = process.getuid?.() === 0 ? 0 : 0o400;
      const modes = { setuid: 0o4755, setgid: 0o2711, both: 0o6777, none, sticky: 0o1644, only: 0o400 };
      for (const [name, mode] of Object.entries(modes)) {
        fill(subject.dir, { [name]: name, [`folder-${name}/file`]: name, [`folder-${name}/sub/file`]: name });
        if (process.getuid?.() === 0) chownSync(join(subject.dir, name), 1234, 4321);
        chmodSync(join(subject.dir, name), mode);
        chmodSync(join(subject.dir, `folder-${name}/sub`), 0o500);
        // Only root could look into a folder without any bit.
        chmodSync(join(subject.dir, `folder-${name}`), process.getuid?.() === 0 ? mode : mode | 0o500);
      }
      chmodSync(subject.dir, 0o500);
      await subject.snapshot();
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(subject.dir), join(place, 'back'));
      assert.equal(lstatSync(join(place, 'back')).mode & 0o7777, 0o500);
      // A change of nothing but a mode is a change.
      chmodSync(join(subject.dir, 'setuid'), 0o755);
      assert.equal((await subject.snapshot()).unchanged, false);
    });

    it('are restored for an unprivileged user too', needing('root', 'setpriv'), async (t) => {
      const { place, subject } = await foreignCase(t);
      fill(subject.dir, { 'closed/file': 'x', 'closed/sub/file': 'y', setuid: 'z' });
      const [closed, setuid] = [join(subject.dir, 'closed'), join(subject.dir, 'setuid')];
      for (const path of [setuid, join(closed, 'file'), join(closed, 'sub/file')])
        chownSync(path, NOBODY, NOBODY);
      chmodSync(join(closed, 'sub'), 0o555);
      chmodSync(closed, 0o555);
      chmodSync(setuid, 0o4700);
      chmodSync(subject.dir, 0o555);
      const under = asUser();
      assert.deepEqual((await subject.snapshot({ under })).findings, []);
      await subject.restore('latest', join(place, 'back'), { under });
      assertSameTree(readTree(subject.dir), join(place, 'back'), { owners: false });
    });

    it('are restored before 1970 and far in the future', async (t) => {
      const { place, subject } = await emptyCase(t);
      const seconds = {
        'first of ext4': -2_147_483_648,
        'before the moon': -14_182_940.123456,
        'just before': -0.000001,
        zero: 0,
        'after 2038': 2_147_483_648.654321,
        'in 2200': 7_258_118_400.25,
      };
      for (const [name, time] of Object.entries(seconds)) {
        fill(subject.dir, { [name]: name, [`folder ${name}/file`]: name });
        symlinkSync('x', join(subject.dir, `link ${name}`));
        execFileSync('touch', ['-h', '-d', `@${time}`, join(subject.dir, `link ${name}`)]);
        setTime(join(subject.dir, name), time);
        setTime(join(subject.dir, `folder ${name}`), time);
      }
      const { findings } = await subject.snapshot();
      assert.deepEqual(findings, []);
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(subject.dir), join(place, 'back'));
      const shown = await subject.show('latest');
      const times = new Map(shown.files.map(({ path, mtime }) => [path, mtime]));
      assert.match(times.get('before the moon') ?? '', /^1969-07-20T20:17:39\.87654[45]/);
      assert.equal((await subject.snapshot()).unchanged, true);
      assert.equal((await subject.run(['show', 'latest'])).code, 0);
    });

    it('beyond the supported range are clamped with a finding', async (t) => {
      const { place, subject } = await emptyCase(t);
      fill(subject.dir, { 'in 2400': 'x', now: 'y' });
      setTime(join(subject.dir, 'in 2400'), 13_569_465_600);
      const { findings } = await subject.snapshot();
      assert.deepEqual(briefly(findings), ['time_out_of_range in 2400']);
      await subject.restore('latest', join(place, 'back'));
      assert.equal(lstatSync(join(place, 'back/in 2400')).mtime.getUTCFullYear(), 2262);
      assert.equal((await subject.snapshot()).unchanged, true);
      assert.equal((await subject.show('latest')).files.length, 2);
    });
  });

  describe('unreadable files', { concurrency: 1, ...needing('root', 'setpriv') }, () => {
    it('are listed by name and the rest is captured', async (t) => {
      const { place, subject } = await foreignCase(t);
      fillGraph(subject.dir);
      fill(subject.dir, {
        secret: 'x',
        'large secret': noise('large', 7_000_000),
        'closed/inner': 'x',
        'names only/one': 'x',
        'names only/two': 'x',
        'pair one': 'x',
      });
      linkSync(join(subject.dir, 'pair one'), join(subject.dir, 'pair two'));
      for (const name of ['secret', 'large secret', 'closed', 'pair one'])
        chmodSync(join(subject.dir, name), 0);
      chmodSync(join(subject.dir, 'names only'), 0o744);
      const under = asUser();
      const { findings, snapshotId, cutMethod } = await subject.snapshot({ under });
      assert.equal(cutMethod, 'SETTLED');
      const lost = [
        'closed',
        'large secret',
        'names only/one',
        'names only/two',
        'pair one',
        'pair two',
        'secret',
      ];
      assert.deepEqual(
        briefly(findings),
        lost.map((name) => `unreadable ${name}`),
      );
      for (const { hint, message } of findings) {
        assert.match(hint, /right to read/);
        assert.match(message, /EACCES|another name/);
      }
      const wanted = readTree(subject.dir);
      for (const name of [...lost, 'closed/inner']) if (name !== 'closed') wanted.delete(name);
      await subject.restore(snapshotId, join(place, 'back'), { under });
      chmodSync(join(place, 'back/closed'), 0);
      assertSameTree(wanted, join(place, 'back'), { owners: false });
      const again = await subject.snapshot({ under });
      assert.equal(again.unchanged, true);
      assert.equal(again.findings.length, lost.length);
      // With the right to read, all of it is kept.
      const all = await subject.snapshot();
      assert.deepEqual(all.findings, []);
      await subject.restore('latest', join(place, 'all'));
      assertSameTree(readTree(subject.dir), join(place, 'all'));
      await subject.assertSound();
    });

    it('are a refusal if it is the directory itself', async (t) => {
      const { subject } = await foreignCase(t);
      fill(subject.dir, { file: 'x' });
      const words = subject.snapshotWords('--store', subject.store);
      const under = asUser();
      for (const mode of [0o000, 0o300]) {
        chmodSync(subject.dir, mode);
        const ended = await lightkeeper(words, { under });
        assertRefused(ended, {
          code: 1,
          error: /Cannot read ".*data": .*EACCES/,
          hint: /grant this user access/,
        });
      }
      chmodSync(subject.dir, 0o700);
      await subject.snapshot({ under });
      assert.equal(await subject.assertSound({ under }), 1);
    });

    it('are no problem of a user without a name', async (t) => {
      const { place, subject } = await foreignCase(t);
      fillGraph(subject.dir);
      for (const path of [place, subject.dir, subject.store]) chownSync(path, 54_321, 54_321);
      const under = asUser(54_321);
      await subject.snapshot({ under });
      await subject.restore('latest', join(place, 'back'), { under });
      assertSameTree(readTree(subject.dir), join(place, 'back'), { owners: false });
    });

    it('are reported like a restore without write permission', async (t) => {
      const { place, subject } = await foreignCase(t);
      fillGraph(subject.dir);
      await subject.snapshot({ under: asUser() });
      mkdirSync(join(place, 'mine'), { mode: 0o755 });
      writeFileSync(join(place, 'file'), '');
      const words = ['restore', '--snapshot', 'latest', '--disk-reserve', '0', '--to'];
      const to = (path: string) => subject.run([...words, join(place, path)], { under: asUser() });
      assertRefused(await to('mine/back'), { code: 1, error: /EACCES/, hint: /grant this user access/ });
      assertRefused(await to('mine'), { code: 1, error: /EACCES/, hint: /grant this user access/ });
      assertRefused(await to('file/back'), { code: 1, error: /ENOTDIR|EEXIST/, hint: /./ });
      assert.deepEqual(
        [...readTree(place).keys()].filter((path) => /^(?:mine|file)./.test(path)),
        [],
      );
    });
  });
});
