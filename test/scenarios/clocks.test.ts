import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { lstatSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { Case } from '../support/case.ts';
import { fill, fillGraph } from '../support/fill.ts';
import { clockShifted, needing } from '../support/machine.ts';
import { tempFolder } from '../support/place.ts';
import { Agent, assertRefused, jsonOf } from '../support/program.ts';
import { assertSameTree, readTree } from '../support/tree.ts';

const DAY = 86_400;

async function graphCase(t: TestContext): Promise<{ place: string; subject: Case }> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'data'), join(place, 'store'));
  fillGraph(subject.dir);
  return { place, subject };
}

describe('wrong clocks', { concurrency: 2 }, () => {
  describe('a wall clock', { concurrency: 2, ...needing('faketime') }, () => {
    it('that is set back does not reorder the history or delay a capture', async (t) => {
      const { place, subject } = await graphCase(t);
      const first = await subject.snapshot();
      fillGraph(subject.dir, 2);
      // All files have changed in the future, as this process sees it.
      const env = clockShifted(-DAY);
      const second = await subject.snapshot({ env, flags: ['--quiet', '200ms'] });
      assert.equal(second.cutMethod, 'SETTLED');
      assert.equal(Date.parse(second.capturedAt), Date.parse(first.capturedAt) + 1);
      fillGraph(subject.dir, 3);
      const third = await subject.snapshot({ env });
      assert.equal(Date.parse(third.capturedAt), Date.parse(first.capturedAt) + 2);
      assert.equal((await subject.snapshot({ env })).unchanged, true);
      // The clock is right again, and time goes on.
      fillGraph(subject.dir, 4);
      const fourth = await subject.snapshot();
      assert.ok(Date.parse(fourth.capturedAt) > Date.parse(third.capturedAt) + 100);
      const order = (await subject.list()).map(({ snapshotId }) => snapshotId);
      const taken = [fourth, third, second, first];
      assert.deepEqual(
        order,
        taken.map(({ snapshotId }) => snapshotId),
      );
      await subject.restore('latest', join(place, 'back'), { env });
      assertSameTree(readTree(subject.dir), join(place, 'back'));
      assert.equal(await subject.assertSound({ env }), 4);
    });

    it('that is set back stops retention by age', async (t) => {
      const { subject } = await graphCase(t);
      for (const version of [1, 2, 3]) {
        fillGraph(subject.dir, version);
        await subject.snapshot();
      }
      const env = clockShifted(-DAY);
      for (const words of [
        ['prune', '--keep-last', '1'],
        ['prune', '--keep-within', '1h', '--graph', 'data'],
        ['prune', '--keep-last', '1', '--dry-run'],
      ]) {
        const ended = await subject.run(words, { env });
        assertRefused(ended, {
          code: 4,
          error: /the clock says 20..-.* the newest snapshot 20/,
          hint: /clock/,
        });
      }
      assert.equal((await subject.list()).length, 3);
      // A few minutes are what clocks may be apart.
      const near = await subject.run(['prune', '--keep-last', '2'], { env: clockShifted(-120) });
      assert.equal(near.code, 0);
      assert.equal((await subject.list()).length, 2);
      await subject.assertSound();
    });

    it('that jumps years ahead and back loses no snapshot', async (t) => {
      const { subject } = await graphCase(t);
      await subject.snapshot();
      fillGraph(subject.dir, 2);
      const future = await subject.snapshot({ env: clockShifted(10 * 365 * DAY) });
      assert.ok(Date.parse(future.capturedAt) > Date.now() + 9 * 365 * DAY * 1000);
      fillGraph(subject.dir, 3);
      const now = await subject.snapshot();
      assert.equal(Date.parse(now.capturedAt), Date.parse(future.capturedAt) + 1);
      assertRefused(await subject.run(['prune', '--keep-last', '1']), {
        code: 4,
        error: /clock/,
        hint: /clock/,
      });
      assert.equal(await subject.assertSound(), 3);
    });

    it('that is set back under a running agent does not stop it', async (t) => {
      const { place, subject } = await graphCase(t);
      await subject.snapshot();
      const agent = new Agent(t, ['--dir', subject.dir, '--store', subject.store], {
        env: clockShifted(-DAY),
      });
      await agent.says(/unchanged since|protecting/);
      fillGraph(subject.dir, 2);
      await agent.says(/ snapshot [0-9a-f]{12}:/);
      fillGraph(subject.dir, 3);
      await agent.point(agent.points.length + 1);
      assert.equal((await agent.stop()).code, 0);
      assert.equal(agent.stderr, '');
      const times = (await subject.list()).map(({ capturedAt }) => Date.parse(capturedAt));
      assert.deepEqual(
        times,
        [...times].sort((a, b) => b - a),
      );
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(subject.dir), join(place, 'back'));
    });
  });

  describe('times of files', { concurrency: 2 }, () => {
    it('in the future do not delay a capture', async (t) => {
      const { place, subject } = await graphCase(t);
      const future = Date.now() / 1000 + 400 * DAY;
      for (const path of readTree(subject.dir).keys()) utimesSync(join(subject.dir, path), future, future);
      const { cutMethod } = await subject.snapshot();
      assert.equal(cutMethod, 'SETTLED');
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(subject.dir), join(place, 'back'));
    });

    it('that were set back hide no change', async (t) => {
      const { place, subject } = await graphCase(t);
      const path = join(subject.dir, 'graph.graphml');
      await subject.snapshot();
      const { atime, mtime, size } = lstatSync(path);
      fill(subject.dir, { 'graph.graphml': '<graphml>9</graphml>' });
      utimesSync(path, atime, mtime);
      assert.equal(lstatSync(path).size, size);
      execFileSync('touch', ['-d', mtime.toISOString(), path]);
      assert.equal((await subject.snapshot()).unchanged, false);
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(subject.dir), join(place, 'back'));
      // And a change of nothing but the change time is none.
      execFileSync('chmod', ['u+rw', path]);
      assert.equal((await subject.snapshot()).unchanged, true);
      assert.equal(
        (await jsonOf<{ snapshots: unknown[] }>(['list', '--store', subject.store])).snapshots.length,
        2,
      );
    });
  });
});
