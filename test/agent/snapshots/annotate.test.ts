import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { acknowledgeSnapshot, pinSnapshot, tagSnapshot } from '../../../agent/snapshots/annotate.ts';
import { Store } from '../../../agent/store/store.ts';
import { LightkeeperError } from '../../../core/errors.ts';
import { isAlarming, type StoredSnapshot } from '../../../core/snapshot.ts';
import {
  AcknowledgeSnapshotRequestSchema,
  PinSnapshotRequestSchema,
} from '../../../gen/lightkeeper/v1/agent_pb.ts';
import { makeGraphs, makeTree, SHRUNK_VERSION } from '../../prove/random-tree.ts';
import { callsInProcess, scratch } from '../../prove/store-calls.ts';

const folder = scratch('annotate', { memory: true });
const calls = callsInProcess(folder.fresh('store'));
const graphs = await makeGraphs(1);
const ids: string[] = [];
for (const version of [SHRUNK_VERSION - 1, SHRUNK_VERSION]) {
  const dir = folder.fresh('dir');
  makeTree(dir, 1, { version, graphs });
  ids.push((await calls.snapshot(dir)).snapshotId);
}
const store = await Store.open(calls.store);
after(async () => {
  await store.close();
  folder.drop();
});
const [first = '', alarming = ''] = ids;

const pin = (snapshotId: string, pinned: boolean) =>
  pinSnapshot(store, create(PinSnapshotRequestSchema, { snapshotId, pinned }));
const tag = (snapshotId: string, set: Record<string, string>, remove: string[] = []) =>
  tagSnapshot(store, { snapshotId, graphId: '', set, remove });
const acknowledge = (snapshotId: string, reason: string) =>
  acknowledgeSnapshot(store, create(AcknowledgeSnapshotRequestSchema, { snapshotId, reason }));

/** The annotations of a snapshot by their kinds. */
const kinds = ({ record }: StoredSnapshot) => record.annotations.map(({ fact }) => fact.case);

const refused = (code: string, message: RegExp) => (error: unknown) =>
  error instanceof LightkeeperError &&
  error.code === code &&
  message.test(error.message) &&
  error.hint !== '';

describe('a pin', () => {
  it('is set and removed, and one annotation holds', async () => {
    assert.equal((await pin(first, true)).pinned, true);
    assert.equal((await pin(first, true)).pinned, true);
    const last = await pin(first, false);
    assert.equal(last.pinned, false);
    assert.equal(kinds(last).filter((kind) => kind === 'pinned').length, 1);
  });
});

describe('tags', () => {
  it('are added, replaced and removed, and leave the other facts', async () => {
    await pin(first, true);
    assert.deepEqual((await tag(first, { a: '1', b: '2' })).tags, { a: '1', b: '2' });
    assert.deepEqual((await tag(first, { a: '3' }, ['b', 'c'])).tags, { a: '3' });
    assert.deepEqual((await tag(first, {}, ['a'])).tags, {});
    const last = await tag(first, { constructor: 'x', __proto__x: 'y' });
    assert.deepEqual(last.tags, { constructor: 'x', __proto__x: 'y' });
    assert.deepEqual(
      [last.pinned, last.graded !== undefined, last.measured !== undefined],
      [true, true, true],
    );
  });

  it('are refused for a snapshot that is not there', async () => {
    await assert.rejects(tag('f'.repeat(32), { a: '1' }), refused('NOT_FOUND', /ffff/));
  });
});

describe('an acknowledgement', () => {
  it('needs a reason', async () => {
    await assert.rejects(acknowledge(alarming, ''), refused('INVALID_ARGUMENT', /without a reason/));
  });

  it('needs an alarm', async () => {
    await assert.rejects(acknowledge(first, 'x'), refused('INVALID_ARGUMENT', /it has no alarm/));
  });

  it('ends the alarm; a later one replaces its reason', async () => {
    const before = await tag(alarming, { a: '1' });
    assert.equal(isAlarming(before), true);
    const once = await acknowledge(alarming, 'the documents were moved');
    assert.deepEqual([isAlarming(once), once.acknowledged?.reason], [false, 'the documents were moved']);
    const twice = await acknowledge(alarming, 'another reason');
    assert.equal(twice.acknowledged?.reason, 'another reason');
    assert.deepEqual(kinds(twice), kinds(once));
    assert.deepEqual(twice.graded, before.graded);
  });
});
