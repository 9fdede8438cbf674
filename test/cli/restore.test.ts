import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { hasFields, listOf, Place, suite, there } from '../support/cli-place.ts';
import { BUILT, runToEnd } from '../support/program.ts';

const RESTORED = {
  snapshotId: 'id',
  to: 'text',
  files: 'number',
  bytes: 'long',
  durationMs: 'long',
  verified: 'flag',
} as const;

/** Names, kinds, modes, times to the microsecond and bytes of all below a directory, as lines. */
function tree(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => {
      const path = join(dir, name);
      const stat = lstatSync(path, { bigint: true });
      const about = `${name} ${(stat.mode & 0o7777n).toString(8)} ${stat.mtimeNs / 1000n} ${stat.nlink}`;
      if (stat.isSymbolicLink()) return `${about} -> ${readlinkSync(path)}`;
      return stat.isDirectory()
        ? `${about} folder`
        : `${about} ${createHash('sha256').update(readFileSync(path)).digest('hex')}`;
    });
}

function fill({ dir }: Place): void {
  mkdirSync(join(dir, 'folder/deep'), { recursive: true });
  writeFileSync(join(dir, 'empty'), '');
  writeFileSync(join(dir, 'vectors.bin'), Buffer.alloc(300_000, 'abcdefg'));
  writeFileSync(join(dir, 'folder/deep/secret'), 'secret');
  chmodSync(join(dir, 'folder/deep/secret'), 0o600);
  writeFileSync(join(dir, 'folder/tool'), '#!/bin/sh\n');
  chmodSync(join(dir, 'folder/tool'), 0o755);
  symlinkSync('../nowhere', join(dir, 'folder/dangling'));
  linkSync(join(dir, 'folder/tool'), join(dir, 'tool'));
  chmodSync(join(dir, 'folder'), 0o711);
  // The deepest first: what is made in a folder changes its time.
  const names = readdirSync(dir, { recursive: true, encoding: 'utf8' }).sort().reverse();
  for (const [i, name] of [...names, '.'].entries())
    lutimesSync(join(dir, name), 1_500_000_000 + i, 1_500_000_000 + i);
}

function restoring(place: Place, snapshot: string, to: string, ...more: string[]): string[] {
  return ['restore', '--snapshot', snapshot, '--to', place.path(to), ...more];
}

