import assert from 'node:assert/strict';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { pinSnapshot } from '../../../agent/snapshots/annotate.ts';
import { acceptFork, dropFork, listForks, recordFork } from '../../../agent/snapshots/forks.ts';
import {
  newestSnapshot,
  passedOver,
  resolveSnapshot,
  ungradedIds,
} from '../../../agent/snapshots/resolve.ts';
import { deleteSnapshot, pruneSnapshots } from '../../../agent/snapshots/retention.ts';
import { FrameReceiver } from '../../../agent/store/receive/frame-receiver.ts';
import type { Store } from '../../../agent/store/store.ts';
import { LightkeeperError } from '../../../core/errors.ts';
import { idOf } from '../../../core/snapshot.ts';
import type { Fork } from '../../../gen/lightkeeper/v1/agent_pb.ts';
import {
  DeleteSnapshotRequestSchema,
  PinSnapshotRequestSchema,
  PruneSnapshotsRequestSchema,
} from '../../../gen/lightkeeper/v1/agent_pb.ts';
import { Case } from '../../support/case.ts';
import { fillGraph } from '../../support/fill.ts';
import { snapshotsOf, transfer, withOpen } from '../../support/peer-stores.ts';
import { tempFolder } from '../../support/place.ts';

const GRAPH = 'data';

interface Diverged {
  /** The old primary: two shared points, then two that never left it. */
  readonly old: Case;
  /** The new primary: the shared points, then one of epoch 2. */
  readonly present: Case;
  /** Ids of the points of the old primary, oldest first. */
  readonly ids: readonly string[];
}

async function follow(from: string, to: string): Promise<void> {
  await withOpen(from, (source) =>
    withOpen(to, async (target) => {
      const receiver = await FrameReceiver.open(target, { reserveBytes: 0n });
      for (const snapshot of await snapshotsOf(source)) await transfer(source, receiver, snapshot);
      await receiver.close();
    }),
  );
}

async function diverged(t: TestContext): Promise<Diverged> {
  const place = await tempFolder(t);
  const old = new Case(join(place, 'old', GRAPH), join(place, 'old-store'));
  const present = new Case(join(place, 'present', GRAPH), join(place, 'present-store'));
  const ids: string[] = [];
  const capture = async (version: number) => {
    fillGraph(old.dir, version);
    ids.push((await old.snapshot()).snapshotId);
  };
  await capture(1);
  await capture(2);
  await follow(old.store, present.store);
  cpSync(old.dir, present.dir, { recursive: true });
  fillGraph(present.dir, 9);
  await present.snapshot({ flags: ['--take-over'] });
  await capture(3);
  await capture(4);
  return { old, present, ids };
}

/** Records the fork of the old primary, and follows the new one. */
async function forked(t: TestContext): Promise<Diverged & { fork: Fork }> {
  const made = await diverged(t);
  const fork = await withOpen(made.old.store, async (store) => {
    const ancestor = await resolveSnapshot(store, made.ids[1] ?? '', GRAPH);
    return await recordFork(store, GRAPH, ancestor.digest);
  });
  assert.ok(fork);
  await follow(made.present.store, made.old.store);
  return { ...made, fork };
}

const headId = async (store: Store) => {
  const head = await store.index.head(GRAPH);
  return head === undefined ? undefined : Buffer.from(head.digest).toString('hex').slice(0, 32);
};
const removeIndex = (one: Case) => rmSync(join(one.store, 'index'), { recursive: true });
const code = (wanted: string) => (error: unknown) =>
  error instanceof LightkeeperError && error.code === wanted;
const prune = (store: Store) =>
  pruneSnapshots(
    store,
    create(PruneSnapshotsRequestSchema, { graphId: GRAPH, policy: { last: 1 } }),
    () => {},
  );

