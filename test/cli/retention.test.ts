import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { hasFields, type Json, listOf, Place, suite, there } from '../support/cli-place.ts';

const FINDING = { code: 'text', severity: 'word', object: 'text', snapshots: 'texts', hint: 'text' } as const;
const VERIFIED = {
  level: 'word',
  checkedSnapshots: 'number',
  checkedPacks: 'number',
  checkedBytes: 'long',
  findings: 'list',
} as const;
const REPAIRED = {
  rebuilt: 'number',
  healed: 'number',
  quarantined: 'number',
  unhealed: 'number',
  findings: 'list',
} as const;

/** Snapshots of so many states, the oldest first. */
async function history(place: Place, count: number): Promise<string[]> {
  const taken: string[] = [];
  for (let i = 0; i < count; i++) taken.push(String((await place.snapshot({ a: `state ${i}` })).snapshotId));
  return taken;
}

function decided(document: Json, field: string): string[] {
  for (const decision of listOf(document, field)) hasFields(decision, { snapshotId: 'id', reasons: 'texts' });
  return listOf(document, field).map(({ snapshotId }) => String(snapshotId));
}

suite('prune', () => {
  it('retains what a rule names and removes the rest, with reasons', async () => {
    const place = new Place();
    const [first = '', second = '', third = ''] = await history(place, 3);
    const plan = await place.json(['prune', '--keep-last', '2', '--dry-run']);
    hasFields(plan, { keep: 'list', remove: 'list', bytesFreed: 'long', dryRun: 'flag' });
    assert.deepEqual([decided(plan, 'keep'), decided(plan, 'remove')], [[third, second], [first]]);
    assert.equal(plan.dryRun, true);
    const done = await place.json(['prune', '--keep-last', '2']);
    assert.deepEqual([done.keep, done.remove, done.dryRun], [plan.keep, plan.remove, false]);
    assert.deepEqual(await place.ids(), [third, second]);
    assert.deepEqual(listOf(await place.json(['verify', '--level', 'bytes']), 'findings'), []);
  });

  it('frees space', async () => {
    const place = new Place();
    const noise = Buffer.from(Array.from({ length: 50_000 }, (_, i) => (i * i * 31) % 251));
    await place.snapshot({ a: noise });
    await place.snapshot({ a: 'small' });
    const before = Number((await place.json(['stats'])).storedBytes);
    const { bytesFreed } = await place.json(['prune', '--keep-last', '1']);
    const after = Number((await place.json(['stats'])).storedBytes);
    assert.equal(Number(bytesFreed) > 0 && after < before, true);
    // The records of the removal cost a little.
    assert.equal(Math.abs(before - after - Number(bytesFreed)) < 1000, true);
  });

  it('refuses an empty policy', async () => {
    const place = new Place();
    await history(place, 1);
    await place.fails(['prune', '--store', place.store], 4);
    await place.fails(['prune', '--keep-last', '0', '--keep-within', '0', '--store', place.store], 4);
  });

  it('never removes the last usable or a pinned snapshot', async () => {
    const place = new Place();
    const [first = '', , third = ''] = await history(place, 3);
    await place.json(['pin', first]);
    const result = await place.json(['prune', '--keep-tag', 'none']);
    assert.deepEqual(decided(result, 'keep'), [third, first]);
  });

  it('supports every rule of the contract', async () => {
    const place = new Place();
    const [first = '', second = '', third = ''] = await history(place, 3);
    await place.json(['tag', second, 'release=1.4']);
    const rules = ['last', 'hourly', 'daily', 'weekly', 'monthly', 'yearly'].flatMap((rule) => [
      `--keep-${rule}`,
      '1',
    ]);
    const tags = ['--keep-tag', 'release=1.4', '--keep-tag', 'other'];
    const plan = await place.json(['prune', ...rules, '--keep-within', '1ms', ...tags, '--dry-run']);
    assert.deepEqual(decided(plan, 'remove'), [first]);
    const reasons = Object.fromEntries(
      listOf(plan, 'keep').map(({ snapshotId, reasons: why }) => [String(snapshotId), why as string[]]),
    );
    assert.deepEqual(reasons[second], ['tag release=1.4']);
    const words = (reasons[third] ?? []).map((reason) => reason.split(' ')[0]);
    assert.deepEqual(words, ['last', 'last', 'within', 'hourly', 'daily', 'weekly', 'monthly', 'yearly']);
    const all = await place.json(['prune', '--keep-within', '30d', '--dry-run']);
    assert.equal(decided(all, 'keep').length, 3);
  });

  it('with --graph touches one graph only', async () => {
    const place = new Place();
    for (const [a, graph] of [
      ['1', 'one'],
      ['1', 'two'],
      ['2', 'two'],
      ['2', 'one'],
    ] as const)
      await place.snapshot({ a }, '--graph', graph);
    await place.json(['prune', '--graph', 'two', '--keep-last', '1']);
    const left = listOf(await place.json(['list']), 'snapshots').map(({ graphId }) => graphId);
    assert.deepEqual(left.sort(), ['one', 'one', 'two']);
  });
});

