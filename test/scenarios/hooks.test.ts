import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { stringify } from 'yaml';
import { Case } from '../support/case.ts';
import { tempFolder, until } from '../support/place.ts';
import { Agent, Running } from '../support/program.ts';

interface Hooks {
  readonly pre_capture?: readonly string[];
  readonly post_capture?: readonly string[];
  readonly timeout?: string;
}

interface World {
  readonly place: string;
  readonly subject: Case;
  /** Starts an agent with these hooks. */
  agent(hooks: Hooks): Agent;
  /** What hooks have written to a file of the place; empty if there is none. */
  written(name: string): string;
}

async function newWorld(t: TestContext, name = 'rag'): Promise<World> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, name), join(place, 'store'));
  mkdirSync(subject.dir);
  writeFileSync(join(subject.dir, 'a'), '0\n');
  const agent = (hooks: Hooks) => {
    const file = join(place, 'config.yaml');
    const graphs = [{ id: 'g', dir: subject.dir, hooks }];
    writeFileSync(file, stringify({ store: subject.store, disk_reserve: 0, graphs }));
    return new Agent(t, ['--config', file], { command: 'agent', cwd: place });
  };
  const written = (file: string) => {
    try {
      return readFileSync(join(place, file), 'utf8');
    } catch {
      return '';
    }
  };
  return { place, subject, agent, written };
}

/** Writes one number to two files for ever, one after the other, and rests between them while it is told to. */
const WRITER = `
i=0
while :; do
  while [ -e pause ]; do touch paused; sleep 0.01; done
  rm -f paused
  i=$((i + 1))
  echo $i > rag/a; sleep 0.02; echo $i > rag/b; sleep 0.02
done`;

function alive(pid: number): boolean {
  try {
    // Of a process that has ended and was not waited for there is still the number.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
  } catch {
    return false;
  }
}

describe('hooks around a capture', { concurrency: 2 }, () => {
  it('pause a constant writer, so that the snapshot is PAUSED and consistent', async (t) => {
    const { place, subject, agent } = await newWorld(t);
    new Running(['sh', '-c', WRITER], { cwd: place }).endWith(t);
    await until('it writes', () => Number(readFileSync(join(subject.dir, 'a'), 'utf8')) > 2);
    const running = agent({
      pre_capture: ['touch pause', 'until [ -e paused ]; do sleep 0.01; done'],
      post_capture: ['rm pause'],
    });
    await running.point(2);
    assert.equal((await running.stop()).code, 0, running.text);
    for (const [i, { snapshotId }] of (await subject.list()).entries()) {
      assert.equal((await subject.show(snapshotId)).snapshot.cutMethod, 'PAUSED');
      const back = join(place, `back${i}`);
      await subject.restore(snapshotId, back);
      assert.equal(readFileSync(join(back, 'a'), 'utf8'), readFileSync(join(back, 'b'), 'utf8'));
    }
  });

  it('receive the graph id and the directory', async (t) => {
    const { subject, agent, written } = await newWorld(t, "it's a\\x5c \u00fc");
    const running = agent({ post_capture: ['echo "$LIGHTKEEPER_GRAPH $LIGHTKEEPER_DIR" > told'] });
    await running.point(1);
    assert.equal((await running.stop()).code, 0, running.text);
    assert.equal(written('told'), `g ${subject.dir}\n`);
  });

  it('that fail only prevent PAUSED, and later ones are skipped', async (t) => {
    const { subject, agent, written } = await newWorld(t);
    const running = agent({
      pre_capture: ['echo no pause today >&2; exit 3', 'echo two >> ran'],
      post_capture: ['echo after >> ran'],
    });
    await running.point(1);
    const { snapshot } = await subject.show('latest');
    assert.equal(snapshot.cutMethod, 'SETTLED');
    const [found, ...more] = snapshot.findings;
    assert.deepEqual([found?.code, more], ['hook_failed', []]);
    assert.match(found?.message ?? '', /ended with 3: no pause today/);
    assert.equal((await running.stop()).code, 0, running.text);
    assert.equal(new Set(written('ran').trim().split('\n')).size, 1);
    assert.match(written('ran'), /^after\n/);
  });

  it('that hang are killed at their deadline with their children', async (t) => {
    const { subject, agent, written } = await newWorld(t);
    const running = agent({ pre_capture: ['sleep 1000 & echo $! > pid; wait'], timeout: '300ms' });
    await running.point(1);
    const { snapshot } = await subject.show('latest');
    assert.deepEqual(
      snapshot.findings.map(({ code }) => code),
      ['hook_failed'],
    );
    assert.match(snapshot.findings[0]?.message ?? '', /took longer than 300 ms/);
    assert.equal((await running.stop()).code, 0, running.text);
    await until('its child is gone', () => !alive(Number(written('pid'))));
  });
});
