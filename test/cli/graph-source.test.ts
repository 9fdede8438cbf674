import assert from 'node:assert/strict';
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { type Json, listOf, Place, suite } from '../support/cli-place.ts';
import { bind, needing } from '../support/machine.ts';
import { atEnd } from '../support/place.ts';

/** Makes directories with the same last name, each with a file that holds its name. */
function sameNames(place: Place, ...above: string[]): string[] {
  return above.map((name) => {
    const dir = join(place.root, name, 'rag');
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, 'whose'), name);
    return dir;
  });
}

function snapshotOf(dir: string, ...more: string[]): string[] {
  return ['snapshot', '--dir', dir, '--quiet', '50ms', ...more];
}

function codesOf({ findings }: Json): string[] {
  return (findings as Json[]).map(({ code }) => String(code));
}

async function graphsOf(place: Place): Promise<string[]> {
  return listOf(await place.json(['list']), 'snapshots').map(({ graphId }) => String(graphId));
}

suite('a graph', () => {
  it('refuses a second directory of the same name, unless that is given an id', async () => {
    const place = new Place();
    const [one = '', two = ''] = sameNames(place, 'one', 'two');
    const first = await place.json(snapshotOf(one));
    const { message, hint } = await place.fails([...snapshotOf(two), '--store', place.store], 4);
    assert.match(String(message), new RegExp(`as graph "rag": .* came from "${one}"`));
    assert.match(String(hint), /--graph rag.*--graph ID/);
    assert.deepEqual(await place.ids(), [first.snapshotId]);
    const own = await place.json(snapshotOf(two, '--graph', 'second'));
    assert.deepEqual([own.graphId, codesOf(own)], ['second', []]);
    assert.equal((await place.json(snapshotOf(one))).unchanged, true);
  });

  it('goes on from another directory that is given its id, and says so', async () => {
    const place = new Place();
    const [one = '', two = ''] = sameNames(place, 'one', 'two');
    await place.json(snapshotOf(one));
    const moved = await place.json(snapshotOf(two, '--graph', 'rag'));
    assert.deepEqual([moved.unchanged, codesOf(moved)], [false, ['graph_moved']]);
    assert.deepEqual(codesOf(await place.json(['show', String(moved.snapshotId)])), ['graph_moved']);
    assert.equal((await place.json(snapshotOf(two))).snapshotId, moved.snapshotId);
    await place.fails([...snapshotOf(one), '--store', place.store], 4);
  });

  it('of a directory that was moved is refused until its id is given once', async () => {
    const place = new Place();
    const [before = '', after = ''] = sameNames(place, 'before', 'after');
    const first = await place.json(snapshotOf(before));
    rmSync(after, { recursive: true });
    renameSync(before, after);
    const { hint } = await place.fails([...snapshotOf(after), '--store', place.store], 4);
    assert.match(String(hint), /moved/);
    const moved = await place.json(snapshotOf(after, '--graph', 'rag'));
    assert.deepEqual([moved.unchanged, moved.parentId, moved.newBytes], [false, first.snapshotId, '0']);
    const next = await place.json(snapshotOf(after));
    assert.deepEqual([next.unchanged, next.snapshotId], [true, moved.snapshotId]);
  });

  it('is one whatever path names its directory', async () => {
    const place = new Place();
    const { snapshotId } = await place.snapshot({ a: 'a' });
    symlinkSync('rag', place.path('link'));
    for (const path of ['rag/', './rag//.', 'link', 'link/', place.path('link')]) {
      const again = await place.jsonOfProcess(snapshotOf(path));
      assert.deepEqual([again.unchanged, again.graphId, again.snapshotId], [true, 'rag', snapshotId], path);
    }
  });

  it('is one at another mount of its directory', needing('mount'), async (t) => {
    const place = new Place();
    const { snapshotId } = await place.snapshot({ a: 'a' });
    mkdirSync(place.path('mounted/rag'), { recursive: true });
    atEnd(t, await bind(place.dir, place.path('mounted/rag')));
    const again = await place.json(snapshotOf(place.path('mounted/rag')));
    assert.deepEqual([again.unchanged, again.snapshotId], [true, snapshotId]);
  });

  it('of another directory stops an agent at its start', async () => {
    const place = new Place();
    const [one = '', two = ''] = sameNames(place, 'one', 'two');
    const { snapshotId } = await place.json(snapshotOf(one));
    const up = (...more: string[]) => [
      'up',
      '--dir',
      two,
      '--store',
      place.store,
      '--http',
      '127.0.0.1:0',
      ...more,
    ];
    assert.match(await place.failsPlainly(up(), 4), /came from "[^"]+\/one\/rag"/);
    assert.deepEqual(await place.ids(), [snapshotId]);
    const agent = place.start(up('--graph', 'rag'));
    await agent.says(/protected since/);
    assert.equal((await agent.stop()).code, 0);
    const { findings } = await place.json(['show', 'latest']);
    assert.deepEqual(codesOf({ findings }), ['graph_moved']);
  });

  it('has an id that no other name of a directory or workspace has', async () => {
    const place = new Place();
    for (const name of ['客户', '产品', '_x', 'x', 'X!', 'X?']) {
      mkdirSync(join(place.dir, name));
      writeFileSync(join(place.dir, name, 'kv_store_full_docs.json'), JSON.stringify({ name }));
    }
    writeFileSync(join(place.dir, 'a'), 'a');
    const split = listOf(
      await place.json(['snapshot', '--dir', place.dir, '--split', '--no-grade']),
      'snapshots',
    );
    assert.equal(new Set(split.map(({ graphId }) => graphId)).size, 7);
    assert.equal(new Set(await graphsOf(place)).size, 7);
    for (const dir of ['产品', '客户']) {
      mkdirSync(place.path(dir));
      await place.json(snapshotOf(place.path(dir)));
    }
    assert.equal(new Set(await graphsOf(place)).size, 9);
  });
});

