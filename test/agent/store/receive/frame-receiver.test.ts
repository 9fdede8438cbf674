import assert from 'node:assert/strict';
import { appendFileSync, cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { pinSnapshot, tagSnapshot } from '../../../../agent/snapshots/annotate.ts';
import { sweepStore } from '../../../../agent/snapshots/retention.ts';
import { encodeProvenFrame } from '../../../../agent/store/meta-writer.ts';
import { FrameReceiver } from '../../../../agent/store/receive/frame-receiver.ts';
import type { Store } from '../../../../agent/store/store.ts';
import { commitDeletions } from '../../../../agent/store/upkeep/collect-garbage.ts';
import { LightkeeperError } from '../../../../core/errors.ts';
import { idOf, type StoredSnapshot } from '../../../../core/snapshot.ts';
import { unitId } from '../../../../core/unit.ts';
import {
  type Annotation,
  AnnotationSchema,
  DamagedSchema,
  DeletedSchema,
  ForkedSchema,
  MeasuredSchema,
  TaggedSchema,
} from '../../../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { ManifestSchema, PositionEntrySchema } from '../../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { PinSnapshotRequestSchema } from '../../../../gen/lightkeeper/v1/agent_pb.ts';
import { watchEffects } from '../../../../host/disk.ts';
import { Case } from '../../../support/case.ts';
import { fill, fillGraph, noise } from '../../../support/fill.ts';
import {
  sentSnapshot,
  snapshotsOf,
  transfer,
  transferUnits,
  withOpen,
} from '../../../support/peer-stores.ts';
import { atEnd, tempFolder } from '../../../support/place.ts';

const GRAPH = 'data';

interface Pair {
  readonly place: string;
  readonly source: Case;
  /** The store of the follower; its directory does not exist. */
  readonly target: Case;
}

async function pair(t: TestContext, snapshots = 2): Promise<Pair> {
  const place = await tempFolder(t);
  const source = new Case(join(place, GRAPH), join(place, 'source'));
  for (let version = 1; version <= snapshots; version++) {
    fillGraph(source.dir, version);
    fill(source.dir, { 'large/text': 'x'.repeat(300_000) + version, 'large/noise': noise('large', 900_000) });
    await source.snapshot();
  }
  return { place, source, target: new Case(source.dir, join(place, 'target')) };
}

/** Runs `run` with both stores open and a receiver. */
async function withReceiver<T>(
  { source, target }: Pair,
  run: (parts: {
    from: Store;
    to: Store;
    receiver: FrameReceiver;
    snapshots: StoredSnapshot[];
  }) => Promise<T>,
): Promise<T> {
  return await withOpen(source.store, (from) =>
    withOpen(target.store, async (to) => {
      const receiver = await FrameReceiver.open(to, { reserveBytes: 0n });
      try {
        return await run({ from, to, receiver, snapshots: await snapshotsOf(from) });
      } finally {
        await receiver.close();
      }
    }),
  );
}

const invalid = (message: RegExp) => (error: unknown) =>
  error instanceof LightkeeperError && error.code === 'PEER_INVALID' && message.test(error.message);

const any = () => true;

async function logOf(store: Store) {
  const found: string[] = [];
  for await (const { digest } of store.index.positions(GRAPH))
    found.push(Buffer.from(digest).toString('hex'));
  return found;
}

describe('a receiver', () => {
  it('stores snapshots that are the same on both sides, with their history', async (t) => {
    const both = await pair(t, 3);
    await withReceiver(both, async ({ from, to, receiver, snapshots }) => {
      for (const snapshot of snapshots) {
        const stored = await transfer(from, receiver, snapshot);
        assert.equal(idOf(stored), idOf(snapshot));
        assert.deepEqual(stored.manifest, snapshot.manifest);
        assert.equal(stored.measured?.durationMs, 5n);
        assert.equal((stored.measured?.storedBytes ?? 0n) > 500n, true);
      }
      assert.deepEqual(await to.index.head(GRAPH), await from.index.head(GRAPH));
      assert.deepEqual(await logOf(to), await logOf(from));
      // The second time there is nothing to do.
      for (const snapshot of snapshots) {
        assert.deepEqual(await transferUnits(from, receiver, snapshot), []);
        await receiver.commit(await sentSnapshot(from, snapshot));
      }
    });
    assert.equal(await both.target.assertSound(), 3);
    rmSync(join(both.target.store, 'index'), { recursive: true });
    assert.equal(await both.target.assertSound(), 3);
    const [newest] = await both.target.list();
    const to = join(both.place, 'restored');
    await both.target.restore(newest?.snapshotId ?? '', to);
    assert.deepEqual(
      readFileSync(join(to, 'large/noise')),
      readFileSync(join(both.source.dir, 'large/noise')),
    );
  });

  it('takes tags, pins and later facts, and not deletions', async (t) => {
    const both = await pair(t, 2);
    await withReceiver(both, async ({ from, to, receiver, snapshots }) => {
      const [first, second] = snapshots as [StoredSnapshot, StoredSnapshot];
      await tagSnapshot(from, { snapshotId: idOf(first), graphId: '', set: { a: '1' }, remove: [] });
      for (const snapshot of await snapshotsOf(from)) await transfer(from, receiver, snapshot);
      await pinSnapshot(from, create(PinSnapshotRequestSchema, { snapshotId: idOf(second), pinned: true }));
      await from.exclusively(() => commitDeletions(from, [{ digest: first.digest, reason: 'test' }]));
      const [pinned] = (await snapshotsOf(from)) as [StoredSnapshot];
      await receiver.commitRecords(await sentSnapshot(from, pinned));
      const packs = await countPacks(to);
      await receiver.commitRecords(await sentSnapshot(from, pinned));
      assert.equal(await countPacks(to), packs, 'facts that are known are not stored again');
      const got = await snapshotsOf(to);
      assert.deepEqual(
        got.map(({ tags, pinned: isPinned, graded }) => ({ tags, isPinned, graded })),
        [
          { tags: { a: '1' }, isPinned: false, graded: undefined },
          { tags: {}, isPinned: true, graded: undefined },
        ],
      );
    });
    assert.equal(await both.target.assertSound(), 2);
  });

  it('refuses frames that break a rule, and stores nothing of them', async (t) => {
    const both = await pair(t, 1);
    await withReceiver(both, async ({ from, to, receiver, snapshots }) => {
      const [snapshot] = snapshots as [StoredSnapshot];
      const probe = await FrameReceiver.open(to, { reserveBytes: 0n });
      const frames = await transferUnits(from, probe, snapshot);
      await probe.close();
      const [large = Buffer.alloc(0)] = frames.toSorted((a, b) => b.length - a.length);
      const other = await pair(t, 0);
      await withOpen(other.target.store, async (empty) => {
        const victim = await FrameReceiver.open(empty, { reserveBytes: 0n });
        for (const frame of frames) {
          await assert.rejects(
            victim.receive(frame, () => false),
            invalid(/no unit in it is wanted/),
          );
          for (let cut = 0; cut < frame.length; cut += Math.ceil(frame.length / 7))
            await assert.rejects(victim.receive(frame.subarray(0, cut), any), invalid(/./));
        }
        for (let at = 0; at < large.length; at += Math.ceil(large.length / 40)) {
          const flipped = Buffer.from(large);
          flipped[at] = (flipped[at] as number) ^ 0x10;
          await assert.rejects(victim.receive(flipped, any), invalid(/./), `byte ${at}`);
        }
        const unit = Buffer.from('unit');
        for (const kind of [UnitKind_Value.GRAPH, UnitKind_Value.MANIFEST, UnitKind_Value.ROW, 99]) {
          const frame = Buffer.from(encodeProvenFrame(kind, [unit]).bytes);
          await assert.rejects(victim.receive(frame, any), invalid(/kind/));
        }
        const piece = encodeProvenFrame(UnitKind_Value.LIST, [Buffer.alloc(39)]);
        await assert.rejects(victim.receive(Buffer.from(piece.bytes), any), invalid(/whole entries/));
        const bomb = encodeProvenFrame(UnitKind_Value.BYTES, [Buffer.alloc(9 << 20)]);
        assert.equal(bomb.bytes.length < 10_000, true);
        await assert.rejects(victim.receive(Buffer.from(bomb.bytes), any), invalid(/decodes to/));
        await assert.rejects(victim.receive(Buffer.alloc(20 << 20), any), invalid(/bytes/));
        await victim.close();
      });
      assert.equal(await other.target.assertSound(), 0);
      assert.deepEqual(readdirSync(join(other.target.store, 'tmp')), []);
      await receiver.close();
    });
  });

  it('refuses a snapshot of which a unit is missing, and commits it once it is there', async (t) => {
    const both = await pair(t, 2);
    await withReceiver(both, async ({ from, receiver, snapshots }) => {
      const [first, second] = snapshots as [StoredSnapshot, StoredSnapshot];
      const sent = await sentSnapshot(from, first);
      const missing = (error: unknown) =>
        error instanceof LightkeeperError && error.code === 'NOT_FOUND' && error.details.length > 0;
      await assert.rejects(receiver.commit(sent), missing);
      const frames: Buffer[] = [];
      const { receive } = receiver;
      const lossy = Object.assign(Object.create(receiver) as FrameReceiver, {
        has: (id: Uint8Array) => receiver.has(id),
        piece: (id: Uint8Array, kind: UnitKind_Value) => receiver.piece(id, kind),
        isComplete: () => false,
        receive: async (frame: Buffer, wanted: (id: Buffer) => boolean) => {
          frames.push(frame);
          if (frames.length === 1 || frame.length < 100_000)
            return await receive.call(receiver, frame, wanted);
          return undefined as never;
        },
      });
      await transferUnits(from, lossy, first);
      await assert.rejects(receiver.commit(sent), missing);
      for (const frame of frames) await receiver.receive(frame, any);
      assert.equal(idOf(await receiver.commit(sent)), idOf(first));
      await transfer(from, receiver, second);
    });
    assert.equal(await both.target.assertSound(), 2);
  });

  it('refuses records that break a rule', async (t) => {
    const both = await pair(t, 2);
    await withReceiver(both, async ({ from, to, receiver, snapshots }) => {
      const [first, second] = snapshots as [StoredSnapshot, StoredSnapshot];
      await transferUnits(from, receiver, first);
      const sent = await sentSnapshot(from, first);
      const position = toBinary(PositionEntrySchema, (await from.index.head(GRAPH)) as never);
      const annotation = (fact: Annotation['fact'], more: Partial<Annotation> = {}) =>
        toBinary(
          AnnotationSchema,
          create(AnnotationSchema, {
            storeId: from.config.storeId,
            counter: 9n,
            digest: first.digest,
            fact,
            ...more,
          }),
        );
      const tagged = { case: 'tagged' as const, value: create(TaggedSchema, { tags: { a: 'b' } }) };
      const altered = (change: (manifest: typeof first.manifest) => void) => {
        const manifest = fromBinary(ManifestSchema, sent.manifest);
        change(manifest);
        return { ...sent, positions: [], annotations: [], manifest: toBinary(ManifestSchema, manifest) };
      };
      const cases: [RegExp, Parameters<FrameReceiver['commit']>[0]][] = [
        [/a manifest/, { ...sent, manifest: Buffer.from('nonsense') }],
        [/no place in the history/, altered((manifest) => (manifest.sequence = 0n))],
        [/totals/, altered((manifest) => ((manifest.totals as { files: number }).files += 1))],
        [/totals/, altered((manifest) => ((manifest.totals as { rawBytes: bigint }).rawBytes += 1n))],
        [/does not add up/, altered((manifest) => ((manifest.files as { count: bigint }).count += 1n))],
        [/a position/, { ...sent, positions: [Buffer.from('nonsense')] }],
        [/after its snapshot/, { ...sent, positions: [position] }],
        [/an annotation/, { ...sent, annotations: [Buffer.from('nonsense')] }],
        [
          /claims to be of this store/,
          { ...sent, annotations: [annotation(tagged, { storeId: to.config.storeId })] },
        ],
        [/counter/, { ...sent, annotations: [annotation(tagged, { counter: 0n })] }],
        [/an annotation/, { ...sent, annotations: [annotation(tagged, { counter: 2n ** 63n })] }],
        [/not about its snapshot/, { ...sent, annotations: [annotation(tagged, { digest: second.digest })] }],
      ];
      for (const fact of [
        { case: 'deleted' as const, value: create(DeletedSchema) },
        { case: 'damaged' as const, value: create(DamagedSchema) },
        { case: 'forked' as const, value: create(ForkedSchema) },
        { case: 'measured' as const, value: create(MeasuredSchema) },
        { case: undefined },
      ])
        cases.push([/does not travel/, { ...sent, annotations: [annotation(fact)] }]);
      for (const [message, wrong] of cases) await assert.rejects(receiver.commit(wrong), invalid(message));
      assert.equal((await snapshotsOf(to)).length, 0);
      await receiver.commit(sent);
      await assert.rejects(
        receiver.commitRecords({
          positions: [],
          annotations: [annotation(tagged, { storeId: to.config.storeId })],
        }),
        invalid(/claims/),
      );
      await receiver.commitRecords({ positions: [position], annotations: [] });
      assert.equal((await logOf(to)).length, 1, 'a position beyond the head comes with its snapshot');
    });
  });

  it('does not store a snapshot again that was deleted here', async (t) => {
    const both = await pair(t, 2);
    await withReceiver(both, async ({ from, to, receiver, snapshots }) => {
      for (const snapshot of snapshots) await transfer(from, receiver, snapshot);
      const [first] = snapshots as [StoredSnapshot];
      await to.exclusively(() => commitDeletions(to, [{ digest: first.digest, reason: 'test' }]));
      await sweepStore(to);
      await transferUnits(from, receiver, first);
      await assert.rejects(receiver.commit(await sentSnapshot(from, first)), /was deleted here/);
    });
  });

  it('leaves what it received to the next one, also across a sweep and an opening of the store', async (t) => {
    const both = await pair(t, 1);
    const sent = await withReceiver(both, async ({ from, to, receiver, snapshots }) => {
      const [snapshot] = snapshots as [StoredSnapshot];
      const frames = await transferUnits(from, receiver, snapshot);
      await receiver.close();
      await sweepStore(to);
      const next = await FrameReceiver.open(to, { reserveBytes: 0n });
      assert.deepEqual(await transferUnits(from, next, snapshot), []);
      await next.close();
      return frames.length;
    });
    const tmp = join(both.target.store, 'tmp');
    assert.equal(readdirSync(tmp).length, 2);
    // The last frame was under way when the process was stopped.
    const torn = encodeProvenFrame(UnitKind_Value.BYTES, [noise('torn', 5000)]).bytes;
    for (const name of readdirSync(tmp)) appendFileSync(join(tmp, name), torn.subarray(0, torn.length - 1));
    await withReceiver(both, async ({ from, to, receiver, snapshots }) => {
      const [snapshot] = snapshots as [StoredSnapshot];
      assert.deepEqual(readdirSync(tmp), []);
      await sweepStore(to);
      assert.equal(sent > 1, true);
      assert.deepEqual(await transferUnits(from, receiver, snapshot), []);
      await receiver.commit(await sentSnapshot(from, snapshot));
    });
    assert.equal(await both.target.assertSound(), 1);
  });

  it('leaves packs that a later sweep removes, once it is closed', async (t) => {
    const both = await pair(t, 1);
    await withReceiver(both, async ({ from, receiver, snapshots }) => {
      await transferUnits(from, receiver, snapshots[0] as StoredSnapshot);
    });
    await withReceiver(both, async ({ to, receiver }) => {
      assert.equal(await countPacks(to), 2);
      await sweepStore(to);
      assert.equal(await countPacks(to), 2);
      await receiver.close();
      await sweepStore(to);
      assert.equal(await countPacks(to), 0);
    });
  });

  it('keeps the whole frames before the first damaged one', async (t) => {
    const both = await pair(t, 1);
    const units = [1, 2, 3].map((n) => noise(n, 5000));
    const ids = units.map((unit) => unitId(UnitKind_Value.BYTES, unit));
    await withReceiver(both, async ({ receiver }) => {
      for (const unit of units)
        await receiver.receive(Buffer.from(encodeProvenFrame(UnitKind_Value.BYTES, [unit]).bytes), any);
    });
    const tmp = join(both.target.store, 'tmp');
    const [name = ''] = readdirSync(tmp);
    const bytes = readFileSync(join(tmp, name));
    bytes[bytes.length - 7000] = (bytes[bytes.length - 7000] as number) ^ 1;
    writeFileSync(join(tmp, name), bytes);
    await withReceiver(both, async ({ receiver }) => {
      assert.deepEqual(
        ids.map((id) => receiver.has(id)),
        [true, false, false],
      );
    });
  });

  it('of another store left nothing that this one takes', async (t) => {
    const both = await pair(t, 1);
    await withReceiver(both, async ({ from, receiver, snapshots }) => {
      await transferUnits(from, receiver, snapshots[0] as StoredSnapshot);
    });
    const other = join(both.place, 'other');
    await withOpen(other, async () => {});
    for (const name of readdirSync(join(both.target.store, 'tmp')))
      cpSync(join(both.target.store, 'tmp', name), join(other, 'tmp', name));
    await withOpen(other, async (store) => assert.equal(await countPacks(store), 0));
    assert.deepEqual(readdirSync(join(other, 'tmp')), []);
  });
});

async function countPacks(store: Store): Promise<number> {
  let count = 0;
  for await (const _ of store.packs.list()) count += 1;
  return count;
}

describe('a receiver that is stopped', () => {
  it('leaves a whole store at every effect, which goes on where it was', async (t) => {
    const both = await pair(t, 2);
    await withReceiver(both, async ({ from, receiver, snapshots }) => {
      await transfer(from, receiver, snapshots[0] as StoredSnapshot);
    });
    const copies: { label: string; path: string }[] = [];
    const labels = new Set<string>();
    await withReceiver(both, async ({ from, receiver, snapshots }) => {
      const stop = watchEffects((phase, { label, path }) => {
        if (!String(path).startsWith(both.target.store) && path !== 'index') return;
        // A kill after an effect leaves what one before the next effect leaves.
        if (phase !== 'before' || labels.has(label)) return;
        labels.add(label);
        const copy = join(both.place, `copy-${copies.length}`);
        cpSync(both.target.store, copy, { recursive: true, preserveTimestamps: true });
        copies.push({ label, path: copy });
      });
      atEnd(t, stop);
      await transfer(from, receiver, snapshots[1] as StoredSnapshot);
      stop();
    });
    for (const wanted of [
      'peer:data:write',
      'peer:data:sync',
      'peer:meta:write',
      'peer:meta:end',
      'index:commit',
    ])
      assert.equal(labels.has(wanted), true, wanted);
    for (const { label, path } of copies) {
      const copy = new Case(both.source.dir, path);
      const stored = await copy.assertSound();
      assert.equal(stored === 1 || stored === 2, true, `${label}: ${stored}`);
      await withReceiver({ ...both, target: copy }, async ({ from, to, receiver, snapshots }) => {
        for (const snapshot of snapshots) await transfer(from, receiver, snapshot);
        assert.deepEqual(await logOf(to), await logOf(from), label);
      });
      assert.equal(await copy.assertSound(), 2, label);
      assert.deepEqual(readdirSync(join(path, 'tmp')), [], label);
    }
  });

  it('by a full disk rejects, leaves the store whole and can be repeated', async (t) => {
    const both = await pair(t, 2);
    await withReceiver(both, async ({ from, to, receiver, snapshots }) => {
      await transfer(from, receiver, snapshots[0] as StoredSnapshot);
      const second = snapshots[1] as StoredSnapshot;
      const labels = [
        'peer:pack:create',
        'peer:data:write',
        'peer:data:end',
        'peer:data:sync',
        'store:pack:rename',
      ];
      labels.push('store:pack:publish', 'peer:meta:write', 'peer:meta:sync', 'index:commit', 'index:pack');
      for (const label of labels) {
        const stop = watchEffects((phase, effect) => {
          if (phase === 'before' && effect.label === label)
            throw Object.assign(new Error('ENOSPC: injected'), { code: 'ENOSPC' });
        });
        await assert.rejects(transfer(from, receiver, second), /ENOSPC|missing/, label).finally(stop);
        if ((await snapshotsOf(to)).length === 2) break;
      }
      await transfer(from, receiver, second);
      assert.deepEqual(await logOf(to), await logOf(from));
    });
    assert.equal(await both.target.assertSound(), 2);
  });
});
