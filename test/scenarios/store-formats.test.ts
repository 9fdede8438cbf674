import assert from 'node:assert/strict';
import { chmodSync, chownSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { Case } from '../support/case.ts';
import { commandHere } from '../support/command-here.ts';
import { fillGraph } from '../support/fill.ts';
import { asUser, NOBODY, needing, smallDisk } from '../support/machine.ts';
import { removeAll, tempFolder } from '../support/place.ts';
import { assertRefused, type Ended, lightkeeper, type StartOptions } from '../support/program.ts';
import { packsOf, resealConfig, resealPack } from '../support/store-format.ts';
import { assertSameTree, type Fact, readTree } from '../support/tree.ts';

const WROTE_IT = /use the version of Lightkeeper that wrote it, and name a new store with --store/;

interface Taken {
  readonly place: string;
  readonly subject: Case;
  readonly wanted: ReadonlyMap<string, Fact>;
}

/** A store with one snapshot, that no process has. */
async function taken(t: TestContext, parent?: string): Promise<Taken> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'data'), join(parent ?? place, 'store'));
  fillGraph(subject.dir);
  await subject.snapshot();
  return { place, subject, wanted: readTree(subject.dir) };
}

/** Names and bytes of a store but for its caches. */
function kept(store: string): string[] {
  return [...readTree(store)]
    .filter(([path]) => !/^(?:index|owner|tmp)/.test(path))
    .map(([path, { mode, content }]) => `${path} ${mode} ${content}`);
}

function commandsOn({ place, subject }: Taken): string[][] {
  return [
    ['list'],
    ['show', 'latest'],
    ['stats'],
    ['verify', '--level', 'bytes'],
    ['restore', '--snapshot', 'latest', '--disk-reserve', '0', '--to', join(place, 'back')],
    subject.snapshotWords(),
    ['prune', '--keep-last', '1'],
    ['repair'],
    ['up', '--dir', subject.dir, '--http', '127.0.0.1:0'],
  ];
}

/** Runs a command; a daemon that were not refused would go on, so that it has a process of its own. */
async function refusedBy(subject: Case, words: string[]): Promise<Ended> {
  return words[0] === 'up'
    ? await subject.run(words)
    : await commandHere([...words, '--store', subject.store]);
}