suite('restore', () => {
  it('restores names, bytes, modes, times and links as they were', async () => {
    const place = new Place();
    fill(place);
    const { snapshotId, files } = await place.snapshot();
    const result = await place.json(restoring(place, 'latest', 'a/b/to'));
    hasFields(result, RESTORED);
    assert.deepEqual(
      [result.snapshotId, result.to, result.files, result.verified],
      [snapshotId, place.path('a/b/to'), files, true],
    );
    assert.deepEqual(tree(place.path('a/b/to')), tree(place.dir));
    assert.equal(statSync(place.path('a/b/to')).mode, statSync(place.dir).mode);
    assert.equal(
      Number(result.bytes),
      300_000 + 'secret'.length + '#!/bin/sh\n'.length,
      'the bytes of hard links count once',
    );
  });

  it('restores times to the microsecond', async () => {
    const place = new Place();
    const micros = Array.from({ length: 20 }, (_, i) => 1_795_158_884_771_421n + BigInt(i) * 1_000_003n);
    for (const [i, micro] of micros.entries()) {
      place.write(`f${i}`, '');
      // Half a microsecond more, as Node cuts what is below one.
      utimesSync(join(place.dir, `f${i}`), 0, (Number(micro) + 0.5) / 1e6);
    }
    await place.snapshot();
    await place.json(restoring(place, 'latest', 'to'));
    const times = (dir: string) =>
      micros.map((_, i) => statSync(join(dir, `f${i}`), { bigint: true }).mtimeNs / 1000n);
    assert.deepEqual(times(place.dir), micros);
    assert.deepEqual(times(place.path('to')), micros);
  });

  it('accepts an id, an id prefix, latest and latest-valid', async () => {
    const place = new Place();
    const old = String((await place.snapshot({ a: 'old' })).snapshotId);
    await place.snapshot({ a: 'new' });
    const wanted: [string, string][] = [
      [old, 'old'],
      [old.slice(0, 8), 'old'],
      ['latest', 'new'],
      ['latest-valid', 'new'],
    ];
    for (const [i, [name, content]] of wanted.entries()) {
      await place.json(restoring(place, name, `to${i}`));
      assert.equal(readFileSync(place.path(`to${i}/a`), 'utf8'), content, name);
    }
    await place.fails([...restoring(place, old.slice(0, 7), 'no'), '--store', place.store], 2);
    assert.equal(there(place.path('no')), false);
  });

  it('takes its snapshot as the first argument too', async () => {
    const place = new Place();
    const old = String((await place.snapshot({ a: 'old' })).snapshotId);
    await place.snapshot({ a: 'new' });
    await place.json(['restore', old, '--to', place.path('to')]);
    assert.equal(readFileSync(place.path('to/a'), 'utf8'), 'old');
    await place.json(['restore', 'latest', '--snapshot', 'latest', '--to', place.path('to2')]);
    const none = ['restore', '--to', place.path('no'), '--store', place.store];
    assert.match(String((await place.fails(none, 2)).message), /without --snapshot/);
    const two = ['restore', old, '--snapshot', 'latest', '--to', place.path('no'), '--store', place.store];
    assert.match(String((await place.fails(two, 2)).message), /both/);
    assert.equal(there(place.path('no')), false);
  });

  it('takes paths whose bytes are not UTF-8', async () => {
    const place = new Place();
    const flags = ['--quiet', '50ms', '--store', place.store, '--json'];
    // Node can pass only text to a process, and bash can pass any bytes.
    const script = [
      `cd ${place.root}; d=$'d\\xff\\xfe'; mkdir "$d"; printf a > "$d/a"`,
      `node ${BUILT} snapshot --dir "$d" ${flags.join(' ')}`,
      `node ${BUILT} restore --snapshot latest --to=$'r\\xff' --store ${place.store} --disk-reserve 0`,
      `cd "$d"; node ${BUILT} restore --snapshot latest --to in --store ${place.store} --disk-reserve 0`,
    ].join(' && ');
    const ended = await runToEnd(['bash', '-c', script], { env: place.env });
    assert.equal(ended.code, 0, `${ended.stdout}${ended.stderr}`);
    const names = readdirSync(place.root, { encoding: 'latin1' }).sort();
    assert.deepEqual(
      names.filter((name) => /\xff/.test(name)),
      ['d\xff\xfe', 'r\xff'],
    );
    for (const target of ['r\xff', 'd\xff\xfe/in']) {
      const file = Buffer.from(join(place.root, target, 'a'), 'latin1');
      assert.equal(readFileSync(file, 'utf8'), 'a');
    }
  });

  it('needs --graph for latest if the store holds several graphs', async () => {
    const place = new Place();
    await place.snapshot({ a: 'one' }, '--graph', 'one');
    const two = await place.snapshot({ a: 'two' }, '--graph', 'two');
    const { message, hint } = await place.fails(
      [...restoring(place, 'latest', 'to'), '--store', place.store],
      2,
    );
    assert.match(String(message), /several graphs: one, two$/);
    assert.match(String(hint), /--graph/);
    await place.json(restoring(place, 'latest', 'to', '--graph', 'one'));
    assert.equal(readFileSync(place.path('to/a'), 'utf8'), 'one');
    await place.json(restoring(place, String(two.snapshotId), 'to2'));
    assert.equal(readFileSync(place.path('to2/a'), 'utf8'), 'two');
  });

  it('refuses a directory that is not empty and leaves it alone', async () => {
    const place = new Place();
    await place.snapshot({ a: 'a' });
    mkdirSync(place.path('to'));
    writeFileSync(place.path('to/mine'), 'mine');
    writeFileSync(place.path('file'), 'mine');
    for (const to of ['to', 'file'])
      await place.fails([...restoring(place, 'latest', to), '--store', place.store], 4);
    assert.deepEqual(readdirSync(place.path('to')), ['mine']);
    assert.equal(readFileSync(place.path('file'), 'utf8'), 'mine');
  });

  it('fills an existing empty directory', async () => {
    const place = new Place();
    fill(place);
    await place.snapshot();
    mkdirSync(place.path('to'));
    const { ino } = statSync(place.path('to'));
    await place.json(restoring(place, 'latest', 'to'));
    assert.deepEqual(tree(place.path('to')), tree(place.dir));
    assert.equal(statSync(place.path('to')).ino, ino, 'it may be a mount point');
  });

  it('restores only what --path selects', async () => {
    const place = new Place();
    fill(place);
    await place.snapshot();
    const some = await place.json(restoring(place, 'latest', 'to', '--path', 'vec*.bin', '--path', 'secret'));
    assert.deepEqual([some.files, some.bytes], [2, '300006']);
    const names = readdirSync(place.path('to'), { recursive: true, encoding: 'utf8' }).sort();
    assert.deepEqual(names, ['folder', 'folder/deep', 'folder/deep/secret', 'vectors.bin']);
    await place.fails([...restoring(place, 'latest', 'no', '--path', 'nothing*'), '--store', place.store], 1);
    assert.equal(there(place.path('no')), false);
  });

  it('refuses --path with --in-place', async () => {
    const place = new Place();
    await place.snapshot({ a: 'a' });
    const both = ['--in-place', place.dir, '--instance-stopped', '--path', 'a'];
    await place.fails(['restore', '--snapshot', 'latest', ...both, '--store', place.store], 2);
    assert.equal(readFileSync(join(place.dir, 'a'), 'utf8'), 'a');
  });

  it('with --dry-run reports or refuses as without, and writes nothing', async () => {
    const place = new Place();
    fill(place);
    await place.snapshot();
    const dry = await place.json(restoring(place, 'latest', 'to', '--dry-run'));
    hasFields(dry, RESTORED);
    assert.deepEqual([dry.dryRun, dry.verified], [true, false]);
    assert.equal(there(place.path('to')), false);
    const real = await place.json(restoring(place, 'latest', 'to'));
    assert.deepEqual([dry.files, dry.bytes], [real.files, real.bytes]);
    await place.fails([...restoring(place, 'latest', 'to', '--dry-run'), '--store', place.store], 4);
  });

  it('restores a torn snapshot only by id and with --allow-torn', async () => {
    const place = new Place();
    const torn = String((await place.tornSnapshot()).snapshotId);
    for (const name of ['latest', 'latest-valid'])
      await place.fails([...restoring(place, name, 'to', '--allow-torn'), '--store', place.store], 1);
    await place.fails([...restoring(place, torn, 'to'), '--store', place.store], 4);
    assert.equal(there(place.path('to')), false);
    await place.json(restoring(place, torn, 'to', '--allow-torn'));
    assert.match(readFileSync(place.path('to/restless'), 'utf8'), /^[0-9]*$/);
  });

  it('of latest-valid names the newer snapshots that it passed over', async () => {
    const place = new Place();
    const good = await place.snapshot({ a: 'good' });
    const ungraded = await place.snapshot({ a: 'not checked' }, '--no-grade');
    const result = await place.json(restoring(place, 'latest-valid', 'to'));
    assert.equal(result.snapshotId, good.snapshotId);
    const passed = listOf(result, 'findings').filter(({ code }) => code === 'passed_over');
    assert.deepEqual(
      passed.map(({ object }) => object),
      [ungraded.snapshotId],
    );
    assert.match(String(passed[0]?.message), /UNGRADED/);
    const named = await place.json(restoring(place, String(good.snapshotId), 'to2'));
    assert.equal(
      listOf(named, 'findings').some(({ code }) => code === 'passed_over'),
      false,
    );
  });

  it('of latest skips a newer torn snapshot', async () => {
    const place = new Place();
    const good = await place.snapshot({ a: 'good' });
    await place.tornSnapshot();
    const { snapshotId } = await place.json(restoring(place, 'latest', 'to'));
    assert.equal(snapshotId, good.snapshotId);
  });

  it('exits 1 for damaged bytes and leaves no directory behind', async () => {
    const place = new Place();
    await place.snapshot({ a: 'x'.repeat(10_000) });
    place.damage();
    await place.fails([...restoring(place, 'latest', 'to'), '--store', place.store], 1);
    assert.equal(there(place.path('to')), false);
    assert.deepEqual(
      readdirSync(place.root).filter((name) => name.startsWith('.')),
      [],
    );
  });
});
