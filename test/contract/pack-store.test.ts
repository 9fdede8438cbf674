import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DirectoryPackStore } from '../../agent/pack/directory-pack-store.ts';
import { MemoryPackStore } from '../../agent/pack/memory-pack-store.ts';
import { PackBytes, readPackInto } from '../../agent/pack/pack-bytes.ts';
import type { PrunablePackStore } from '../../agent/pack/pack-store.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { watchEffects } from '../../host/disk.ts';

/** The clock of a filesystem ticks slower than a test runs. */
const TICK_MS = 20;

/** One place that holds packs. */
interface Place {
  readonly packs: PrunablePackStore;
  /** Returns the store of the same packs as another process, or a later one, has it. */
  readonly reopen: () => PrunablePackStore;
  /** Begins a pack of these bytes whose publishing does not succeed, and drops it. */
  readonly failToPublish: (bytes: Buffer) => Promise<void>;
  /** Asserts that nothing is left of packs that were dropped. */
  readonly assertNothingLeft: () => Promise<void>;
  readonly remove: () => Promise<void>;
}

const IMPLEMENTATIONS: Readonly<Record<string, () => Promise<Place>>> = {
  'a directory': async () => {
    const root = await mkdtemp(join(tmpdir(), 'lightkeeper-packs-'));
    for (const name of ['packs', 'tmp']) await mkdir(join(root, name));
    const packs = new DirectoryPackStore(root);
    return {
      packs,
      reopen: () => new DirectoryPackStore(root),
      failToPublish: async (bytes) => {
        for (const label of ['test:sync', 'store:pack:rename']) {
          const sink = await packs.create('test:create');
          await sink.append('test:write', bytes);
          const stop = watchEffects((phase, effect) => {
            if (phase === 'before' && effect.label === label && `${effect.path}`.startsWith(root))
              throw new Error('injected');
          });
          await assert.rejects(sink.publish('test:sync', idOf(bytes)), /injected/).finally(stop);
          await sink.discard();
        }
      },
      assertNothingLeft: async () => assert.deepEqual(await readdir(join(root, 'tmp')), []),
      remove: () => rm(root, { recursive: true, force: true }),
    };
  },
  memory: () => {
    const packs = new MemoryPackStore();
    return Promise.resolve({
      packs,
      reopen: () => packs,
      failToPublish: async (bytes) => {
        const sink = await packs.create('test:create');
        await sink.append('test:write', bytes);
        await sink.discard();
      },
      assertNothingLeft: () => Promise.resolve(),
      remove: () => Promise.resolve(),
    });
  },
};

/** A store in some state of its life, with the packs that were published before. */
interface Subject extends Place {
  readonly published: ReadonlyMap<string, Buffer>;
}

/** States of a store's life. In each of them a store must do all that the suite asks of it. */
const STATES: Readonly<Record<string, (place: Place) => Promise<Subject>>> = {
  'that is new': (place) => Promise.resolve({ ...place, published: new Map() }),
  'that was opened again': async (place) => {
    const published = await putSome(place.packs);
    await place.packs.close();
    return { ...place, packs: place.reopen(), published };
  },
  'that another one has open': async (place) => ({
    ...place,
    packs: place.reopen(),
    published: await putSome(place.packs),
  }),
  'after a publish that failed': async (place) => {
    const published = await putSome(place.packs);
    await place.failToPublish(randomBytes(500));
    return { ...place, published };
  },
  'after it was closed': async (place) => {
    const published = await putSome(place.packs);
    for (const packId of published.keys()) await place.packs.get(packId, 0, 1);
    await place.packs.close();
    return { ...place, published };
  },
};

function idOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Publishes bytes in two parts. Returns the name, and whether the pack was new. */
async function put(
  packs: PrunablePackStore,
  bytes: Buffer,
  packId = idOf(bytes),
): Promise<{ packId: string; isNew: boolean }> {
  const sink = await packs.create('test:create');
  const half = bytes.length >> 1;
  await sink.append('test:write', bytes.subarray(0, half));
  await sink.append('test:write', bytes.subarray(half));
  return { packId, isNew: await sink.publish('test:sync', packId) };
}

async function putSome(packs: PrunablePackStore): Promise<ReadonlyMap<string, Buffer>> {
  const all = [1, 300, 7000].map((length) => randomBytes(length));
  for (const bytes of all) await put(packs, bytes);
  return new Map(all.map((bytes) => [idOf(bytes), bytes]));
}

async function listed(packs: PrunablePackStore, shard?: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { packId, size } of packs.list(shard)) {
    found.push(packId);
    assert.deepEqual(await packs.head(packId), { size });
  }
  return found;
}

const hasCode = (code: string) => (error: unknown) =>
  error instanceof LightkeeperError && error.code === code;

const NO_PACK = '0'.repeat(64);

/** What a test gets: the store, and what was published before. */
type Run = (subject: Subject) => Promise<void>;

