import assert from 'node:assert/strict';
import { cpSync, existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fillGraph, noise } from '../support/fill.ts';
import { type Json, type Machine, machines } from '../support/machines.ts';
import { until } from '../support/place.ts';
import { difference, readTree } from '../support/tree.ts';

const FIXTURES = join(import.meta.dirname, '../../../shared/fixtures');
const STATES = existsSync(FIXTURES)
  ? readdirSync(FIXTURES)
      .filter((name) => name.startsWith('gustobot@'))
      .sort()
  : [];
const SKIP = STATES.length === 0 && 'needs the fixtures of real servers';

/** Waits until a machine has a snapshot with another id than those known. */
async function nextPoint(machine: Machine, known: readonly string[]): Promise<string> {
  let found: string | undefined;
  await until('a new point', async () => {
    found = (await machine.ids()).find((id) => !known.includes(id));
    return found !== undefined;
  });
  return String(found);
}

/** Checks that two stores restore a snapshot to the same tree. */
async function sameRestored(id: string, one: Machine, other: Machine): Promise<void> {
  const trees = [];
  for (const machine of [one, other]) {
    const to = join(machine.root, `restored-${id}`);
    await machine.json(['restore', id, '--to', to, '--allow-torn']);
    trees.push(readTree(to));
    rmSync(to, { recursive: true });
  }
  const [a, b] = trees;
  assert.ok(a !== undefined && b !== undefined);
  assert.equal(difference(a, b), undefined);
}

describe('a follower', { concurrency: 2 }, () => {
  it('holds every snapshot of its source, with the same id, grade and bytes', async (t) => {
    const [a, b] = (await machines(t, 'a', 'b')) as [Machine, Machine];
    fillGraph(a.dir);
    writeFileSync(join(a.dir, 'large'), noise('large', 9_000_000));
    await a.guard();
    const first = await nextPoint(a, []);
    await b.follow(a);
    await b.caughtUp();
    fillGraph(a.dir, 2);
    const second = await nextPoint(a, [first]);
    await b.caughtUp();
    assert.deepEqual(await b.ids(), [second, first]);
    await until('the follower has graded', async () =>
      (await b.list()).every(({ grade }) => grade === 'VALID'),
    );
    const positions = async (machine: Machine) => (await machine.list()).map(({ position }) => position);
    assert.deepEqual(await positions(b), await positions(a));
    for (const id of [first, second]) await sameRestored(id, a, b);
    await b.verified();
    const { role, source } = (await b.graph()) as { role: string; source: Json };
    assert.equal(role, 'STANDBY');
    assert.equal(source.state, 'CAUGHT_UP');
    assert.equal(source.agent, 'a');
    const { role: other, followers } = (await a.graph()) as { role: string; followers: Json[] };
    assert.equal(other, 'PRIMARY');
    assert.deepEqual(
      followers.map(({ name, state }) => [name, state]),
      [['b', 'CAUGHT_UP']],
    );
    await b.stop();
    await a.stop();
  });

  it('takes over tags, pins and acknowledgements, but no deletion', async (t) => {
    const [a, b] = (await machines(t, 'a', 'b')) as [Machine, Machine];
    fillGraph(a.dir);
    await a.guard();
    const first = await nextPoint(a, []);
    await a.json(['tag', first, 'before=yes']);
    await b.follow(a);
    await b.caughtUp();
    fillGraph(a.dir, 2);
    const second = await nextPoint(a, [first]);
    await b.caughtUp();
    await a.json(['tag', first, 'later=yes']);
    await a.json(['pin', second]);
    const facts = async () =>
      (await b.list()).map(({ snapshotId, tags, pinned }) => [snapshotId, tags, pinned]);
    await until('the facts have arrived', async () => {
      const found = JSON.stringify(await facts());
      return found.includes('later') && found.includes('true');
    });
    assert.deepEqual(await facts(), [
      [second, {}, true],
      [first, { before: 'yes', later: 'yes' }, false],
    ]);
    await a.json(['delete', first, '--reason', 'test']);
    assert.deepEqual(await a.ids(), [second]);
    await b.stop();
    await b.follow(a);
    await b.caughtUp();
    assert.deepEqual(await b.ids(), [second, first], 'the deletion has not travelled');
  });

  it('catches up after it was away, also with what the source pruned meanwhile left out', async (t) => {
    const [a, b] = (await machines(t, 'a', 'b')) as [Machine, Machine];
    fillGraph(a.dir);
    await a.guard();
    const known = [await nextPoint(a, [])];
    await b.follow(a);
    await b.caughtUp();
    await b.stop();
    for (let version = 2; version <= 5; version++) {
      fillGraph(a.dir, version);
      known.push(await nextPoint(a, known));
    }
    await a.json(['prune', '--keep-last', '1']);
    const left = await a.ids();
    assert.equal(left.length, 1);
    await b.follow(a);
    await b.caughtUp();
    assert.deepEqual(await b.ids(), [known[4], known[0]], 'it knows a point that the source no longer has');
    await until('it has graded', async () => (await b.graph()).lastUsableId === known[4]);
  });

  it('can be a source itself, and several can follow one source', async (t) => {
    const [a, b, c] = (await machines(t, 'a', 'b', 'c')) as [Machine, Machine, Machine];
    fillGraph(a.dir);
    await a.guard();
    const first = await nextPoint(a, []);
    await b.follow(a);
    await c.follow(b);
    await c.caughtUp();
    fillGraph(a.dir, 2);
    const second = await nextPoint(a, [first]);
    await until('the last one holds it', async () => (await c.ids()).includes(second));
    assert.deepEqual(await c.ids(), [second, first]);
    await sameRestored(second, a, c);
  });

  it('refuses to capture, and other agents than its targets, with the reason', async (t) => {
    const [a, b] = (await machines(t, 'a', 'b')) as [Machine, Machine];
    fillGraph(a.dir);
    const settings = join(a.root, 'a.yaml');
    writeFileSync(
      settings,
      `graphs: [{id: g, dir: ${a.dir}, quiet: 50ms}]\ntargets: [{name: other, graphs: [g]}]\n`,
    );
    await a.start('--config', settings);
    const first = await nextPoint(a, []);
    const follower = await b.follow(a);
    await until('it is refused', () => follower.stderr.includes('none of the targets'));
    assert.deepEqual(await b.ids(), []);
    await b.stop();
    await a.stop();
    await a.guard();
    await b.follow(a);
    await b.caughtUp();
    assert.deepEqual(await b.ids(), [first]);
    fillGraph(b.dir);
    const { code, stderr } = await b.run(['snapshot', '--dir', b.dir, '--graph', 'g', '--state', b.state]);
    assert.equal(code, 4, stderr);
    assert.match(stderr, /--take-over/);
  });
});

