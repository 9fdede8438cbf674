import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { Case } from '../support/case.ts';
import { fill, fillGraph, noise } from '../support/fill.ts';
import { tempFolder, until } from '../support/place.ts';
import { Agent, assertRefused, jsonOf, lightkeeper } from '../support/program.ts';
import { assertSameTree, readTree } from '../support/tree.ts';

interface Held {
  readonly place: string;
  readonly subject: Case;
  readonly agent: Agent;
  readonly socket: string;
}

/** An agent that guards a directory and so holds its store. */
async function held(t: TestContext): Promise<Held> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'data'), join(place, 'store'));
  fillGraph(subject.dir);
  const agent = new Agent(t, ['--dir', subject.dir, '--store', subject.store]);
  await agent.point(1);
  const [, socket = ''] = /socket: (\S+)/.exec(agent.stdout) ?? [];
  return { place, subject, agent, socket };
}

describe('the owner of a store', { concurrency: 2 }, () => {
  describe('a store that an agent owns', { concurrency: 6 }, () => {
    it('is refused to another agent, with the name of the owner', async (t) => {
      const { place, subject, agent } = await held(t);
      fill(join(place, 'other'), { file: 'x' });
      for (const dir of [subject.dir, join(place, 'other')]) {
        const second = new Agent(t, ['--dir', dir, '--store', subject.store]);
        const ended = await second.ended;
        assertRefused(ended, {
          code: 4,
          error: new RegExp(`Cannot open the store ".*": process ${agent.pid} on \\S+ has it`),
          hint: /stop (?:it|that process)/,
        });
      }
      // The first one never noticed.
      fillGraph(subject.dir, 2);
      await agent.point(2);
      assert.equal((await agent.stop()).code, 0);
      await subject.assertSound();
    });

    it('serves every command as if it were free', async (t) => {
      const { place, subject, agent, socket } = await held(t);
      fill(join(place, 'other'), { file: 'x' });
      const other = new Case(join(place, 'other'), subject.store);
      const taken = await other.snapshot({ flags: ['--tag', 'by=hand'] });
      assert.equal((await other.snapshot()).unchanged, true);
      fill(join(place, 'other'), { file: 'y' });
      await other.snapshot();
      const reads: readonly string[][] = [
        ['list'],
        ['show', taken.snapshotId],
        ['stats'],
        ['verify', '--level', 'bytes'],
        ['restore', '--snapshot', 'latest', '--graph', 'data', '--to', join(place, 'dry'), '--dry-run'],
      ];
      await subject.restore('latest', join(place, 'back'), { flags: ['--graph', 'data'] });
      assertSameTree(readTree(subject.dir), join(place, 'back'));
      await jsonOf(['pin', taken.snapshotId, '--store', subject.store]);
      await jsonOf(['tag', taken.snapshotId, 'more=1', '--store', subject.store]);
      const plain = (answer: unknown): unknown =>
        JSON.parse(JSON.stringify(answer, (key, value) => (key === 'durationMs' ? undefined : value)));
      const ask = () => Promise.all(reads.map((words) => jsonOf([...words, '--store', subject.store])));
      const asked = plain(await ask());
      const refused = await subject.run(['delete', taken.snapshotId]);
      assertRefused(refused, { code: 4, error: /it is pinned/, hint: /unpin/ });
      const wrong = await subject.run(['show', 'ffffffff']);
      assertRefused(wrong, { code: 1, error: /Cannot find the snapshot/, hint: /list/ });
      assert.equal((await agent.stop()).code, 0);
      const free: unknown[] = [];
      for (const words of reads) free.push(await jsonOf([...words, '--store', subject.store]));
      assert.deepEqual(asked, plain(free));
      assert.ok(socket.startsWith('/'));
    });

    it('works after the agent was killed', async (t) => {
      const { place, subject, agent } = await held(t);
      fill(subject.dir, { large: noise('large', 40_000_000) });
      await until('a capture is under way', () => readTree(join(subject.store, 'tmp')).size > 0);
      await agent.stop('SIGKILL');
      const { unchanged } = await subject.snapshot();
      assert.equal(unchanged, false);
      await subject.assertSound();
      assert.equal(readTree(join(subject.store, 'tmp')).size, 0);
      const next = new Agent(t, ['--dir', subject.dir, '--store', subject.store]);
      await next.says(/ snapshot [0-9a-f]{12}:| unchanged since /);
      // Now over the socket of the new one, where that of the killed one was.
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(subject.dir), join(place, 'back'));
      assert.equal((await next.stop('SIGINT')).code, 0);
    });

    it('is refused with the name of the owner if its socket is unreachable', async (t) => {
      const { subject, agent, socket } = await held(t);
      rmSync(socket);
      for (const words of [['list'], ['verify'], subject.snapshotWords()]) {
        const ended = await subject.run(words);
        assertRefused(ended, {
          code: 4,
          error: new RegExp(`process ${agent.pid} on`),
          hint: /socket.*cannot be reached/,
        });
      }
      assert.equal((await agent.stop()).code, 0);
      await subject.assertSound();
    });

    it('gives an error if the owner ends during a call', async (t) => {
      const { subject, agent } = await held(t);
      fill(subject.dir, { large: noise('large', 40_000_000) });
      await agent.point(2);
      const running = subject.run(['verify', '--level', 'bytes']);
      setTimeout(() => agent.kill('SIGKILL'), 450);
      const ended = await running;
      // It may have been killed before or after the call, too.
      if (ended.code === 1) {
        assertRefused(ended, { code: 1, error: new RegExp(`process ${agent.pid}.* ended`), hint: /again/ });
      } else if (ended.code === 4) assertRefused(ended, { code: 4, error: /process/, hint: /./ });
      else assert.equal(ended.code, 0);
      await subject.assertSound();
    });
  });

  describe('a store that several commands need at once', { concurrency: 6 }, () => {
    it('is opened by one of them; the others are refused and harm nothing', async (t) => {
      const place = await tempFolder(t);
      const store = join(place, 'store');
      const cases = [1, 2, 3, 4].map((n) => new Case(join(place, `data${n}`), store));
      for (const [n, { dir }] of cases.entries()) fillGraph(dir, n);
      const all = await Promise.all(cases.map((one) => one.run(one.snapshotWords())));
      const done = all.filter(({ code }) => code === 0).length;
      for (const ended of all)
        if (ended.code !== 0)
          assertRefused(ended, { code: 4, error: /has it/, hint: /stop (?:it|that process)/ });
      assert.ok(done >= 1);
      const [first] = cases;
      assert.equal(await first?.assertSound(), done);
    });

    it('is free if only the record of an owner is left', async (t) => {
      const place = await tempFolder(t);
      const subject = new Case(join(place, 'data'), join(place, 'store'));
      fillGraph(subject.dir);
      await subject.snapshot();
      const record = join(subject.store, 'owner/holder.json');
      for (const left of [
        JSON.stringify({ agent: 'a', host: 'h', pid: 1, socket: join(place, 'no.sock') }),
        JSON.stringify({ agent: 'a', host: 'h', pid: process.pid, socket: '' }),
        '',
        'null',
      ]) {
        writeFileSync(record, left);
        const ended = await lightkeeper(['list', '--store', subject.store]);
        assert.equal(ended.code, 0, left);
      }
      writeFileSync(join(subject.store, 'owner/CURRENT'), 'garbage');
      assert.equal((await subject.snapshot()).unchanged, true);
    });
  });
});