suite('delete, pin and tag', () => {
  it('delete removes one snapshot', async () => {
    const place = new Place();
    const [first = '', second = ''] = await history(place, 2);
    const dry = await place.json(['delete', first, '--dry-run']);
    assert.deepEqual(dry, { snapshotId: first, dryRun: true });
    const done = await place.json(['delete', first.slice(0, 8), '--reason', 'a test']);
    assert.deepEqual(done, { snapshotId: first, dryRun: false });
    assert.deepEqual(await place.ids(), [second]);
    await place.fails(['delete', first, '--store', place.store], 1);
  });

  it('delete refuses the last usable snapshot, even if a torn one is left', async () => {
    const place = new Place();
    const { snapshotId } = await place.snapshot({ a: 'a' });
    await place.tornSnapshot();
    for (const name of ['latest', String(snapshotId)]) {
      const { message } = await place.fails(['delete', name, '--yes', '--store', place.store], 4);
      assert.match(String(message), /last usable point/);
    }
    assert.equal((await place.ids()).length, 2);
  });

  it('delete refuses a pinned snapshot until it is unpinned', async () => {
    const place = new Place();
    const [first = ''] = await history(place, 2);
    assert.equal((await place.json(['pin', first])).pinned, true);
    const { hint } = await place.fails(['delete', first, '--store', place.store], 4);
    assert.match(String(hint), /unpin/);
    assert.equal((await place.json(['unpin', first])).pinned, false);
    await place.json(['delete', first]);
  });

  it('tag sets and removes tags and leaves others alone', async () => {
    const place = new Place();
    const [first = ''] = await history(place, 1);
    assert.deepEqual((await place.json(['tag', first, 'a=1', 'b=2'])).tags, { a: '1', b: '2' });
    assert.deepEqual((await place.json(['tag', first, 'a=3', '--remove', 'b'])).tags, { a: '3' });
    const [listed] = listOf(await place.json(['list']), 'snapshots');
    assert.deepEqual([listed?.tags, listed?.snapshotId], [{ a: '3' }, first]);
    await place.fails(['tag', first, 'nonsense', '--store', place.store], 2);
  });
});

