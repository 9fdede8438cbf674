import assert from 'node:assert/strict';
import { linkSync, mkdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { it } from 'node:test';
import { hasFields, type Json, kinds, listOf, Place, suite, there } from '../support/cli-place.ts';

const SNAPSHOT = {
  snapshotId: 'id',
  graphId: 'text',
  position: 'map',
  parentId: 'text',
  grade: 'word',
  cutMethod: 'word',
  capturedAt: 'time',
  durationMs: 'long',
  gradeMs: 'long',
  unchanged: 'flag',
  files: 'number',
  rawBytes: 'long',
  newBytes: 'long',
  storedBytes: 'long',
  units: 'long',
  newUnits: 'number',
  findings: 'list',
} as const;
const POSITION = { epoch: 'long', mintId: 'hex', sequence: 'long', digest: 'hex' } as const;
const SUMMARY = {
  snapshotId: 'id',
  graphId: 'text',
  position: 'map',
  parentId: 'text',
  grade: 'word',
  capturedAt: 'time',
  rawBytes: 'long',
  newBytes: 'long',
  storedBytes: 'long',
  tags: 'map',
  pinned: 'flag',
  summary: 'text',
} as const;
const FILE = {
  path: 'text',
  type: 'word',
  size: 'long',
  mode: 'number',
  mtime: 'time',
  units: 'long',
} as const;
function time(value: unknown): number {
  assert.equal(kinds.time(value), true);
  return Date.parse(String(value));
}

function position(snapshot: Json): Json {
  return snapshot.position as Json;
}

suite('snapshot', () => {
  it('reports the snapshot it took', async () => {
    const place = new Place();
    const before = Date.now();
    const snapshot = await place.snapshot({ 'a.json': '{"a":1}', 'b.txt': 'b'.repeat(1000) });
    hasFields(snapshot, SNAPSHOT);
    hasFields(snapshot.position, POSITION);
    const { graphId, parentId, unchanged, files, rawBytes, newBytes, newUnits, units, cutMethod } = snapshot;
    assert.deepEqual(
      { graphId, parentId, unchanged, files, rawBytes, newBytes, newUnits, units, cutMethod },
      {
        graphId: 'rag',
        parentId: '',
        unchanged: false,
        files: 2,
        rawBytes: '1007',
        newBytes: '1007',
        newUnits: 2,
        units: '2',
        cutMethod: 'SETTLED',
      },
    );
    const { epoch, mintId, sequence, digest } = position(snapshot);
    assert.deepEqual([epoch, sequence], ['1', '1']);
    assert.match(String(mintId), /^[0-9a-f]{32}$/);
    assert.match(String(digest), /^[0-9a-f]{64}$/);
    assert.equal(snapshot.snapshotId, String(digest).slice(0, 32));
    assert.equal(time(snapshot.capturedAt) >= before - 1 && time(snapshot.capturedAt) <= Date.now(), true);
    assert.equal(['UNGRADED', 'VALID', 'DEGRADED', 'TORN', 'INVALID'].includes(String(snapshot.grade)), true);
  });

  it('of a second state has the first as parent and stores only what is new', async () => {
    const place = new Place();
    const first = await place.snapshot({ a: 'a'.repeat(5000), b: 'b' });
    const second = await place.snapshot({ b: 'bb' });
    assert.equal(second.parentId, first.snapshotId);
    assert.equal(position(second).sequence, '2');
    assert.equal(position(second).mintId, position(first).mintId);
    assert.deepEqual([second.rawBytes, second.newBytes, second.newUnits], ['5002', '2', 1]);
    assert.equal(time(second.capturedAt) > time(first.capturedAt), true);
    assert.deepEqual(await place.ids(), [second.snapshotId, first.snapshotId]);
  });

  it('includes workspaces, or takes each as its own graph with --split', async () => {
    const place = new Place();
    for (const folder of ['one', 'notes']) mkdirSync(join(place.dir, folder));
    place.write('one/kv_store_text_chunks.json', '{}');
    place.write('notes/readme', 'no graph');
    place.write('kv_store_full_docs.json', '{}');
    assert.equal((await place.snapshot()).files, 3);
    const split = await place.json(['snapshot', '--dir', place.dir, '--split']);
    const taken = listOf(split, 'snapshots').map(({ graphId, files }) => [graphId, files]);
    assert.deepEqual(taken, [
      ['rag', 2],
      ['rag.one', 1],
    ]);
    const plain = await place.run(['snapshot', '--dir', place.dir, '--split', '--store', place.store]);
    assert.match(plain.stdout, /^rag: unchanged since .*\nrag\.one: unchanged since /m);
  });

  it('of an unchanged directory returns the head, confirmed again', async () => {
    const place = new Place();
    const first = await place.snapshot({ a: 'a' });
    const again = await place.snapshot();
    assert.equal(again.unchanged, true);
    assert.equal(again.snapshotId, first.snapshotId);
    assert.deepEqual(again.position, first.position);
    assert.equal(again.capturedAt, first.capturedAt);
    assert.equal(time(again.confirmedAt) > time(first.confirmedAt), true);
    assert.deepEqual(await place.ids(), [first.snapshotId]);
    const { snapshot } = await place.json(['show', 'latest']);
    assert.equal((snapshot as Json).confirmedAt, again.confirmedAt);
    const back = await place.snapshot({ a: 'b' });
    assert.equal(back.unchanged, false);
  });

  it('reports the bytes it added to the store', async () => {
    const place = new Place();
    let sum = 0;
    for (const content of ['a'.repeat(3000), 'b'.repeat(70_000)]) {
      const { storedBytes } = await place.snapshot({ a: content }, '--no-grade');
      sum += Number(storedBytes);
      assert.equal(String(sum), (await place.json(['stats'])).storedBytes);
    }
  });

  it('of an empty directory is allowed', async () => {
    const place = new Place();
    const { files, rawBytes, units } = await place.snapshot();
    assert.deepEqual([files, rawBytes, units], [0, '0', '0']);
  });

  it('stores tags, and returns after the commit with --no-grade', async () => {
    const place = new Place();
    const tagged = await place.snapshot({ a: 'a' }, '--tag', 'release=1.4', '--tag', 'by=a=b', '--no-grade');
    assert.deepEqual(tagged.tags, { release: '1.4', by: 'a=b' });
    assert.equal(tagged.grade, 'UNGRADED');
    const [listed] = listOf(await place.json(['list']), 'snapshots');
    assert.deepEqual(listed?.tags, tagged.tags);
  });

  it('of an unchanged directory tags the head', async () => {
    const place = new Place();
    await place.snapshot({ a: 'a' }, '--tag', 'old=1');
    const again = await place.snapshot({}, '--tag', 'release=1.4');
    assert.equal(again.unchanged, true);
    assert.deepEqual(again.tags, { old: '1', release: '1.4' });
    const [listed] = listOf(await place.json(['list']), 'snapshots');
    assert.deepEqual(listed?.tags, { old: '1', release: '1.4' });
  });

  it('names the graph after its directory or by --graph', async () => {
    const place = new Place();
    const odd = place.path('my graph (old)');
    mkdirSync(odd);
    assert.match(String((await place.json(['snapshot', '--dir', odd])).graphId), /^mygraphold-[0-9a-f]{8}$/);
    assert.equal((await place.json(['snapshot', '--dir', odd, '--graph', 'main'])).graphId, 'main');
    const relative = ['snapshot', '--dir', `${basename(place.dir)}/`];
    assert.equal((await place.jsonOfProcess(relative)).graphId, 'rag');
  });

  it('that is torn exits 3, has no sequence and is never a parent', async () => {
    const place = new Place();
    const good = await place.snapshot({ a: 'a' });
    const torn = await place.tornSnapshot();
    assert.deepEqual([torn.grade, torn.cutMethod, torn.unchanged], ['TORN', 'CHANGED', false]);
    assert.equal(position(torn).sequence, '0');
    assert.equal(listOf(torn, 'findings').length > 0, true);
    for (const finding of listOf(torn, 'findings'))
      hasFields(finding, { code: 'text', severity: 'word', object: 'text', message: 'text', hint: 'text' });
    const next = await place.snapshot();
    assert.equal(next.parentId, good.snapshotId);
    assert.equal(position(next).sequence, '2');
    const { snapshot } = await place.json(['show', 'latest']);
    assert.equal((snapshot as Json).snapshotId, next.snapshotId);
  });

  it('waits no longer than --settle-timeout', async () => {
    const place = new Place();
    place.write('a', 'just now');
    const startedMs = performance.now();
    const waiting = ['--quiet', '6s', '--settle-timeout', '200ms'];
    const { cutMethod } = await place.json(['snapshot', '--dir', place.dir, ...waiting], 3);
    assert.equal(cutMethod, 'CHANGED');
    assert.equal(performance.now() - startedMs < 6000, true);
  });

  it('skips special files with a finding, and temporary siblings without one', async () => {
    const place = new Place();
    writeFileSync(join(place.dir, 'kv.json.tmp.1.2.3'), 'half');
    mkdirSync(join(place.dir, '.lightkeeper'));
    writeFileSync(join(place.dir, '.lightkeeper', 'own'), 'own');
    const store = join(place.dir, 'store');
    const outcome = await place.run([
      'snapshot',
      '--dir',
      place.dir,
      '--store',
      store,
      '--quiet',
      '0',
      '--json',
    ]);
    assert.equal(outcome.code, 0, outcome.stderr);
    const snapshot = JSON.parse(outcome.stdout) as Json;
    assert.equal(snapshot.files, 0);
    assert.deepEqual(
      listOf(snapshot, 'findings').map(({ code, object }) => [code, object]),
      [['store_inside', 'store']],
    );
  });

  it("uses the store in the state folder, or that of LightRAG's variable", async () => {
    const place = new Place();
    place.write('a', 'a');
    const take = ['snapshot', '--dir', place.dir];
    assert.equal((await place.run(take)).code, 0);
    assert.equal(there(place.path('state/store/packs')), true);
    assert.equal((await place.run(take, { LIGHTRAG_BACKUP_STORAGE_PATH: place.path('old') })).code, 0);
    assert.equal(there(place.path('old/packs')), true);
  });

  it('prints one line, on standard output only', async () => {
    const place = new Place();
    place.write('a', 'a');
    const taken = await place.run(['snapshot', '--dir', place.dir, '--store', place.store]);
    assert.deepEqual([taken.code, taken.stderr], [0, '']);
    assert.match(taken.stdout, /^snapshot [0-9a-f]{12}: VALID, 1 files, 1 B, .*, graded in .*\n$/);
    const again = await place.run(['snapshot', '--dir', place.dir, '--store', place.store]);
    assert.match(again.stdout, /^unchanged since [0-9a-f]{12} VALID .*\n$/);
  });
});

suite('list', () => {
  it('lists every snapshot, newest first', async () => {
    const place = new Place();
    const taken: unknown[] = [];
    for (const content of ['1', '2', '3']) taken.unshift((await place.snapshot({ a: content })).snapshotId);
    const list = await place.json(['list']);
    assert.equal(list.nextPageToken, '');
    const snapshots = listOf(list, 'snapshots');
    assert.deepEqual(
      snapshots.map(({ snapshotId }) => snapshotId),
      taken,
    );
    for (const snapshot of snapshots) {
      hasFields(snapshot, SUMMARY);
      hasFields(snapshot.position, POSITION);
    }
    const people = await place.run(['list', '--store', place.store]);
    for (const id of taken) assert.equal(people.stdout.includes(String(id).slice(0, 12)), true);
  });

  it('of an empty store or an unknown graph is empty', async () => {
    const place = new Place();
    await place.snapshot({ a: 'a' });
    assert.deepEqual(await place.json(['list', '--graph', 'other']), { snapshots: [], nextPageToken: '' });
  });

  it('with --graph lists one graph only', async () => {
    const place = new Place();
    const one = await place.snapshot({ a: 'a' }, '--graph', 'one');
    const two = await place.snapshot({}, '--graph', 'two');
    assert.deepEqual((await place.ids()).sort(), [one.snapshotId, two.snapshotId].sort());
    const [only, ...more] = listOf(await place.json(['list', '--graph', 'two']), 'snapshots');
    assert.deepEqual([only?.snapshotId, more], [two.snapshotId, []]);
  });
});

suite('show', () => {
  it('prints the snapshot, its files and its findings', async () => {
    const place = new Place();
    mkdirSync(join(place.dir, 'folder'), { mode: 0o750 });
    place.write('folder/file', 'four');
    utimesSync(join(place.dir, 'folder/file'), 1_700_000_000.5, 1_700_000_000.5);
    symlinkSync('folder/file', join(place.dir, 'link'));
    linkSync(join(place.dir, 'folder/file'), join(place.dir, 'second'));
    const taken = await place.snapshot();
    const shown = await place.json(['show', String(taken.snapshotId)]);
    hasFields(shown, { snapshot: 'map', files: 'list', findings: 'list' });
    hasFields(shown.snapshot, SNAPSHOT);
    const files = listOf(shown, 'files');
    for (const file of files) hasFields(file, FILE);
    assert.deepEqual(
      files.map(({ path, type, size, target }) => [path, type, size, target]),
      [
        ['folder', 'DIRECTORY', '0', undefined],
        ['folder/file', 'REGULAR', '4', undefined],
        ['link', 'SYMLINK', '0', 'folder/file'],
        ['second', 'HARD_LINK', '0', 'folder/file'],
      ],
    );
    assert.equal(files[0]?.mode, 0o750);
    assert.equal(files[1]?.mtime, '2023-11-14T22:13:20.500Z');
    assert.equal(
      files.every((file) => !('pathBytes' in file)),
      true,
    );
    const people = await place.run(['show', 'latest', '--store', place.store]);
    assert.match(people.stdout, /folder\/file/);
  });

  it('prints names that are not UTF-8 as escapes, with their bytes', async () => {
    const place = new Place();
    const raw = Buffer.concat([Buffer.from(`${place.dir}/odd`), Buffer.from([0xff, 0xc3])]);
    writeFileSync(raw, '');
    place.write('back\\slash', '');
    place.write('grün', '');
    const { snapshotId } = await place.snapshot();
    const files = listOf(await place.json(['show', String(snapshotId)]), 'files');
    assert.deepEqual(
      files.map(({ path, pathBytes }) => [path, pathBytes]),
      [
        ['back\\x5cslash', undefined],
        ['grün', undefined],
        ['odd\\xff\\xc3', Buffer.concat([Buffer.from('odd'), Buffer.from([0xff, 0xc3])]).toString('base64')],
      ],
    );
    rmSync(raw);
  });

  it('accepts an id, its first eight digits, latest and latest-valid', async () => {
    const place = new Place();
    const first = String((await place.snapshot({ a: '1' })).snapshotId);
    const second = String((await place.snapshot({ a: '2' })).snapshotId);
    const found = async (name: string) => ((await place.json(['show', name])).snapshot as Json).snapshotId;
    for (const name of [first, first.slice(0, 8), first.slice(0, 31), first.slice(0, 8).toUpperCase()])
      assert.equal(await found(name), first, name);
    assert.equal(await found('latest'), second);
    assert.equal(await found('latest-valid'), second);
    for (const name of [first.slice(0, 7), 'newest', `${first}0`, 'zzzzzzzz'])
      await place.fails(['show', name, '--store', place.store], 2);
  });

  it('needs --graph for latest where the store holds several', async () => {
    const place = new Place();
    const one = await place.snapshot({ a: 'a' }, '--graph', 'one');
    await place.snapshot({ a: 'b' }, '--graph', 'two');
    const { hint } = await place.fails(['show', 'latest', '--store', place.store], 2);
    assert.match(String(hint), /--graph/);
    const { snapshot } = await place.json(['show', 'latest', '--graph', 'one']);
    assert.equal((snapshot as Json).snapshotId, one.snapshotId);
    await place.json(['show', String(one.snapshotId)]);
  });
});