describe('a graph that another machine goes on with', () => {
  it('has the points that its first primary took alone as a fork there: kept, listed, restorable', async (t) => {
    const [a, b] = (await machines(t, 'a', 'b')) as [Machine, Machine];
    fillGraph(a.dir);
    await a.guard();
    const shared = await nextPoint(a, []);
    await b.follow(a);
    await b.caughtUp();
    await b.stop();
    // The first machine goes on by itself, and the second one is made the primary.
    fillGraph(a.dir, 2);
    const lost = await nextPoint(a, [shared]);
    await a.stop();
    fillGraph(b.dir, 3);
    await b.guard('--take-over');
    const taken = await nextPoint(b, [shared]);
    const { position, parentId } = (await b.list()).find(({ snapshotId }) => snapshotId === taken) as {
      position: Json;
      parentId: string;
    };
    assert.equal(position.epoch, '2');
    assert.equal(parentId, shared);
    // When it comes back, it follows the second one.
    await a.follow(b);
    await a.caughtUp();
    const { forks } = (await a.json(['forks', 'list'])) as { forks: Json[] };
    assert.equal(forks.length, 1);
    assert.equal(forks[0]?.forkId, lost);
    assert.equal(forks[0]?.ancestorId, shared);
    await until('it has graded', async () => (await a.graph()).lastUsableId === taken);
    assert.equal(((await a.json(['show', 'latest'])).snapshot as Json).snapshotId, taken);
    assert.deepEqual((await a.ids()).toSorted(), [shared, lost, taken].toSorted());
    const to = join(a.root, 'fork');
    await a.json(['restore', lost, '--to', to]);
    assert.equal(
      difference(readTree(to), readTree(a.dir)),
      undefined,
      'the directory still is what the fork holds',
    );
    await a.json(['prune', '--keep-last', '1']);
    assert.ok((await a.ids()).includes(lost), 'retention never removes it');
    // The old primary cannot be a source for the new one.
    await b.stop();
    await a.stop();
    await a.guard('--take-over');
    await b.follow(a);
    await b.caughtUp();
    const [newest] = await b.list();
    assert.equal((newest?.position as Json | undefined)?.epoch, '3');
  });

  it('is refused by a follower of a newer epoch, and where two primaries wrote it in one epoch', async (t) => {
    const [a, b, c] = (await machines(t, 'a', 'b', 'c')) as [Machine, Machine, Machine];
    fillGraph(a.dir);
    await a.guard();
    await nextPoint(a, []);
    await b.follow(a);
    await b.caughtUp();
    await b.stop();
    fillGraph(b.dir, 3);
    await b.guard('--take-over');
    await nextPoint(b, await a.ids());
    await b.stop();
    const stale = await b.follow(a);
    await until('it is refused', () => stale.stderr.includes('it has an older epoch than this store'));
    assert.equal((await b.ids()).length, 2);
    fillGraph(c.dir, 4);
    await c.guard();
    await nextPoint(c, []);
    await c.stop();
    const rival = await c.follow(a);
    await until('it is refused', () => rival.stderr.includes('both sides have minted the same epoch'));
    assert.equal((await c.ids()).length, 1);
  });
});