const READING: Readonly<Record<string, Run>> = {
  'holds what was published before': async ({ packs, published }) => {
    assert.deepEqual(await listed(packs), [...published.keys()].sort());
    for (const [packId, bytes] of published)
      assert.deepEqual(await packs.get(packId, 0, bytes.length), bytes);
  },

  'returns a pack whole and in parts': async ({ packs }) => {
    const bytes = randomBytes(5000);
    const { packId } = await put(packs, bytes);
    assert.deepEqual(await packs.get(packId, 0, 5000), bytes);
    assert.deepEqual(await packs.get(packId, 4990, 10), bytes.subarray(4990));
    assert.deepEqual(await packs.get(packId, 7, 0), Buffer.alloc(0));
    assert.deepEqual(await packs.head(packId), { size: 5000 });
  },

  'returns bytes that the caller may change': async ({ packs }) => {
    const bytes = randomBytes(50);
    const { packId } = await put(packs, bytes);
    (await packs.get(packId, 0, 50)).fill(0);
    assert.deepEqual(await packs.get(packId, 0, 50), bytes);
  },

  'reports a read beyond the end as damage': async ({ packs }) => {
    const { packId } = await put(packs, randomBytes(10));
    await assert.rejects(packs.get(packId, 5, 6), hasCode('DAMAGED'));
    await assert.rejects(packs.get(packId, 11, 1), hasCode('DAMAGED'));
  },

  'returns what was appended to a pack before it is published': async ({ packs }) => {
    const bytes = randomBytes(60);
    for (const received of [false, true]) {
      const sink = await packs.create('test:create', { received });
      await sink.append('test:write', bytes.subarray(0, 40));
      await sink.append('test:write', bytes.subarray(40));
      assert.deepEqual(await sink.read(35, 10), bytes.subarray(35, 45));
      await assert.rejects(sink.read(55, 6), hasCode('DAMAGED'));
      await sink.discard();
    }
  },

  'reports a missing pack as not found, until it is published': async ({ packs }) => {
    const bytes = randomBytes(40);
    await assert.rejects(packs.get(idOf(bytes), 0, 1), hasCode('NOT_FOUND'));
    assert.equal(await packs.head(idOf(bytes)), undefined);
    await put(packs, bytes);
    assert.deepEqual(await packs.get(idOf(bytes), 0, 40), bytes);
  },

  'gives a reference by which other threads read': async ({ packs }) => {
    const bytes = randomBytes(900);
    const { packId } = await put(packs, bytes);
    const reference = structuredClone(packs.reference(packId));
    assert.deepEqual(readPackInto(reference, 100, Buffer.alloc(800)), bytes.subarray(100));
    const open = PackBytes.open(reference);
    assert.equal(open.size, 900);
    assert.deepEqual(open.readAt(890, 100), bytes.subarray(890));
    open.close();
    assert.throws(() => readPackInto(reference, 899, Buffer.alloc(2)), hasCode('DAMAGED'));
    assert.throws(() => readPackInto(packs.reference(NO_PACK), 0, Buffer.alloc(1)), hasCode('DAMAGED'));
  },

  'lists packs in order, all or those of a shard': async ({ packs }) => {
    for (let i = 0; i < 20; i++) await put(packs, randomBytes(20));
    const all = await listed(packs);
    assert.deepEqual(all, [...all].sort());
    assert.equal(all.length >= 20, true);
    for (const shard of ['00', 'ff', (all[0] as string).slice(0, 2)])
      assert.deepEqual(
        await listed(packs, shard),
        all.filter((packId) => packId.startsWith(shard)),
      );
  },
};

