import assert from 'node:assert/strict';
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { FrameReceiver } from '../../agent/store/receive/frame-receiver.ts';
import { Case } from '../support/case.ts';
import { fillGraph } from '../support/fill.ts';
import { snapshotsOf, transfer, withOpen } from '../support/peer-stores.ts';
import { tempFolder } from '../support/place.ts';
import { lightkeeper } from '../support/program.ts';

const GRAPH = 'data';

/** Copies the snapshots of one store that another one lacks. */
async function follow(from: string, to: string): Promise<void> {
  await withOpen(from, (source) =>
    withOpen(to, async (target) => {
      const receiver = await FrameReceiver.open(target, { reserveBytes: 0n });
      for (const snapshot of await snapshotsOf(source)) await transfer(source, receiver, snapshot);
      await receiver.close();
    }),
  );
}

/** A graph with two snapshots, and the store of a follower, whose directory is a copy. */
async function followed(t: TestContext): Promise<{ primary: Case; follower: Case }> {
  const place = await tempFolder(t);
  const primary = new Case(join(place, 'one', GRAPH), join(place, 'one-store'));
  for (const version of [1, 2]) {
    fillGraph(primary.dir, version);
    await primary.snapshot();
  }
  const follower = new Case(join(place, 'two', GRAPH), join(place, 'two-store'));
  await follow(primary.store, follower.store);
  cpSync(primary.dir, follower.dir, { recursive: true });
  return { primary, follower };
}

describe('a followed graph', () => {
  it('is not captured without --take-over', async (t) => {
    const { follower } = await followed(t);
    for (const more of [[], ['--graph', GRAPH]]) {
      const refused = await follower.run(follower.snapshotWords(...more));
      assert.equal(refused.code, 4, refused.stderr);
      assert.match(refused.stderr, /the store follows that graph.*hint: .*--take-over/s);
    }
    const up = await lightkeeper([
      'up',
      '--dir',
      follower.dir,
      '--store',
      follower.store,
      '--http',
      '127.0.0.1:0',
    ]);
    assert.equal(up.code, 4, up.stderr);
    assert.match(up.stderr, /--take-over/s);
    assert.equal((await follower.list()).length, 2);
  });

  it('goes on in a new epoch with --take-over, which only the first capture needs', async (t) => {
    const { primary, follower } = await followed(t);
    const [old] = await primary.list();
    const taken = await follower.snapshot({ flags: ['--take-over'] });
    assert.equal(taken.unchanged, false);
    assert.equal(taken.parentId, old?.snapshotId);
    assert.equal(
      taken.findings.some(({ code }) => code === 'graph_moved'),
      true,
    );
    const { epoch, sequence, mintId } = taken.position;
    assert.deepEqual([epoch, sequence], ['2', '3']);
    assert.notEqual(mintId, old?.position.mintId);
    writeFileSync(join(follower.dir, 'later'), 'x');
    const next = await follower.snapshot({});
    const { position } = next;
    assert.deepEqual([position.epoch, position.mintId, position.sequence], ['2', mintId, '4']);
    assert.equal(next.parentId, taken.snapshotId);
    rmSync(join(follower.store, 'index'), { recursive: true });
    assert.equal(await follower.assertSound(), 4);
    const again = await follower.snapshot({ flags: ['--take-over'] });
    assert.equal(again.unchanged, true, 'the flag may stay');
    // The first machine comes back and follows: its graph is not its own any more.
    await follow(follower.store, primary.store);
    const refused = await primary.run(primary.snapshotWords());
    assert.equal(refused.code, 4, refused.stderr);
    const back = await primary.snapshot({ flags: ['--take-over'] });
    assert.equal(back.position.epoch, '3');
  });
});