describe('a kill', () => {
  it('of source or follower at any moment costs no acknowledged snapshot', async (t) => {
    const [a, b] = (await machines(t, 'a', 'b')) as [Machine, Machine];
    fillGraph(a.dir);
    const known: string[] = [];
    await a.guard();
    await b.follow(a);
    known.push(await nextPoint(a, known));
    for (let round = 0; round < 6; round++) {
      const { held } = ((await a.graph()).followers as Json[])[0] ?? {};
      fillGraph(a.dir, 10 + round);
      writeFileSync(join(a.dir, `large-${round}`), noise(`${round}`, 3_000_000));
      await sleep(100 * round);
      const killed = round % 2 === 0 ? b : a;
      await killed.kill();
      if (held !== undefined) {
        const { digest } = held as { digest: string };
        assert.ok((await b.ids()).includes(digest.slice(0, 32)), 'what was acknowledged is there');
      }
      await (killed === b ? b.follow(a) : a.guard());
      known.unshift(await nextPoint(a, known));
    }
    await b.caughtUp();
    await until('both have the same points', async () => {
      const [one, other] = [await a.ids(), await b.ids()];
      return one.length > 0 && one.every((id) => other.includes(id));
    });
    await b.verified();
    const [newest = ''] = await a.ids();
    await sameRestored(newest, a, b);
  });
});

describe('the gustobot series', () => {
  it('is the same on three machines, each of which grades it itself', { skip: SKIP }, async (t) => {
    const [a, b, c] = (await machines(t, 'a', 'b', 'c')) as [Machine, Machine, Machine];
    const known: string[] = [];
    for (const state of STATES) {
      rmSync(a.dir, { recursive: true });
      cpSync(join(FIXTURES, state), a.dir, { recursive: true });
      const flags = ['--graph', 'g', '--instance-stopped', '--disk-reserve', '0', '--quiet', '0ms'];
      const ended = await a.run(['snapshot', '--dir', a.dir, ...flags, '--state', a.state, '--json']);
      assert.ok(ended.code === 0 || ended.code === 3, ended.stderr);
      known.unshift(String((JSON.parse(ended.stdout) as Json).snapshotId));
    }
    assert.equal(new Set(known).size, STATES.length);
    await a.guard();
    for (const follower of [b, c]) await follower.follow(a);
    for (const follower of [b, c]) {
      await follower.caughtUp();
      const isGraded = async () => (await follower.list()).every(({ grade }) => grade !== 'UNGRADED');
      await until('it has graded all', isGraded, 60_000);
      assert.deepEqual(await follower.ids(), known);
      await follower.verified();
    }
    for (const id of known) await sameRestored(id, a, b);
  });
});