const WRITING: Readonly<Record<string, Run>> = {
  'shows a pack once it is published, not before': async ({ packs, reopen }) => {
    const bytes = randomBytes(64);
    const packId = idOf(bytes);
    const stamp = await packs.shardStamp(packId.slice(0, 2));
    const sink = await packs.create('test:create');
    await sink.append('test:write', bytes);
    assert.equal(await packs.head(packId), undefined);
    assert.equal((await listed(packs)).includes(packId), false);
    assert.equal(await packs.shardStamp(packId.slice(0, 2)), stamp);
    assert.equal(await sink.publish('test:sync', packId), true);
    const other = reopen();
    assert.deepEqual(await other.get(packId, 0, 64), bytes);
    await other.close();
  },

  'lets the caller reuse bytes that were appended': async ({ packs }) => {
    const bytes = randomBytes(64);
    const packId = idOf(bytes);
    const sink = await packs.create('test:create');
    const buffer = Buffer.alloc(32);
    for (const from of [0, 32]) {
      bytes.copy(buffer, 0, from);
      await sink.append('test:write', buffer);
    }
    buffer.fill(0);
    await sink.publish('test:sync', packId);
    assert.deepEqual(await packs.get(packId, 0, 64), bytes);
  },

  'writes several packs at a time': async ({ packs }) => {
    const all = [randomBytes(10), randomBytes(20)];
    const sinks = await Promise.all(all.map(() => packs.create('test:create')));
    for (const [i, bytes] of all.entries())
      for (const byte of bytes) await sinks[i]?.append('test:write', Buffer.of(byte));
    for (const [i, bytes] of all.entries()) await sinks[i]?.publish('test:sync', idOf(bytes));
    for (const bytes of all) assert.deepEqual(await packs.get(idOf(bytes), 0, bytes.length), bytes);
  },

  'reports that a published pack was there': async ({ packs }) => {
    const bytes = randomBytes(100);
    assert.equal((await put(packs, bytes)).isNew, true);
    assert.equal((await put(packs, bytes)).isNew, false);
    assert.deepEqual(await packs.get(idOf(bytes), 0, 100), bytes);
  },

  'replaces a damaged pack, even while it is read': async ({ packs }) => {
    const bytes = randomBytes(100);
    for (const damaged of [bytes.subarray(0, 60), Buffer.alloc(100)]) {
      await put(packs, damaged, idOf(bytes));
      await packs.get(idOf(bytes), 0, 60);
      assert.equal((await put(packs, bytes)).isNew, damaged.length !== bytes.length);
      assert.deepEqual(await packs.get(idOf(bytes), 0, 100), bytes);
    }
  },

  'leaves nothing of a pack that was dropped or could not be published': async (subject) => {
    const { packs, failToPublish, assertNothingLeft } = subject;
    const bytes = randomBytes(70);
    const before = await listed(packs);
    await failToPublish(bytes);
    const sink = await packs.create('test:create');
    await sink.append('test:write', bytes);
    await sink.discard();
    await sink.discard();
    assert.deepEqual(await listed(packs), before);
    assert.equal(await packs.head(idOf(bytes)), undefined);
    await assertNothingLeft();
    assert.equal((await put(packs, bytes)).isNew, true);
    await assertNothingLeft();
  },

  'changes the stamp of a shard when a pack comes or goes': async ({ packs }) => {
    const bytes = randomBytes(30);
    const shard = idOf(bytes).slice(0, 2);
    const stamps = [await packs.shardStamp(shard)];
    await sleep(TICK_MS);
    await put(packs, bytes);
    stamps.push(await packs.shardStamp(shard));
    assert.equal(await packs.shardStamp(shard), stamps[1], 'it stays while nothing happens');
    await sleep(TICK_MS);
    await packs.delete([idOf(bytes)]);
    stamps.push(await packs.shardStamp(shard));
    assert.equal(new Set(stamps).size, 3, stamps.join(' '));
  },
};

const REMOVING: Readonly<Record<string, Run>> = {
  'removes packs, and those that are gone without an error': async ({ packs, reopen }) => {
    const [one, other] = [await put(packs, randomBytes(30)), await put(packs, randomBytes(31))];
    await packs.get(one.packId, 0, 1);
    await packs.delete([one.packId, other.packId]);
    await packs.delete([one.packId]);
    await packs.delete([]);
    for (const { packId } of [one, other]) {
      assert.equal(await packs.head(packId), undefined);
      await assert.rejects(packs.get(packId, 0, 1), hasCode('NOT_FOUND'));
      await assert.rejects(reopen().get(packId, 0, 1), hasCode('NOT_FOUND'));
    }
  },

  'quarantines a pack, which stays until it is evicted': async ({ packs }) => {
    const bytes = randomBytes(80);
    const { packId } = await put(packs, bytes);
    const where = await packs.quarantine(packId);
    assert.equal(where.includes(packId), true);
    assert.equal(await packs.quarantine(packId), where, 'the same copy serves');
    assert.deepEqual(await packs.get(packId, 0, 80), bytes);
    await packs.evict(packId);
    assert.equal(await packs.head(packId), undefined);
    await assert.rejects(packs.get(packId, 0, 1), hasCode('NOT_FOUND'));
    assert.equal((await listed(packs)).includes(packId), false);
    assert.equal((await put(packs, bytes)).isNew, true);
  },

  'can be closed twice': async ({ packs }) => {
    await packs.close();
    await packs.close();
  },
};

for (const [implementation, make] of Object.entries(IMPLEMENTATIONS))
  for (const [state, reach] of Object.entries(STATES))
    describe(`a pack store in ${implementation} ${state}`, () => {
      let subject: Subject;
      before(async () => {
        subject = await reach(await make());
      });
      after(async () => {
        await subject.packs.close();
        await subject.remove();
      });
      for (const [behaviour, run] of Object.entries({ ...READING, ...WRITING, ...REMOVING }))
        it(behaviour, () => run(subject));
      // The folder of the shard is synced, which a directory does not have before its first pack.
      it('removes a pack of a shard that has none without an error', () => subject.packs.delete([NO_PACK]));
    });