describe('a fork', () => {
  it('moves the head back to the common point, also in a rebuilt index', async (t) => {
    const { old, ids } = await diverged(t);
    await withOpen(old.store, async (store) => {
      const ancestor = await resolveSnapshot(store, ids[1] ?? '', GRAPH);
      const fork = await recordFork(store, GRAPH, ancestor.digest);
      assert.deepEqual(fork?.snapshotIds, [ids[3], ids[2]]);
      assert.deepEqual([fork?.forkId, fork?.ancestorId, fork?.accepted], [ids[3], ids[1], false]);
      assert.equal(await headId(store), ids[1]);
      assert.equal(await recordFork(store, GRAPH, ancestor.digest), undefined, 'there is nothing more');
      await assert.rejects(recordFork(store, GRAPH, Buffer.alloc(32, 1)), code('NOT_FOUND'));
    });
    removeIndex(old);
    await withOpen(old.store, async (store) => assert.equal(await headId(store), ids[1]));
  });

  it('of everything leaves no head, and the next capture begins an epoch', async (t) => {
    const { old } = await diverged(t);
    await withOpen(old.store, async (store) => {
      await recordFork(store, GRAPH, new Uint8Array());
      assert.equal(await headId(store), undefined);
    });
    removeIndex(old);
    await withOpen(old.store, async (store) => assert.equal(await headId(store), undefined));
    const { position, parentId } = await old.snapshot();
    assert.deepEqual([position.epoch, position.sequence, parentId], ['2', '1', '']);
  });

  it('is never latest, newest or passed over, and can be read by its ids', async (t) => {
    const { old, present, ids, fork } = await forked(t);
    const [newest] = await present.list();
    await withOpen(old.store, async (store) => {
      assert.equal(await headId(store), newest?.snapshotId);
      assert.equal(idOf(await resolveSnapshot(store, 'latest', GRAPH)), newest?.snapshotId);
      // What was received is not graded yet.
      assert.equal(idOf(await resolveSnapshot(store, 'latest-valid', GRAPH)), ids[1]);
      const first = await newestSnapshot(store, GRAPH);
      assert.equal(first === undefined ? '' : idOf(first), newest?.snapshotId);
      const shared = await resolveSnapshot(store, ids[1] ?? '', GRAPH);
      const passed = (await passedOver(store, shared)).map(({ object }) => object);
      assert.deepEqual(passed, [newest?.snapshotId]);
      assert.equal((await ungradedIds(store, GRAPH)).includes(ids[3] ?? ''), false);
      assert.equal(idOf(await resolveSnapshot(store, ids[3] ?? '', GRAPH)), ids[3]);
      assert.deepEqual((await listForks(store, '')).forks?.length, 1);
      assert.deepEqual((await listForks(store, 'other')).forks, []);
    });
    const listed = (await old.list()) as unknown as { snapshotId: string; fork: string }[];
    assert.deepEqual(
      listed.filter((one) => one.fork !== '').map((one) => [one.snapshotId, one.fork]),
      [
        [ids[3], fork.forkId],
        [ids[2], fork.forkId],
      ],
    );
    assert.equal(await old.assertSound(), 5);
  });

  it('is protected until it is accepted or dropped', async (t) => {
    const { old, present, ids, fork } = await forked(t);
    const [newest] = await present.list();
    await withOpen(old.store, async (store) => {
      const protectedIds = (await prune(store)).keep
        .filter(({ reasons }) => reasons.includes('fork'))
        .map(({ snapshotId }) => snapshotId);
      assert.deepEqual(protectedIds, [ids[3], ids[2]]);
      const request = create(DeleteSnapshotRequestSchema, { snapshotId: ids[2] ?? '' });
      await assert.rejects(deleteSnapshot(store, request), code('REFUSED'));
      await assert.rejects(
        acceptFork(store, { forkId: fork.forkId, graphId: '', reason: '' }),
        code('INVALID_ARGUMENT'),
      );
      await assert.rejects(
        acceptFork(store, { forkId: 'abc', graphId: '', reason: 'x' }),
        code('INVALID_ARGUMENT'),
      );
      await assert.rejects(
        acceptFork(store, { forkId: 'abcdef12', graphId: '', reason: 'x' }),
        code('NOT_FOUND'),
      );
      const accepted = await acceptFork(store, {
        forkId: fork.forkId.slice(0, 10),
        graphId: GRAPH,
        reason: 'merged',
      });
      assert.deepEqual([accepted.accepted, accepted.reason], [true, 'merged']);
    });
    removeIndex(old);
    await withOpen(old.store, async (store) => {
      assert.equal((await listForks(store, GRAPH)).forks?.[0]?.accepted, true);
      assert.equal(await headId(store), newest?.snapshotId);
      assert.equal(idOf(await resolveSnapshot(store, 'latest', GRAPH)), newest?.snapshotId);
      const { remove } = await prune(store);
      assert.equal(
        remove.some(({ snapshotId }) => snapshotId === ids[2]),
        true,
      );
    });
  });

  it('is dropped as a whole, and its positions never become the head again', async (t) => {
    const { old, present, ids, fork } = await forked(t);
    const [newest] = await present.list();
    const drop = (store: Store, dryRun: boolean) =>
      dropFork(store, { forkId: fork.forkId, graphId: '', reason: 'not needed', dryRun });
    const pin = (store: Store, pinned: boolean) =>
      pinSnapshot(store, create(PinSnapshotRequestSchema, { snapshotId: ids[2] ?? '', pinned }));
    await withOpen(old.store, async (store) => {
      assert.deepEqual((await drop(store, true)).fork?.snapshotIds, [ids[3], ids[2]]);
      await pin(store, true);
      await assert.rejects(drop(store, false), code('REFUSED'));
      await pin(store, false);
      await drop(store, false);
      assert.deepEqual((await listForks(store, GRAPH)).forks, []);
      await prune(store);
      await prune(store);
      const log: string[] = [];
      for await (const { digest } of store.index.positions(GRAPH))
        log.push(Buffer.from(digest).toString('hex').slice(0, 32));
      assert.equal(log.length, 5);
    });
    removeIndex(old);
    await withOpen(old.store, async (store) => assert.equal(await headId(store), newest?.snapshotId));
    assert.equal(await old.assertSound(), 2);
  });

  it('whose line was never taken over is forgotten by no rebuilt index', async (t) => {
    const { old, ids } = await diverged(t);
    await withOpen(old.store, async (store) => {
      const ancestor = await resolveSnapshot(store, ids[1] ?? '', GRAPH);
      const fork = await recordFork(store, GRAPH, ancestor.digest);
      await dropFork(store, { forkId: fork?.forkId ?? '', graphId: '', reason: 'test', dryRun: false });
      await prune(store);
      assert.equal(await headId(store), ids[1]);
    });
    removeIndex(old);
    await withOpen(old.store, async (store) => assert.equal(await headId(store), ids[1]));
  });

  it('is listed, accepted and dropped by commands', async (t) => {
    const { old, ids, fork } = await forked(t);
    const listed = await old.run(['forks', 'list']);
    assert.match(
      listed.stdout,
      new RegExp(`^${fork.forkId.slice(0, 12)} +data +2 snapshots +after ${ids[1]?.slice(0, 12)}.*protected`),
    );
    assert.equal((await old.run(['forks', 'accept', fork.forkId])).code, 2);
    const accepted = await old.run(['forks', 'accept', fork.forkId, '--reason', 'seen']);
    assert.match(accepted.stdout, /^accepted/);
    const json = await old.run(['forks', 'list', '--json']);
    assert.equal((JSON.parse(json.stdout) as { forks: { reason: string }[] }).forks[0]?.reason, 'seen');
    const dropped = await old.run(['forks', 'drop', fork.forkId, '--reason', 'seen', '--dry-run']);
    assert.match(dropped.stdout, /^would remove 2 snapshots/);
    assert.match(
      (await old.run(['forks', 'drop', fork.forkId, '--reason', 'seen'])).stdout,
      /^removed 2 snapshots/,
    );
    assert.equal((await old.run(['forks', 'list'])).stdout, 'no forks\n');
  });
});
