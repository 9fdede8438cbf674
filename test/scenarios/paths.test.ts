import assert from 'node:assert/strict';
import { chownSync, existsSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { briefly, Case } from '../support/case.ts';
import { fill, fillGraph } from '../support/fill.ts';
import { asUser, NOBODY, needing } from '../support/machine.ts';
import { tempFolder } from '../support/place.ts';
import { assertRefused, lightkeeper } from '../support/program.ts';
import { assertSameTree, readTree } from '../support/tree.ts';

async function graphIn(t: TestContext): Promise<{ place: string; dir: string }> {
  const place = await tempFolder(t);
  const dir = join(place, 'data');
  fillGraph(dir);
  return { place, dir };
}

/** Everything at a place but the cache of a store: to see that nothing was made or changed. */
function everything(place: string): string[] {
  const kept = [...readTree(place)].filter(([path]) => !path.includes('store/index/'));
  return kept.map(([path, { mode, size, content }]) => `${path} ${mode} ${size} ${content}`);
}

let turn = 0;

/** The commands that make a store, in turn. */
function nextCommand(): string {
  return turn++ % 2 === 0 ? 'snapshot' : 'up';
}

describe('paths', { concurrency: 2 }, () => {
  describe('a store inside the protected directory', { concurrency: 2 }, () => {
    const ways: readonly [
      how: string,
      paths: (place: string, dir: string) => { dir: string; store: string },
    ][] = [
      ['at its top', (_, dir) => ({ dir, store: join(dir, 'store') })],
      ['deep down', (_, dir) => ({ dir, store: join(dir, 'blobs/of/ours/store') })],
      [
        'by a symlink to it',
        (place, dir) => {
          mkdirSync(join(dir, 'store'));
          symlinkSync(join(dir, 'store'), join(place, 'link'));
          return { dir, store: join(place, 'link') };
        },
      ],
      [
        'by a symlink to the directory',
        (place, dir) => {
          symlinkSync(dir, join(place, 'link'));
          return { dir, store: join(place, 'link/store') };
        },
      ],
      [
        'and the directory by a symlink',
        (place, dir) => {
          symlinkSync(dir, join(place, 'link'));
          return { dir: join(place, 'link'), store: join(dir, 'store') };
        },
      ],
    ];
    for (const [how, paths] of ways) {
      it(`${how} is excluded with a warning`, async (t) => {
        const { place, dir } = await graphIn(t);
        const subject = new Case(...(Object.values(paths(place, dir)) as [string, string]));
        const { findings, cutMethod, files } = await subject.snapshot();
        assert.equal(cutMethod, 'SETTLED');
        assert.equal(files, 3);
        const inside = how === 'deep down' ? 'blobs/of/ours/store' : 'store';
        assert.deepEqual(briefly(findings), [`store_inside ${inside}`]);
        if (how !== 'deep down') return;
        assert.equal((await subject.snapshot()).unchanged, true);
        fillGraph(dir, 2);
        assert.equal((await subject.snapshot()).unchanged, false);
        await subject.restore('latest', join(place, 'back'));
        const wanted = [...readTree(dir).keys()].filter((path) => !`${path}/`.startsWith(`${inside}/`));
        assert.deepEqual([...readTree(join(place, 'back')).keys()], wanted);
        assert.equal(await subject.assertSound(), 2);
      });
    }

    it('or around it, or equal to it, is refused before anything is written', async (t) => {
      const { place, dir } = await graphIn(t);
      const empty = join(place, 'empty');
      mkdirSync(empty);
      symlinkSync(empty, join(place, 'link'));
      const store = join(place, 'store');
      await new Case(dir, store).snapshot();
      const before = everything(place);
      for (const [inner, outer] of [
        [empty, empty],
        [join(place, 'link'), empty],
        [empty, join(place, 'link')],
        [dir, dir],
        [store, store],
        [join(store, 'packs'), store],
      ] as const) {
        const ended = await lightkeeper([nextCommand(), '--dir', inner, '--store', outer]);
        assertRefused(ended, { code: 2, error: /Cannot protect ".*": it is the store/, hint: /--store/ });
      }
      assert.deepEqual(everything(place), before);
    });
  });

  describe('a store path', { concurrency: 2 }, () => {
    it('may be a symlink to an empty folder or a store', async (t) => {
      const { place, dir } = await graphIn(t);
      mkdirSync(join(place, 'disk'));
      symlinkSync(join(place, 'disk'), join(place, 'link'));
      const subject = new Case(dir, join(place, 'link'));
      await subject.snapshot();
      assert.equal((await new Case(dir, join(place, 'disk')).snapshot()).unchanged, true);
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(dir), join(place, 'back'));
      await subject.assertSound();
    });

    it('may be new and deep and end with a slash, and the store may be moved', async (t) => {
      const { place, dir } = await graphIn(t);
      const subject = new Case(dir, `${join(place, 'a/b/../c/store')}/`);
      await subject.snapshot();
      renameSync(join(place, 'a/c/store'), join(place, 'moved'));
      const moved = new Case(dir, join(place, 'moved'));
      assert.equal((await moved.snapshot()).unchanged, true);
      await moved.assertSound();
    });

    it('may be the top of a disk with lost+found', async (t) => {
      const { place, dir } = await graphIn(t);
      mkdirSync(join(place, 'disk/lost+found'), { recursive: true });
      const subject = new Case(dir, join(place, 'disk'));
      await subject.snapshot();
      await subject.assertSound();
    });

    it('is refused if it is something else, which is left alone', async (t) => {
      const { place, dir } = await graphIn(t);
      writeFileSync(join(place, 'file'), 'mine');
      fill(join(place, 'foreign'), { 'thesis.txt': 'mine', 'tmp/x': 'mine' });
      fill(join(place, 'looks like one'), { 'packs/README': 'mine' });
      symlinkSync('nowhere', join(place, 'dangling'));
      symlinkSync('ring', join(place, 'ring'));
      const before = everything(place);
      for (const [store, code, error] of [
        ['file', 2, /it is not a folder/],
        ['file/below', 1, /ENOTDIR/],
        ['foreign', 4, /it holds other files/],
        ['looks like one', 1, /config are missing/],
        ['dangling', 2, /symlink to a missing target/],
        ['ring', 1, /ELOOP/],
      ] as const) {
        const ended = await lightkeeper([nextCommand(), '--dir', dir, '--store', join(place, store)]);
        assertRefused(ended, { code, error, hint: /./ });
      }
      assert.deepEqual(everything(place), before);
    });

    it('is not created by a command that only reads', async (t) => {
      const { place } = await graphIn(t);
      writeFileSync(join(place, 'file'), 'mine');
      fill(join(place, 'foreign'), { 'thesis.txt': 'mine' });
      mkdirSync(join(place, 'empty'));
      const before = everything(place);
      const commands = [
        ['list'],
        ['show', 'latest'],
        ['stats'],
        ['verify'],
        ['restore', '--snapshot', 'latest', '--to', join(place, 'back')],
        ['repair'],
        ['prune', '--keep-last', '1'],
        ['pin', '0123456789'],
      ];
      for (const [i, command] of commands.entries()) {
        const store = ['absent', 'empty', 'foreign'][i % 3] as string;
        const ended = await lightkeeper([...command, '--store', join(place, store)]);
        assertRefused(ended, { code: 1, error: /there is none/, hint: /--store/ });
      }
      const ended = await lightkeeper(['list', '--store', join(place, 'file')]);
      assertRefused(ended, { code: 1, error: /there is none/, hint: /--store/ });
      assert.deepEqual(everything(place), before);
    });

    it('is refused without write permission', needing('root', 'setpriv'), async (t) => {
      const { place, dir } = await graphIn(t);
      mkdirSync(join(place, 'root only'));
      mkdirSync(join(place, 'mine'));
      chownSync(join(place, 'mine'), NOBODY, NOBODY);
      for (const store of ['root only', 'root only/store']) {
        const ended = await lightkeeper(['snapshot', '--dir', dir, '--store', join(place, store)], {
          under: asUser(),
        });
        assertRefused(ended, { code: 1, error: /EACCES/, hint: /grant this user access/ });
      }
      await new Case(dir, join(place, 'mine/store')).snapshot({ under: asUser() });
      assert.deepEqual([...readTree(join(place, 'root only')).keys()], []);
    });
  });

  describe('a directory path', { concurrency: 2 }, () => {
    it('may be a symlink', async (t) => {
      const { place, dir } = await graphIn(t);
      symlinkSync(dir, join(place, 'link'));
      const subject = new Case(join(place, 'link'), join(place, 'store'));
      await subject.snapshot();
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(dir), join(place, 'back'));
    });

    it('is refused if it is missing or no directory, and no store is created', async (t) => {
      const { place } = await graphIn(t);
      writeFileSync(join(place, 'file'), 'x');
      symlinkSync('nowhere', join(place, 'dangling'));
      for (const [dir, code, error] of [
        ['absent', 1, /it is not there/],
        ['dangling', 1, /it is not there/],
        ['file', 2, /it is not a directory/],
        ['file/below', 1, /ENOTDIR/],
      ] as const) {
        // What is not there yet may come: a running agent waits for it.
        const command = code === 1 ? 'snapshot' : nextCommand();
        const words = [command, '--dir', join(place, dir), '--store', join(place, 'store')];
        assertRefused(await lightkeeper(words), { code, error, hint: /./ });
      }
      assert.ok(!existsSync(join(place, 'store')));
    });

    it('to restore to is refused if something is there, which is left alone', async (t) => {
      const { place, dir } = await graphIn(t);
      const subject = new Case(dir, join(place, 'store'));
      const { snapshotId } = await subject.snapshot();
      writeFileSync(join(place, 'file'), 'mine');
      mkdirSync(join(place, 'empty'));
      symlinkSync(join(place, 'empty'), join(place, 'link'));
      symlinkSync('nowhere', join(place, 'dangling'));
      const before = everything(place);
      for (const [to, error] of [
        ['data', /it is not empty/],
        ['file', /not a directory/],
        ['link', /not a directory/],
        ['dangling', /not a directory/],
      ] as const) {
        const words = ['restore', '--snapshot', snapshotId, '--to', join(place, to), '--disk-reserve', '0'];
        assertRefused(await subject.run(words), { code: 4, error, hint: /absent or empty/ });
      }
      assert.deepEqual(everything(place), before);
      rmSync(join(place, 'empty'), { recursive: true });
      await subject.restore('latest', join(place, 'new/and/deep'));
      assertSameTree(readTree(dir), join(place, 'new/and/deep'));
    });
  });
});
