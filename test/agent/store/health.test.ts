import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import {
  PACK_TRANSITIONS,
  type PackEvent,
  type PackState,
  SHARD_TRANSITIONS,
  type ShardEvent,
  type ShardState,
  StoreHealth,
} from '../../../agent/store/health.ts';
import { Store } from '../../../agent/store/store.ts';
import { warning } from '../../../core/finding.ts';
import { isStored } from '../../../core/snapshot.ts';
import { UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { makeGraphs, makeTree } from '../../prove/random-tree.ts';
import { callsInProcess, scratch } from '../../prove/store-calls.ts';

const PACK = 7;
const SHARD = 'ab';

/** Events that lead from the first state to each state. */
const TO_PACK: Readonly<Record<PackState, readonly PackEvent[]>> = {
  whole: [],
  lost: ['lose'],
  condemned: ['condemn'],
  'lost-condemned': ['lose', 'condemn'],
};
const TO_SHARD: Readonly<Record<ShardState, readonly ShardEvent[]>> = {
  clean: [],
  written: ['write'],
  unsound: ['find-broken'],
  'unsound-written': ['find-broken', 'write'],
};

/** What an event makes true or false of a pack; what it does not name stays as it was. */
const PACK_EFFECTS: Readonly<Record<PackEvent, { readonly lost?: boolean; readonly condemned?: boolean }>> = {
  lose: { lost: true },
  recover: { lost: false },
  condemn: { condemned: true },
  spare: { condemned: false },
  remove: { lost: false, condemned: false },
};
const SHARD_EFFECTS: Readonly<
  Record<ShardEvent, { readonly unsound?: boolean; readonly written?: boolean }>
> = {
  write: { written: true },
  'find-whole': { unsound: false },
  'find-broken': { unsound: true },
  stamp: { written: false },
};

const isCondemned = (state: PackState) => state.endsWith('condemned');
const isWritten = (state: ShardState) => state.endsWith('written');

describe('the health of a store', () => {
  for (const state of Object.keys(PACK_TRANSITIONS) as PackState[])
    for (const event of Object.keys(PACK_EFFECTS) as PackEvent[])
      it(`defines a pack that is ${state} at "${event}"`, () => {
        const health = new StoreHealth();
        for (const one of TO_PACK[state]) health.pack(PACK, one);
        assert.equal(health.packState(PACK), state);
        health.pack(PACK, event);
        const { lost = state.startsWith('lost'), condemned = isCondemned(state) } = PACK_EFFECTS[event];
        assert.equal(health.isLost(PACK), lost);
        assert.equal(isCondemned(health.packState(PACK)), condemned);
        assert.equal(health.isWhole(PACK), !lost && !condemned);
        assert.deepEqual(health.lostPacks(), lost ? [PACK] : []);
        assert.equal(health.packState(PACK + 1), 'whole', 'of one pack alone');
      });

  for (const state of Object.keys(SHARD_TRANSITIONS) as ShardState[])
    for (const event of Object.keys(SHARD_EFFECTS) as ShardEvent[])
      it(`defines a shard that is ${state} at "${event}"`, () => {
        const health = new StoreHealth();
        for (const one of TO_SHARD[state]) health.shard(SHARD, one);
        assert.equal(health.shardState(SHARD), state);
        health.shard(SHARD, event);
        const { unsound = state.startsWith('unsound'), written = isWritten(state) } = SHARD_EFFECTS[event];
        assert.equal(health.isUnsound(SHARD), unsound);
        assert.equal(isWritten(health.shardState(SHARD)), written);
        assert.deepEqual(health.shardsToStamp(), written && !unsound ? [SHARD] : []);
        assert.equal(health.unsoundShards, unsound ? 1 : 0);
        assert.equal(health.shardState('ac'), 'clean', 'of one shard alone');
      });

  it('forgets packs and unsound shards when the index is made anew, not what was written', () => {
    const health = new StoreHealth();
    health.pack(1, 'lose');
    health.pack(2, 'condemn');
    for (const event of TO_SHARD['unsound-written']) health.shard('00', event);
    health.shard('01', 'write');
    health.shard('02', 'find-broken');
    health.reset();
    assert.deepEqual([health.isWhole(1), health.isWhole(2), health.unsoundShards], [true, true, 0]);
    assert.deepEqual(health.shardsToStamp(), ['00', '01']);
  });

  it('replaces findings about the packs of one shard', () => {
    const health = new StoreHealth();
    const finding = (code: string, object: string) => warning(code, object, { message: 'a test' });
    health.findings.push(finding('pack_missing', 'ab01'), finding('pack_damaged', 'cd01'));
    health.findings.push(finding('config_damaged', 'ab'));
    const objects = () => health.findings.map(({ object }) => object);
    health.dropPackFindings('ab');
    assert.deepEqual(objects(), ['cd01', 'ab']);
    health.dropPackFindings();
    assert.deepEqual(objects(), ['ab']);
  });

  it('is stale until it is marked current', () => {
    const health = new StoreHealth();
    assert.equal(health.isStale, false);
    health.markStale();
    assert.equal(health.isStale, true);
    health.markCurrent();
    assert.equal(health.isStale, false);
  });
});

const folder = scratch('health', { memory: true });
after(() => folder.drop());
const calls = callsInProcess(folder.fresh('store'));
const dir = folder.fresh('dir');
makeTree(dir, 1, { version: 0, graphs: await makeGraphs(1) });
await calls.snapshot(dir);

/** Opens the store and finds a unit of the first snapshot. */
async function withUnit(
  run: (store: Store, unit: { id: Buffer; pack: number }) => Promise<void>,
): Promise<void> {
  const store = await Store.open(calls.store);
  try {
    for await (const [, snapshot] of store.index.records({}))
      if (isStored(snapshot))
        for await (const { content } of store.files(snapshot.manifest.files))
          for await (const [first] of store.units(content)) {
            if (first === undefined) continue;
            const { id } = first;
            const pack = store.locate(id)?.pack ?? assert.fail('the unit is stored');
            await run(store, { id: Buffer.from(id), pack });
            return;
          }
    assert.fail('there is a unit');
  } finally {
    await store.close();
  }
}

describe('a pack', () => {
  it('that is condemned is read and not referred to', async () => {
    await withUnit(async (store, { id, pack }) => {
      const bytes = Buffer.from(await store.readUnit(id, UnitKind_Value.BYTES));
      store.health.pack(pack, 'condemn');
      store.dropFrames();
      assert.equal(store.locate(id), undefined);
      assert.deepEqual(Buffer.from(await store.readUnit(id, UnitKind_Value.BYTES)), bytes);
      store.health.pack(pack, 'spare');
      assert.equal(store.locate(id)?.pack, pack);
    });
  });

  it('that is lost is not referred to until it is whole again', async () => {
    await withUnit((store, { id, pack }) => {
      store.health.pack(pack, 'lose');
      assert.equal(store.locate(id), undefined);
      store.health.pack(pack, 'recover');
      assert.equal(store.locate(id)?.pack, pack);
      return Promise.resolve();
    });
  });
});
