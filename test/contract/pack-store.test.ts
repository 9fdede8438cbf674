import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { DirectoryPackStore } from '../../agent/pack/directory-pack-store.ts';
import { MemoryPackStore } from '../../agent/pack/memory-pack-store.ts';
import type { PrunablePackStore } from '../../agent/pack/pack-store.ts';
import { LightkeeperError } from '../../core/errors.ts';

/** Every place that packs can be kept in, each made empty. */
const IMPLEMENTATIONS: Readonly<
  Record<string, () => Promise<{ packs: PrunablePackStore; remove: () => Promise<void> }>>
> = {
  directory: async () => {
    const root = await mkdtemp(join(tmpdir(), 'lightkeeper-packs-'));
    for (const name of ['packs', 'tmp']) await mkdir(join(root, name));
    return { packs: new DirectoryPackStore(root), remove: () => rm(root, { recursive: true, force: true }) };
  },
  memory: () => Promise.resolve({ packs: new MemoryPackStore(), remove: () => Promise.resolve() }),
};

async function put(packs: PrunablePackStore, bytes: Buffer): Promise<{ packId: string; stored: boolean }> {
  const packId = createHash('sha256').update(bytes).digest('hex');
  const sink = await packs.create('test');
  const half = Math.floor(bytes.length / 2);
  await sink.append('test', bytes.subarray(0, half));
  await sink.append('test', bytes.subarray(half));
  return { packId, stored: await sink.publish('test', packId) };
}

async function listed(packs: PrunablePackStore, shard?: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { packId } of packs.list(shard)) found.push(packId);
  return found;
}

const hasCode = (code: string) => (error: unknown) =>
  error instanceof LightkeeperError && error.code === code;

for (const [name, make] of Object.entries(IMPLEMENTATIONS)) {
  describe(`a pack store in a ${name}`, async () => {
    const { packs, remove } = await make();
    after(async () => {
      await packs.close();
      await remove();
    });

    test('returns what was put, whole and in parts', async () => {
      const bytes = randomBytes(5000);
      const { packId, stored } = await put(packs, bytes);
      assert.equal(stored, true);
      assert.deepEqual(await packs.get(packId, 0, 5000), bytes);
      assert.deepEqual(await packs.get(packId, 4990, 10), bytes.subarray(4990));
      assert.deepEqual(await packs.get(packId, 7, 0), Buffer.alloc(0));
      assert.deepEqual(await packs.head(packId), { size: 5000 });
    });

    test('reports a second put of the same pack', async () => {
      const bytes = randomBytes(100);
      assert.equal((await put(packs, bytes)).stored, true);
      const { packId, stored } = await put(packs, bytes);
      assert.equal(stored, false);
      assert.deepEqual(await packs.get(packId, 0, 100), bytes);
    });

    test('reports a read beyond the end as damage and a missing pack as not found', async () => {
      const { packId } = await put(packs, randomBytes(10));
      await assert.rejects(packs.get(packId, 5, 6), hasCode('DAMAGED'));
      await assert.rejects(packs.get('0'.repeat(64), 0, 1), hasCode('NOT_FOUND'));
      assert.equal(await packs.head('0'.repeat(64)), undefined);
    });

    test('lists packs in order, all or by shard', async () => {
      for (let i = 0; i < 20; i++) await put(packs, randomBytes(20));
      const all = await listed(packs);
      assert.ok(all.length >= 20);
      assert.deepEqual(all, [...all].sort());
      const shard = (all[0] as string).slice(0, 2);
      assert.deepEqual(
        await listed(packs, shard),
        all.filter((packId) => packId.startsWith(shard)),
      );
      assert.deepEqual(
        await listed(packs, shard === 'ff' ? 'fe' : 'ff').then((found) =>
          found.filter((id) => id.startsWith(shard)),
        ),
        [],
      );
    });

    test('removes a pack, and again without an error', async () => {
      const { packId } = await put(packs, randomBytes(30));
      await packs.get(packId, 0, 1);
      await packs.delete([packId]);
      await packs.delete([packId]);
      assert.equal(await packs.head(packId), undefined);
      await assert.rejects(packs.get(packId, 0, 1), hasCode('NOT_FOUND'));
    });

    test('changes the stamp of a shard when a pack comes or goes', async () => {
      const { packId } = await put(packs, randomBytes(30));
      const shard = packId.slice(0, 2);
      const before = await packs.shardStamp(shard);
      assert.equal(await packs.shardStamp(shard), before);
      // The clock of a filesystem ticks slower than this test runs.
      await new Promise((resolve) => setTimeout(resolve, 20));
      await packs.delete([packId]);
      assert.notEqual(await packs.shardStamp(shard), before);
    });
  });
}
