import assert from 'node:assert/strict';
import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { CutBlock } from '../../../agent/workers/chunker.ts';
import type { EncodedFrame } from '../../../agent/workers/open-frame.ts';
import { TaskRunner } from '../../../agent/workers/task-runner.ts';
import { WorkerPool } from '../../../agent/workers/worker-pool.ts';
import { Case } from '../../support/case.ts';
import { noise } from '../../support/fill.ts';
import { tempFolder } from '../../support/place.ts';

/** Enough for one thread. */
const JOB_BYTES = 8e6;

/** Just enough for several threads, which rest after their work and are used again. */
const FILE_BYTES = 34e6;

describe('reused worker threads', () => {
  it('carry nothing over from interrupted work', async (t) => {
    const place = await tempFolder(t);
    const path = join(place, 'a');
    writeFileSync(path, noise(1, 1_000_000));
    const frames: EncodedFrame[] = [];
    const settings = { chunkerSeed: 7n, bulk: true, bytes: 1_000_000 };
    const runner = new TaskRunner(settings, {
      onNextBlock: () => {},
      frameBuffer: (length) => Buffer.alloc(length),
      frame: (frame) => frames.push(frame),
      idleMemory: () => [],
    });
    const gather = () => {
      const fd = openSync(path, 'r');
      const cut = {
        op: 'cut-block',
        slot: 0,
        fd,
        position: 0,
        size: 1_000_000,
        previous: undefined,
        expected: -1,
      } as const;
      const { lengths } = runner.run(cut) as CutBlock;
      closeSync(fd);
      runner.run({ op: 'append-units', slot: 0, fresh: new Uint8Array(lengths.length).fill(1), stream: 0 });
      return lengths.length;
    };
    gather();
    assert.equal(runner.reset(settings), true);
    runner.run({ op: 'flush-frames' });
    assert.equal(frames.length, 0);
    const units = gather();
    runner.run({ op: 'flush-frames' });
    assert.deepEqual(
      frames.map(({ lengths }) => lengths.length),
      [units],
    );
    for (const other of [{ chunkerSeed: 8n }, { bulk: false }])
      assert.equal(runner.reset({ ...settings, ...other }), false);
    assert.equal(runner.reset({ ...settings, bytes: 50_000_000 }), false, 'its buffers are too small');
  });

  it('serve captures and restores of several directories at once', async (t) => {
    const place = await tempFolder(t);
    const cases = ['a', 'b', 'c'].map((name) => new Case(join(place, name), join(place, `${name}-store`)));
    for (const [i, { dir }] of cases.entries()) {
      mkdirSync(dir);
      writeFileSync(join(dir, 'x'), noise(i, FILE_BYTES));
    }
    for (let round = 0; round < 2; round++)
      await Promise.all(
        cases.map(async (one, i) => {
          await one.snapshot();
          await one.restore('latest', join(place, `back-${i}-${round}`));
          await one.assertSound();
        }),
      );
  });

  it('start once for jobs one after another, and end with their pool', async (t) => {
    const path = join(await tempFolder(t), 'a');
    let started = 0;
    const count = () => {
      started += 1;
    };
    process.on('worker', count);
    t.after(() => process.off('worker', count));
    const pool = new WorkerPool(7n);
    const runJob = async () => {
      const workers = pool.open(JOB_BYTES, { gentle: true });
      const report = await workers.run({ op: 'verify-pack', reference: { file: path }, packId: '' });
      await workers.close();
      return report.state;
    };
    assert.deepEqual([await runJob(), await runJob(), started], ['missing', 'missing', 1]);
    await pool.close();
    assert.equal(await runJob(), 'missing');
    assert.equal(started, 2, 'a closed pool has no idle threads');
  });
});