suite('restore --in-place', () => {
  const restoring = (dir: string, ...more: string[]) => [
    ...['restore', 'latest-valid', '--in-place', dir, '--instance-stopped', '--disk-reserve', '0'],
    ...more,
  ];

  it('refuses a directory that the point did not come from, unless the graph is named', async () => {
    const place = new Place();
    const [one = '', two = ''] = sameNames(place, 'one', 'two');
    await place.json(snapshotOf(one));
    for (const more of [[], ['--dry-run']]) {
      const { message, hint } = await place.fails([...restoring(two, ...more), '--store', place.store], 4);
      assert.match(String(message), new RegExp(`captured from "${one}"`));
      assert.match(String(hint), /--graph rag/);
    }
    assert.equal(readFileSync(join(two, 'whose'), 'utf8'), 'two');
    await place.json(restoring(two, '--graph', 'rag'));
    assert.equal(readFileSync(join(two, 'whose'), 'utf8'), 'one');
  });

  it('accepts every path of the directory, and its place when it is gone', async () => {
    const place = new Place();
    await place.snapshot({ a: 'a' });
    symlinkSync('rag', place.path('link'));
    writeFileSync(join(place.dir, 'a'), 'changed');
    await place.jsonOfProcess(restoring('link'));
    assert.equal(readFileSync(join(place.dir, 'a'), 'utf8'), 'a');
    rmSync(place.dir, { recursive: true });
    await place.jsonOfProcess(restoring('rag'));
    assert.equal(readFileSync(join(place.dir, 'a'), 'utf8'), 'a');
  });
});

suite('the settings of a guarded directory', () => {
  it('hold for a snapshot by whatever path', async () => {
    const place = new Place();
    place.write('a', 'a');
    place.write('big.log', 'log');
    cpSync(place.dir, place.path('other'), { recursive: true });
    symlinkSync(place.dir, place.path('link'));
    const agent = await place.up('--graph', 'main', '--exclude', '*.log');
    await agent.running.says(/protected since/);
    for (const path of ['link', 'rag/', place.dir]) {
      place.write('a', `as ${path}`);
      const taken = await place.jsonOfProcess(snapshotOf(path));
      assert.equal(taken.graphId, 'main', path);
      const shown = listOf(await place.json(['show', String(taken.snapshotId)]), 'files');
      assert.deepEqual(
        shown.map((file) => file.path),
        ['a'],
        path,
      );
    }
    const other = await place.json(snapshotOf(place.path('other')));
    assert.deepEqual([other.graphId, other.files], ['other', 2], 'another directory has none of them');
    assert.equal((await agent.stop()).code, 0);
    assert.equal(readdirSync(place.dir).includes('big.log'), true);
  });
});
