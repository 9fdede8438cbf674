import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { portrait, type StoreCalls } from './store-calls.ts';

/** One snapshot a number, each with the one before it as its parent. */
export async function checkPositions(keeper: StoreCalls): Promise<void> {
  const list = await keeper.list();
  const numbers = list.map(({ position }) => position?.sequence);
  assert.equal(new Set(numbers).size, numbers.length, `numbers are given once: ${numbers}`);
  assert.equal(new Set(list.map(({ position }) => position?.mintId)).size, 1, 'one history');
}

/** The index is a cache: without it the store says the same. */
export async function checkRebuilt(keeper: StoreCalls, gone: ReadonlySet<string>): Promise<void> {
  const before = await portrait(keeper);
  rmSync(join(keeper.store, 'index'), { recursive: true });
  assert.deepEqual(await portrait(keeper), before, 'the store says the same after its index is made again');
  for (const { snapshotId } of await keeper.list())
    assert.ok(!gone.has(snapshotId), `deleted snapshot ${snapshotId} is back after the index was lost`);
  const wrong = (await keeper.verify()).filter(({ code }) => code !== 'snapshot_damaged');
  assert.deepEqual(
    wrong.map(({ code, object }) => `${code} ${object}`),
    [],
  );
  assert.deepEqual(readdirSync(join(keeper.store, 'tmp')), [], 'no half packs');
}