describe('store formats', { concurrency: 2 }, () => {
  describe('a store of another version', { concurrency: 2 }, () => {
    const others: readonly [what: string, change: (store: string) => void, error: RegExp, hint?: RegExp][] = [
      ['its format', (store) => resealConfig(store, { format: 3 }), /has format 3/],
      ['a feature', (store) => resealConfig(store, { requiredFeatures: 0x40 }), /needs features 0x40/],
      ['its ids', (store) => resealConfig(store, { unitId: 'hmac-sha256' }), /names units by hmac-sha256/],
      [
        'the format of a pack',
        (store) => resealPack(packsOf(store, 'data')[0] as string, (header) => header.writeUInt16LE(3, 8)),
        /has format 3/,
      ],
      [
        'a feature of a pack',
        (store) => resealPack(packsOf(store, 'meta')[0] as string, (header) => header.writeUInt32LE(8, 12)),
        /needs features 0x8/,
      ],
      [
        'its format, an older one',
        (store) => resealConfig(store, { format: 1 }),
        /has format 1, and this version reads format 2/,
        WROTE_IT,
      ],
      [
        'the format of a pack, an older one',
        (store) => resealPack(packsOf(store, 'data')[0] as string, (header) => header.writeUInt16LE(1, 8)),
        /has format 1, and this version reads format 2/,
        WROTE_IT,
      ],
    ];
    for (const [i, [what, change, error, hint = /newer/]] of others.entries()) {
      it(`is refused by every command and left alone: ${what}`, async (t) => {
        const all = await taken(t);
        const { subject, place, wanted } = all;
        const old = join(place, 'old');
        cpSync(subject.store, old, { recursive: true, preserveTimestamps: true });
        change(subject.store);
        const before = kept(subject.store);
        // All of them once; they find out in one place.
        const commands = commandsOn(all).filter((_, k) => i === 0 || k % others.length === i);
        for (const words of commands) {
          assertRefused(await refusedBy(subject, words), { code: 1, error, hint });
        }
        assert.deepEqual(kept(subject.store), before);
        // What an older version can read is still all there.
        for (const name of ['config', 'config.copy', 'packs']) {
          await removeAll(join(subject.store, name));
          cpSync(join(old, name), join(subject.store, name), { recursive: true, preserveTimestamps: true });
        }
        await subject.assertSound();
        await subject.restore('latest', join(place, 'back'));
        assertSameTree(wanted, join(place, 'back'));
      });
    }

    it('is refused with the code TOO_OLD if it is older', async (t) => {
      const { subject } = await taken(t);
      resealConfig(subject.store, { format: 1 });
      const { stdout } = await subject.run(['list', '--json']);
      const { error } = JSON.parse(stdout) as { error: { code: string; hint: string } };
      assert.equal(error.code, 'TOO_OLD');
      assert.match(error.hint, WROTE_IT);
    });

    it('is used if it only adds what may be ignored', async (t) => {
      const { subject, place, wanted } = await taken(t);
      resealConfig(subject.store, { optionalFeatures: 0x81, colour: 'blue', nested: { a: [1] } });
      for (const pack of packsOf(subject.store)) resealPack(pack, (header) => header.writeUInt32LE(0x81, 16));
      rmSync(join(subject.store, 'index'), { recursive: true });
      await subject.assertSound();
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(wanted, join(place, 'back'));
      assert.equal((await subject.snapshot()).unchanged, true);
      fillGraph(subject.dir, 2);
      assert.equal((await subject.snapshot()).parentId.length, 32);
      assert.equal(await subject.assertSound(), 2);
      assert.match(readFileSync(join(subject.store, 'config'), 'utf8'), /"colour":"blue"/);
    });
  });

  /** Asserts that all that reads works, and all that writes is refused. */
  async function assertReadOnly({ place, subject, wanted }: Taken, options: StartOptions): Promise<void> {
    const before = kept(subject.store);
    const { snapshotId } = (await subject.list(options))[0] ?? assert.fail('there is a snapshot');
    assert.equal((await subject.show(snapshotId.slice(0, 8), options)).files.length, 4);
    assert.equal((await subject.run(['stats'], options)).code, 0);
    assert.equal(await subject.assertSound(options), 1);
    assert.equal((await subject.run(['verify', '--snapshot', snapshotId], options)).code, 0);
    await subject.restore('latest', join(place, 'there/back'), options);
    assertSameTree(wanted, join(place, 'there/back'), { owners: options.under === undefined });
    fillGraph(subject.dir, 2);
    const writes = [
      subject.snapshotWords('--disk-reserve', '0'),
      ['prune', '--keep-last', '1'],
      ['up', '--dir', subject.dir, '--http', '127.0.0.1:0'],
      ['tag', snapshotId, 'a=b'],
      ['delete', snapshotId],
      ['repair'],
    ];
    for (const words of options.under === undefined ? writes : writes.slice(0, 3)) {
      const ended = await subject.run(words, options);
      assertRefused(ended, { code: 1, error: /EROFS|EACCES/, hint: /read-only|grant this user access/ });
    }
    assert.deepEqual(kept(subject.store), before);
  }

  describe('a read-only store', { concurrency: 2 }, () => {
    it('on a read-only mount restores its snapshots', needing('mount'), async (t) => {
      const disk = await smallDisk(t, 16_000_000);
      const place = await tempFolder(t);
      const subject = new Case(join(place, 'data'), join(disk.path, 'store'));
      fillGraph(subject.dir);
      await subject.snapshot({ flags: ['--disk-reserve', '0'] });
      await disk.remount('ro');
      await assertReadOnly({ place, subject, wanted: readTree(subject.dir) }, {});
      await disk.remount('rw');
      assert.equal((await subject.snapshot({ flags: ['--disk-reserve', '0'] })).unchanged, false);
    });

    it('of another user restores its snapshots', needing('root', 'setpriv'), async (t) => {
      const all = await taken(t);
      for (const [path, { type }] of readTree(all.subject.store))
        chmodSync(join(all.subject.store, path), type === 'dir' ? 0o555 : 0o444);
      chmodSync(all.subject.store, 0o555);
      mkdirSync(join(all.place, 'there'));
      chownSync(join(all.place, 'there'), NOBODY, NOBODY);
      await assertReadOnly(all, { under: asUser() });
    });

    it('without room for a temporary index is refused', needing('root', 'setpriv'), async (t) => {
      const all = await taken(t);
      for (const [path, { type }] of readTree(all.subject.store))
        chmodSync(join(all.subject.store, path), type === 'dir' ? 0o555 : 0o444);
      chmodSync(all.subject.store, 0o555);
      const env = { TMPDIR: join(all.place, 'nowhere') };
      const ended = await all.subject.run(['list'], { under: asUser(), env });
      assertRefused(ended, { code: 1, error: /ENOENT|EACCES/, hint: /TMPDIR/ });
    });

    it('with an unreadable pack is reported, not as damage', needing('root', 'setpriv'), async (t) => {
      const { place, subject } = await taken(t);
      for (const path of [place, subject.store, ...readTree(subject.store).keys()])
        chownSync(path.startsWith('/') ? path : join(subject.store, path), NOBODY, NOBODY);
      const [data = ''] = packsOf(subject.store, 'data');
      chmodSync(data, 0);
      const words = ['restore', '--snapshot', 'latest', '--disk-reserve', '0', '--to', join(place, 'back')];
      const ended = await subject.run(words, { under: asUser() });
      assertRefused(ended, { code: 1, error: /EACCES/, hint: /grant this user access/ });
      chmodSync(data, 0o600);
      await subject.assertSound({ under: asUser() });
    });
  });

  describe('a folder like a store', { concurrency: 2 }, () => {
    it('is refused if its config is malformed', async (t) => {
      const all = await taken(t);
      const { subject } = all;
      for (const [i, text] of ['', '{}\n', `${'a'.repeat(100_000)}\n`].entries()) {
        for (const name of ['config', 'config.copy']) writeFileSync(join(subject.store, name), text);
        for (const words of commandsOn(all).slice(2 * i, 2 * i + 2)) {
          assertRefused(await refusedBy(subject, words), { code: 1, error: /damaged/, hint: /repair/ });
        }
      }
      // Packs say which store they are of: a repair brings it back.
      assert.ok([0, 3].includes((await lightkeeper(['repair', '--store', subject.store])).code ?? -1));
      await subject.assertSound();
    });
  });
});
