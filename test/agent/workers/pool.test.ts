import assert from 'node:assert/strict';
import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { CutBlock } from '../../../agent/workers/chunker.ts';
import { type OutFrame, Work } from '../../../agent/workers/tasks.ts';
import { Case } from '../../support/case.ts';
import { noise } from '../../support/fill.ts';
import { tempFolder } from '../../support/place.ts';

/** Just enough for several threads, which rest after their work and are used again. */
const FILE_BYTES = 34e6;

describe('reused worker threads', () => {
  it('carry nothing over from interrupted work', async (t) => {
    const place = await tempFolder(t);
    const path = join(place, 'a');
    writeFileSync(path, noise(1, 1_000_000));
    const frames: OutFrame[] = [];
    const settings = { chunkerSeed: 7n, bulk: true, bytes: 1_000_000 };
    const work = new Work(settings, {
      early: () => {},
      frameBuffer: (length) => Buffer.alloc(length),
      frame: (frame) => frames.push(frame),
      rooms: () => [],
    });
    const gather = () => {
      const fd = openSync(path, 'r');
      const cut = {
        op: 'cut',
        slot: 0,
        fd,
        position: 0,
        size: 1_000_000,
        hints: undefined,
        hint: 0,
      } as const;
      const { lengths } = work.run(cut) as CutBlock;
      closeSync(fd);
      work.run({ op: 'keep', slot: 0, fresh: new Uint8Array(lengths.length).fill(1), stream: 0 });
      return lengths.length;
    };
    gather();
    assert.equal(work.renew(settings), true);
    work.run({ op: 'flush' });
    assert.equal(frames.length, 0);
    const units = gather();
    work.run({ op: 'flush' });
    assert.deepEqual(
      frames.map(({ lengths }) => lengths.length),
      [units],
    );
    for (const other of [{ chunkerSeed: 8n }, { bulk: false }])
      assert.equal(work.renew({ ...settings, ...other }), false);
    assert.equal(work.renew({ ...settings, bytes: 50_000_000 }), false, 'its buffers are too small');
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
});
