import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Snapshot } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Portrait, portrait, type Said, type StoreCalls } from './store-calls.ts';

/** Tags a new snapshot, acknowledges its alarms and returns its id. */
export async function annotate(keeper: StoreCalls, { snapshotId, alarms }: Snapshot): Promise<string> {
  await keeper.tag(snapshotId, `taken=${snapshotId.slice(0, 4)}`);
  if (alarms.length > 0) await keeper.acknowledge(snapshotId, 'the documents were moved');
  return snapshotId;
}

/** Checks that a store gives a proof something to lose: a graded graph with an alarm that was acknowledged, and tags. */
export function checkAnnotated(said: Portrait['snapshots']): void {
  const isAnnotated = ({ grade, usable, stats, alarms, acknowledged, tags }: Said) =>
    [grade, usable, Boolean(stats), Boolean(acknowledged)].join() === 'VALID,true,true,true' &&
    Object.keys(tags as object).length > 0 &&
    (alarms as readonly unknown[]).length > 0;
  assert.ok([...said.values()].some(isAnnotated), 'a snapshot has annotations of all kinds');
}

/** What a store holds about a snapshot whose alarms were acknowledged. */
export function acknowledgedAs(said: Said | undefined, reason: string): Said {
  const alarms = ((said?.alarms ?? []) as readonly object[]).map((alarm) => ({
    ...alarm,
    acknowledged: true,
    reason,
  }));
  return { ...said, acknowledged: reason, alarms };
}

/** What a store must hold about its snapshots, as far as they are still there. */
interface Expected {
  /** Snapshots of which a check may have found damage, which the store then remembers. */
  readonly mayBeDamaged?: (id: string) => boolean;
  readonly said: Portrait['snapshots'];
  /** What it may hold about some of them instead. */
  readonly saidAfter?: ReadonlyMap<string, Said>;
}

/** Checks that grades, acknowledgements and all else that was recorded about snapshots is still there. */
export async function checkSaid(
  keeper: StoreCalls,
  { said, saidAfter, mayBeDamaged = () => false }: Expected,
): Promise<void> {
  for (const [id, is] of (await portrait(keeper)).snapshots) {
    const was = said.get(id);
    if (was === undefined || (saidAfter?.has(id) === true && isDeepStrictEqual(is, saidAfter.get(id))))
      continue;
    const damage = mayBeDamaged(id) && is.damaged === true ? { damaged: true, usable: false } : {};
    assert.deepEqual(is, { ...was, ...damage }, `the store holds the same about snapshot ${id}`);
  }
}

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
