import assert from 'node:assert/strict';
import { readdirSync, statSync } from 'node:fs';
import { describe, it } from 'node:test';
import {
  createFile,
  effect,
  effectSync,
  makeDir,
  removeFile,
  removeTree,
  renameFile,
  syncDir,
  syncFile,
  watchEffects,
  writeAt,
} from '../../host/disk.ts';
import { checkReserve } from '../../host/disk-reserve.ts';
import { syncFilesystem } from '../../host/sync-filesystem.ts';
import { withTextPath } from '../../host/text-path.ts';
import { tempFolder } from '../support/place.ts';

const WHAT = { label: 'test:effect', op: 'other' as const, path: '/nowhere' };

/** A path below a folder whose last name is not UTF-8. */
function bytesBelow(folder: string | Buffer, name: string): Buffer {
  return Buffer.concat([Buffer.from(folder), Buffer.from(`/${name}`, 'latin1')]);
}

describe('an effect', () => {
  it('is seen by each watcher before and after it, until the watcher ends', async () => {
    const seen: string[] = [];
    const stops = ['a', 'b'].map((name) =>
      watchEffects((phase, { label }) => {
        if (label === WHAT.label) seen.push(`${name} ${phase} ${label}`);
      }),
    );
    assert.equal(await effect(WHAT, () => Promise.resolve(1)), 1);
    for (const stop of stops) stop();
    assert.equal(
      effectSync(WHAT, () => 2),
      2,
    );
    assert.deepEqual(
      seen,
      ['before', 'after'].flatMap((phase) => [`a ${phase} test:effect`, `b ${phase} test:effect`]),
    );
  });

  for (const phase of ['before', 'after'] as const) {
    it(`fails with what a watcher throws ${phase} it`, async () => {
      const failure = Object.assign(new Error('injected'), { code: 'EIO' });
      const stop = watchEffects((now, { label }) => {
        if (now === phase && label === WHAT.label) throw failure;
      });
      let runs = 0;
      const run = () => {
        runs += 1;
      };
      await assert.rejects(
        effect(WHAT, () => Promise.resolve(run())),
        failure,
      );
      assert.throws(() => effectSync(WHAT, run), failure);
      stop();
      assert.equal(runs, phase === 'before' ? 0 : 2);
      await effect(WHAT, () => Promise.resolve(run()));
    });
  }
});

describe('a path that is not UTF-8', () => {
  it('reaches the disk as its bytes', async (t) => {
    const folder = bytesBelow(await tempFolder(t), 'a\xff');
    const deep = bytesBelow(folder, 'b\xfe');
    await makeDir('test', deep);
    const [from, to] = [bytesBelow(deep, 'from\x80'), bytesBelow(deep, 'to\x81')];
    const file = await createFile('test', from);
    await writeAt('test', from, file, Buffer.from('bytes'), 0);
    await syncFile('test', from, file);
    await file.close();
    await renameFile('test', from, to);
    await syncDir('test', deep);
    await syncFilesystem('test', deep);
    assert.deepEqual(readdirSync(deep, { encoding: 'latin1' }), ['to\x81']);
    assert.equal(statSync(to).size, 5);
    await removeFile('test', to);
    await removeTree('test', folder);
    assert.throws(() => statSync(folder), { code: 'ENOENT' });
  });

  it('has only its new folders synced', async (t) => {
    const place = await tempFolder(t);
    const synced: string[] = [];
    const stop = watchEffects((phase, { op, path }) => {
      if (phase === 'after' && op === 'syncDir' && path.toString().startsWith(place))
        synced.push(path.toString('latin1'));
    });
    await makeDir('test', bytesBelow(bytesBelow(place, 'a\xff'), 'b\xfe')).finally(stop);
    assert.deepEqual(synced, [`${place}/a\xff`, place]);
  });

  it('is shown with escapes', async (t) => {
    const path = bytesBelow(await tempFolder(t), 'no\xff');
    await assert.rejects(syncDir('test', path), { code: 'IO', message: /no\\xff"/ });
  });

  it('counts against the reserve of its disk, also before it exists', async (t) => {
    const place = bytesBelow(bytesBelow(await tempFolder(t), 'a\xff'), 'b\xfe');
    const need = { doing: 'write', place, bytes: 1, reserveBytes: 2n ** 60n };
    await assert.rejects(checkReserve(need), { code: 'REFUSED', message: /disk reserve/ });
  });

  it('has a path of text as long as a call runs', async (t) => {
    const place = await tempFolder(t);
    const folder = bytesBelow(place, 'a\xff');
    await makeDir('test', folder);
    const text = await withTextPath(folder, (path) => {
      assert.equal(statSync(path).ino, statSync(folder).ino);
      return Promise.resolve(path);
    });
    assert.throws(() => statSync(text));
    assert.equal(await withTextPath(Buffer.from(place), (path) => Promise.resolve(path)), place);
  });
});
