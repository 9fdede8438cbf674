import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { withStore } from '../../../agent/main.ts';
import { recoverJournal } from '../../../agent/restore/journal-recovery.ts';
import { lastOf } from '../../../cli/await-result.ts';
import type { RestoreResult } from '../../../gen/lightkeeper/v1/agent_pb.ts';
import { watchEffects } from '../../../host/disk.ts';
import { scratch } from '../../prove/store-calls.ts';
import { Case } from '../../support/case.ts';

/** More files than are synced one by one, so that the filesystem is synced as a whole too. */
const MANY = 150;

const folder = scratch('byte-paths');
after(() => folder.drop());
const source = folder.fresh('source');
const store = folder.fresh('store');
let snapshotId = '';

before(async () => {
  mkdirSync(join(source, 'sub'), { recursive: true });
  writeFileSync(join(source, 'new'), 'new');
  for (let i = 0; i < MANY; i++) writeFileSync(join(source, 'sub', `${i}`), `${i}`);
  ({ snapshotId } = await new Case(source, store).snapshot());
});

/** A new folder, and in it a target whose name is not UTF-8. */
function targetIn(...parents: string[]): { place: string; target: Buffer } {
  const place = folder.fresh('place');
  mkdirSync(place);
  const names = [...parents, 'r\xff'].join('/');
  return { place, target: Buffer.concat([Buffer.from(`${place}/`), Buffer.from(names, 'latin1')]) };
}

function namesIn(path: string | Buffer): string[] {
  return readdirSync(path, { encoding: 'buffer' })
    .map((name) => name.toString('latin1'))
    .sort();
}

function inside(target: Buffer, name: string): Buffer {
  return Buffer.concat([target, Buffer.from(`/${name}`)]);
}

function assertRestored(target: Buffer): void {
  assert.deepEqual(
    namesIn(target).filter((name) => name !== '.lightkeeper'),
    ['new', 'sub'],
  );
  assert.equal(readFileSync(inside(target, 'new'), 'utf8'), 'new');
  assert.equal(namesIn(inside(target, 'sub')).length, MANY);
}

function restoreTo(target: Buffer): Promise<RestoreResult> {
  const request = { snapshotId, target: { case: 'to' as const, value: target }, diskReserveBytes: 1n };
  return withStore(store, { reading: true }, (client) => lastOf(client.restoreSnapshot(request)));
}

function restoreInPlace(target: Buffer): Promise<RestoreResult> {
  const request = {
    snapshotId,
    // It was captured from another directory.
    graphId: basename(source),
    target: { case: 'inPlace' as const, value: target },
    evidence: { case: 'instanceStopped' as const, value: true },
    diskReserveBytes: 1n,
  };
  return withStore(store, {}, (client) => lastOf(client.restoreSnapshot(request)));
}

function isBelow(path: string | Buffer, target: Buffer): boolean {
  return Buffer.from(path).subarray(0, target.length).equals(target);
}

/** Fails the moves of a restore in place, and undoing them, until the returned function is called. */
function failMoves(target: Buffer): () => void {
  return watchEffects((phase, { label, path }) => {
    if (phase === 'before' && isBelow(path, target) && /^inplace:(?:move-in|undo)/.test(label))
      throw Object.assign(new Error('EIO: injected'), { code: 'EIO' });
  });
}

describe('a restore to a target that is not UTF-8', () => {
  it('creates the target and its parents', async () => {
    const { place, target } = targetIn('p\xfe', 'q');
    const { to } = await restoreTo(target);
    assert.equal(to, `${place}/p\\xfe/q/r\\xff`);
    assert.deepEqual(namesIn(place), ['p\xfe']);
    assert.deepEqual(namesIn(target.subarray(0, target.lastIndexOf('/'))), ['r\xff']);
    assertRestored(target);
  });

  it('fills an empty target', async () => {
    const { place, target } = targetIn();
    mkdirSync(target);
    const { ino } = statSync(target);
    await restoreTo(target);
    assert.deepEqual(namesIn(place), ['r\xff']);
    assert.equal(statSync(target).ino, ino);
    assertRestored(target);
  });

  it('refuses a target that is not empty, by its name', async () => {
    const { target } = targetIn();
    mkdirSync(target);
    writeFileSync(inside(target, 'mine'), '');
    await assert.rejects(restoreTo(target), { code: 'REFUSED', message: /r\\xff": it is not empty/ });
    assert.deepEqual(namesIn(target), ['mine']);
  });

  it('leaves nothing after a failure', async () => {
    const { place, target } = targetIn();
    const stop = watchEffects((phase, { label, to }) => {
      if (phase === 'before' && label === 'restore:rename' && to !== undefined && isBelow(to, target))
        throw Object.assign(new Error('EIO: injected'), { code: 'EIO' });
    });
    await assert.rejects(restoreTo(target).finally(stop), { code: 'IO', message: /r\\xff": EIO/ });
    assert.deepEqual(namesIn(place), []);
  });
});

describe('a restore in place of a directory that is not UTF-8', () => {
  it('replaces its content', async () => {
    const { place, target } = targetIn();
    mkdirSync(target);
    for (const name of ['new', 'old']) writeFileSync(inside(target, name), 'old');
    const { inPlace } = await restoreInPlace(target);
    assert.deepEqual([inPlace?.replaced, inPlace?.added, inPlace?.removed], [1, 1, 1]);
    assert.match(inPlace?.oldState ?? '', /r\\xff\/\.lightkeeper\/old-[0-9a-f]{8}$/);
    assert.deepEqual(namesIn(place), ['r\xff']);
    assertRestored(target);
  });

  it('is finished by its journal after an interruption', async () => {
    const { place, target } = targetIn();
    mkdirSync(target);
    for (const name of ['new', 'old']) writeFileSync(inside(target, name), 'old');
    // Undoing fails too, so the journal stays.
    const stop = failMoves(target);
    await assert.rejects(restoreInPlace(target).finally(stop), { code: 'IO', message: /undoing it failed/ });
    const [finding] = await recoverJournal(target);
    assert.deepEqual([finding?.code, finding?.object], ['restore_rolled_forward', `${place}/r\\xff`]);
    assert.deepEqual(namesIn(place), ['r\xff']);
    assertRestored(target);
  });

  it('creates it where it does not exist', async () => {
    const { place, target } = targetIn();
    await restoreInPlace(target);
    assert.deepEqual(namesIn(place), ['r\xff']);
    assertRestored(target);
  });
});
