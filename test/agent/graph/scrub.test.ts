import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Scrub } from '../../../agent/graph/scrub.ts';
import { damagedSnapshots } from '../../../agent/snapshots/damage.ts';
import type { Store } from '../../../agent/store/store.ts';
import { verifyStore } from '../../../agent/store/upkeep/verify.ts';
import { UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { Case } from '../../support/case.ts';
import { flipByte, frameOf, packFiles } from '../../support/damage.ts';
import { fillGraph } from '../../support/fill.ts';
import { withOpen } from '../../support/peer-stores.ts';
import { tempFolder, until } from '../../support/place.ts';

interface Run {
  readonly scrub: Scrub;
  readonly warnings: string[];
  readonly end: () => Promise<void>;
}

/** Runs a scrub of an open store. */
function begin(store: Store, periodMs: number): Run {
  const warnings: string[] = [];
  const scrub = new Scrub({
    store,
    periodMs,
    events: {
      warned: (graphId, { code }) => warnings.push(`${graphId} ${code}`),
      failed: (_, error) => assert.fail(error),
    },
    defaultGraphId: () => 'data',
  });
  const stop = new AbortController();
  const running = scrub.run(stop.signal);
  const end = async () => {
    stop.abort();
    await running;
  };
  return { scrub, warnings, end };
}

async function newCase(t: TestContext): Promise<Case> {
  const place = await tempFolder(t);
  const made = new Case(join(place, 'data'), join(place, 'store'));
  for (const version of [1, 2]) {
    fillGraph(made.dir, version);
    await made.snapshot();
  }
  return made;
}

describe('the scrub of a store', () => {
  it('reads every pack within the period, and remembers that', async (t) => {
    const { store: root } = await newCase(t);
    await withOpen(root, async (store) => {
      const { scrub, warnings, end } = begin(store, 2000);
      assert.equal(await scrub.coverage(), 0);
      await until('every pack is read', async () => (await scrub.coverage()) === 1);
      await end();
      assert.deepEqual(warnings, []);
    });
    await withOpen(root, async (store) => {
      const { scrub, end } = begin(store, 3_600_000);
      assert.equal(await scrub.coverage(), 1, 'after a restart');
      await end();
    });
  });

  it('goes on after a restart with the wait that was under way', async (t) => {
    const { store: root } = await newCase(t);
    await withOpen(root, async (store) => {
      const { end } = begin(store, 3000);
      await sleep(100);
      await end();
    });
    await sleep(3000);
    await withOpen(root, async (store) => {
      const { scrub, end } = begin(store, 3000);
      await until('a pack that is due is read', async () => (await scrub.coverage()) > 0, 1000);
      await end();
    });
  });

  it('reads nothing when it is off', async (t) => {
    const { store: root } = await newCase(t);
    flipByte(root, UnitKind_Value.BYTES);
    await withOpen(root, async (store) => {
      const { scrub, warnings, end } = begin(store, 0);
      await sleep(100);
      await end();
      assert.equal(await scrub.coverage(), 0);
      assert.deepEqual(warnings, []);
    });
  });

  it('sets a damaged pack aside, saves the rest of it, and records which points it concerns', async (t) => {
    const { store: root } = await newCase(t);
    const path = flipByte(root, UnitKind_Value.BYTES);
    await withOpen(root, async (store) => {
      const { warnings, end } = begin(store, 500);
      await until('a point is damaged', async () => (await damagedSnapshots(store)).length > 0);
      await until('that is reported', () => warnings.includes('data snapshot_damaged'));
      await end();
      assert.equal(warnings.includes('data pack_quarantined'), true);
      const { findings } = await verifyStore(store, { bytes: true });
      assert.deepEqual([...new Set(findings.map(({ code }) => code))], ['snapshot_damaged']);
    });
    assert.equal(
      packFiles(root).some((pack) => pack.path === path),
      false,
    );
    await withOpen(root, async (store) => {
      assert.equal((await damagedSnapshots(store)).length > 0, true, 'after a restart');
      assert.deepEqual(store.health.findings, []);
      assert.deepEqual(store.health.lostPacks(), []);
    });
  });

  it('sets a pack aside that was missing at the start, and takes it back when the file is', async (t) => {
    const { store: root } = await newCase(t);
    const { path } = frameOf(root, UnitKind_Value.BYTES);
    const bytes = readFileSync(path);
    rmSync(path);
    await withOpen(root, async (store) => {
      assert.equal(store.health.lostPacks().length, 1);
      const { warnings, end } = begin(store, 3_600_000);
      await until('the loss is reported', () => warnings.includes('data snapshot_damaged'));
      await end();
      assert.deepEqual(store.health.lostPacks(), []);
    });
    writeFileSync(path, bytes);
    await withOpen(root, async (store) => {
      assert.deepEqual((await verifyStore(store, { bytes: true })).findings, []);
    });
  });

  it('writes the records of a damaged meta pack again', async (t) => {
    const { store: root } = await newCase(t);
    flipByte(root, UnitKind_Value.MANIFEST);
    await withOpen(root, async (store) => {
      const { warnings, end } = begin(store, 500);
      await until('the pack is set aside', () => warnings.includes('data pack_quarantined'));
      await end();
      assert.deepEqual((await verifyStore(store, { bytes: true })).findings, []);
      assert.deepEqual(await damagedSnapshots(store), []);
    });
  });
});