suite('verify and repair', () => {
  it('verify finds nothing in a whole store and says what it checked', async () => {
    const place = new Place();
    const [first = ''] = await history(place, 2);
    const structure = await place.json(['verify']);
    hasFields(structure, VERIFIED);
    assert.deepEqual([structure.level, structure.checkedSnapshots, structure.findings], ['STRUCTURE', 2, []]);
    const bytes = await place.json(['verify', '--level', 'bytes']);
    assert.equal(bytes.level, 'BYTES');
    const { storedBytes, packs } = await place.json(['stats']);
    assert.deepEqual([bytes.checkedBytes, bytes.checkedPacks], [storedBytes, packs]);
    const one = await place.json(['verify', '--snapshot', first, '--level', 'bytes']);
    assert.equal(one.checkedSnapshots, 1);
    const people = await place.run(['verify', '--store', place.store]);
    assert.match(people.stdout, /verified: every pack exists/);
  });

  it('verify exits 3 for a changed byte and names the affected snapshots', async () => {
    const place = new Place();
    const old = await place.snapshot({ a: 'x'.repeat(10_000) });
    await place.snapshot({ a: 'small' });
    place.damage();
    const result = await place.json(['verify', '--level', 'bytes'], 3);
    const findings = listOf(result, 'findings');
    assert.equal(findings.length > 0, true);
    for (const finding of findings) hasFields(finding, FINDING);
    assert.equal(
      findings.every(({ severity }) => severity === 'ERROR'),
      true,
    );
    const concerned = new Set(findings.flatMap(({ snapshots }) => snapshots as string[]));
    assert.deepEqual([...concerned], [old.snapshotId]);
  });

  it('verify exits 3 for a missing pack at every level', async () => {
    const place = new Place();
    await place.snapshot({ a: 'x'.repeat(10_000) });
    rmSync(place.firstDataPack());
    for (const level of ['structure', 'bytes']) await place.json(['verify', '--level', level], 3);
  });

  it('repair quarantines damage, deletes nothing and exits 3 for losses', async () => {
    const place = new Place();
    const old = await place.snapshot({ a: 'x'.repeat(10_000) });
    const good = await place.snapshot({ a: 'small' });
    place.damage();
    const dry = await place.json(['repair', '--dry-run'], 3);
    hasFields(dry, REPAIRED);
    assert.equal(dry.dryRun, true);
    assert.equal(
      !there(join(place.store, 'quarantine')) || readdirSync(join(place.store, 'quarantine')).length === 0,
      true,
    );
    const done = await place.json(['repair'], 3);
    hasFields(done, REPAIRED);
    assert.equal(done.quarantined, 1);
    assert.equal(Number(done.unhealed) > 0, true);
    const aside = readdirSync(join(place.store, 'quarantine'), { recursive: true, encoding: 'utf8' });
    assert.equal(
      aside.some((name) => name.endsWith('.pack')),
      true,
    );
    assert.deepEqual(await place.ids(), [good.snapshotId, old.snapshotId]);
    await place.json(['restore', '--snapshot', 'latest', '--to', place.path('to')]);
    assert.equal(readFileSync(place.path('to/a'), 'utf8'), 'small');
  });

  it('the next snapshot stores lost data again and heals the damaged ones', async () => {
    const place = new Place();
    await place.snapshot({ a: 'x'.repeat(10_000) });
    place.damage();
    await place.json(['verify', '--level', 'bytes'], 3);
    await place.json(['repair'], 3);
    await place.snapshot();
    await place.json(['repair']);
    assert.deepEqual((await place.json(['verify', '--level', 'bytes'])).findings, []);
    await place.json(['restore', '--snapshot', 'latest', '--to', place.path('to')]);
    assert.equal(readFileSync(place.path('to/a'), 'utf8'), 'x'.repeat(10_000));
  });

  it('repair rebuilds a lost index and a lost config', async () => {
    const place = new Place();
    const ids = (await history(place, 2)).reverse();
    for (const lost of [
      ['index', 'owner'],
      ['config', 'config.copy'],
    ]) {
      for (const name of lost) rmSync(join(place.store, name), { recursive: true });
      const { rebuilt, unhealed } = await place.json(['repair']);
      assert.ok(Number(rebuilt) > 0, lost.join());
      assert.equal(unhealed, 0);
      assert.deepEqual(await place.ids(), ids, lost.join());
    }
    assert.deepEqual((await place.json(['verify', '--level', 'bytes'])).findings, []);
  });
});

suite('stats', () => {
  it('reports what the store holds and what deduplication saved', async () => {
    const place = new Place();
    const text = Array.from({ length: 4000 }, (_, i) => `line ${i}\n`).join('');
    await place.snapshot({ a: text });
    await place.snapshot({ b: 'b' });
    const stats = await place.json(['stats']);
    hasFields(stats, {
      snapshots: 'number',
      rawBytes: 'long',
      storedBytes: 'long',
      dedupRatio: 'number',
      compressionRatio: 'number',
      savedRatio: 'number',
      units: 'long',
      packs: 'number',
    });
    assert.equal(stats.snapshots, 2);
    assert.equal(Number(stats.rawBytes), 2 * text.length + 1);
    assert.equal(Number(stats.storedBytes), place.packSizes());
    const saved = 1 - Number(stats.storedBytes) / Number(stats.rawBytes);
    assert.equal(Math.abs(Number(stats.savedRatio) - saved) < 1e-9, true);
    assert.equal(Number(stats.dedupRatio) > 1 && Number(stats.compressionRatio) > 1, true);
  });
});
