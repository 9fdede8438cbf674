import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Level } from 'level';
import { key } from '../../../../agent/store/index/keys.ts';
import { Store } from '../../../../agent/store/store.ts';
import { collectGarbage, commitDeletions } from '../../../../agent/store/upkeep/collect-garbage.ts';
import { rescueRecords } from '../../../../agent/store/upkeep/rescue-records.ts';
import { sha256 } from '../../../../core/unit.ts';
import { type PositionEntry, PositionEntrySchema } from '../../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { PackKind_Value } from '../../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { Case } from '../../../support/case.ts';
import { fillGraph } from '../../../support/fill.ts';
import { tempFolder } from '../../../support/place.ts';

const GRAPH = 'data';

async function storeWith(t: TestContext, snapshots: number): Promise<Case> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, GRAPH), join(place, 'store'));
  for (let version = 1; version <= snapshots; version++) {
    fillGraph(subject.dir, version);
    await subject.snapshot();
  }
  return subject;
}

async function positions(store: Store, range: Parameters<Store['index']['positions']>[1] = {}) {
  const found: PositionEntry[] = [];
  for await (const entry of store.index.positions(GRAPH, range)) found.push(entry);
  return found;
}

const sequences = (entries: readonly PositionEntry[]) => entries.map(({ sequence }) => Number(sequence));

async function opened<T>(subject: Case, run: (store: Store) => Promise<T>): Promise<T> {
  const store = await Store.open(subject.store);
  try {
    return await run(store);
  } finally {
    await store.close();
  }
}

describe('the position log', () => {
  it('holds every commit in order, and is read from an entry on and backwards', async (t) => {
    const subject = await storeWith(t, 3);
    await opened(subject, async (store) => {
      const all = await positions(store);
      assert.deepEqual(sequences(all), [1, 2, 3]);
      const [first, second, third] = all as [PositionEntry, PositionEntry, PositionEntry];
      assert.deepEqual(sequences(await positions(store, { reverse: true })), [3, 2, 1]);
      assert.deepEqual(sequences(await positions(store, { after: first })), [2, 3]);
      assert.deepEqual(sequences(await positions(store, { after: third })), []);
      assert.deepEqual(await store.index.position(GRAPH, second.digest), second);
      assert.equal(await store.index.position('other', second.digest), undefined);
      assert.equal(await store.index.position(GRAPH, sha256(Buffer.from('no'))), undefined);
      assert.deepEqual(second.parentDigest, first.digest);
    });
  });

  it('outlives deleted snapshots, their packs and the index', async (t) => {
    const subject = await storeWith(t, 3);
    const before = await opened(subject, async (store) => {
      const all = await positions(store);
      const removed = all.slice(0, 2).map(({ digest }) => ({ digest, reason: 'test' }));
      await store.exclusively(async () => {
        await commitDeletions(store, removed);
        await collectGarbage(store, () => {});
      });
      assert.deepEqual(await positions(store), all);
      return all;
    });
    rmSync(join(subject.store, 'index'), { recursive: true });
    await opened(subject, async (store) => assert.deepEqual(await positions(store), before));
    assert.equal((await subject.list()).length, 1);
  });

  it('is written again as a whole when a pack with records is bad', async (t) => {
    const subject = await storeWith(t, 3);
    const before = await opened(subject, async (store) => {
      const all = await positions(store);
      const meta: { number: number; packId: Uint8Array }[] = [];
      for await (const [number, { kind, packId }] of store.index.packs())
        if (kind === PackKind_Value.META) meta.push({ number, packId });
      await store.exclusively(() => rescueRecords(store, new Set(meta.map(({ number }) => number))));
      for (const { packId } of meta) await store.packs.evict(Buffer.from(packId).toString('hex'));
      return all;
    });
    rmSync(join(subject.store, 'index'), { recursive: true });
    await opened(subject, async (store) => assert.deepEqual(await positions(store), before));
  });

  it('of a hundred thousand entries does not slow an opening', async (t) => {
    const subject = await storeWith(t, 1);
    const timed = async () => {
      const began = performance.now();
      const store = await Store.open(subject.store);
      const took = performance.now() - began;
      await store.close();
      return took;
    };
    const before = Math.min(await timed(), await timed(), await timed());
    await opened(subject, async (store) => {
      const epoch = { number: 1n, mintId: Buffer.alloc(16) };
      for (let from = 0; from < 100_000; from += 1000) {
        const batch = store.index.batch();
        for (let n = from; n < from + 1000; n++) {
          const digest = sha256(Buffer.from(String(n)));
          const sequence = BigInt(n + 10);
          store.index.putPosition(
            batch,
            create(PositionEntrySchema, { graphId: GRAPH, epoch, sequence, digest }),
          );
        }
        await store.index.write('test', batch);
      }
    });
    await timed();
    const after = Math.min(await timed(), await timed(), await timed());
    assert.equal(after < before * 3 + 100, true, `${before} ms, then ${after} ms`);
  });
});

describe('an index of another version', () => {
  it('is rebuilt from the packs', async (t) => {
    const subject = await storeWith(t, 2);
    const path = join(subject.store, 'index');
    const db = new Level<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' });
    await db.open();
    const old = [key('m', 'version')];
    for await (const at of db.keys({ gte: key('O'), lt: key('P') })) old.push(at);
    for await (const at of db.keys({ gte: key('o'), lt: key('p') })) old.push(at);
    assert.equal(old.length, 5);
    await db.batch(old.map((at) => ({ type: 'del' as const, key: at })));
    await db.close();
    rmSync(join(path, 'SEAL'));
    await opened(subject, async (store) => {
      assert.deepEqual(sequences(await positions(store)), [1, 2]);
      assert.equal(await store.index.isEmpty(), false);
    });
    assert.equal(await subject.assertSound(), 2);
  });

  it('does not count as filled by its version', async (t) => {
    const place = await tempFolder(t);
    const store = await Store.open(join(place, 'store'), { create: true });
    assert.equal(await store.index.isEmpty(), true);
    await store.close();
  });
});
