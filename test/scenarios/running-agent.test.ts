import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { Case } from '../support/case.ts';
import { fill, fillGraph, fillMany, noise } from '../support/fill.ts';
import { needing, smallDisk } from '../support/machine.ts';
import { atEnd, tempFolder, until } from '../support/place.ts';
import { Agent, assertRefused, lightkeeper, outcomeText, Running } from '../support/program.ts';
import { assertSameTree, readTree } from '../support/tree.ts';

interface Up {
  readonly place: string;
  readonly subject: Case;
  readonly agent: Agent;
}

async function graphCase(t: TestContext, parent?: string): Promise<{ place: string; subject: Case }> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'data'), join(parent ?? place, 'store'));
  fillGraph(subject.dir);
  return { place, subject };
}

/** An agent that has taken its first point. */
async function running(t: TestContext, parent?: string): Promise<Up> {
  const { place, subject } = await graphCase(t, parent);
  const words = ['--dir', subject.dir, '--store', subject.store];
  const agent = new Agent(t, parent === undefined ? words : [...words, '--disk-reserve', '0']);
  await agent.point(1);
  return { place, subject, agent };
}

/** What the newest point holds is what the directory holds. */
async function assertCaptured({ place, subject }: Omit<Up, 'agent'>, name = 'back'): Promise<void> {
  await subject.restore('latest', join(place, name));
  assertSameTree(readTree(subject.dir), join(place, name));
  await subject.assertSound();
}

/** How often something is said. */
function count(text: string, what: RegExp): number {
  return [...text.matchAll(new RegExp(what, 'g'))].length;
}

describe('a running agent', { concurrency: 5 }, () => {
  describe('the directory of a running agent', { concurrency: 2 }, () => {
    it('may be removed and brought back, with a message', async (t) => {
      const up = await running(t);
      const { place, subject, agent } = up;
      renameSync(subject.dir, join(place, 'away'));
      await agent.says(/error: Cannot read .*: it is not there\nhint: check --dir/);
      await new Promise((resolve) => setTimeout(resolve, 2500));
      assert.equal(count(agent.stderr, /it is not there/), 1, agent.stderr);
      renameSync(join(place, 'away'), subject.dir);
      fillGraph(subject.dir, 2);
      await agent.point(2);
      assert.equal((await agent.stop()).code, 0);
      await assertCaptured(up);
    });

    it('with too many names to watch is scanned, with one message', async (t) => {
      const { place, subject } = await graphCase(t);
      fillMany(subject.dir, 2100);
      const agent = new Agent(t, ['--dir', subject.dir, '--store', subject.store]);
      // It is said after the first capture, at the first scan that finds nothing changed.
      await agent.says(/warning: changes are found by scans alone: it has more than 2000 names/, 100_000);
      await agent.point(1);
      writeFileSync(join(subject.dir, 'f0/n1'), 'changed');
      // Captures start five times as far apart as the first one took, which is long where the machine is busy.
      await agent.point(2, 100_000);
      assert.equal(count(agent.text, /by scans alone/), 1, agent.text);
      assert.equal((await agent.stop()).code, 0);
      await assertCaptured({ place, subject });
    });

    it('with an excluded busy file is still captured on other changes', async (t) => {
      const { place, subject } = await graphCase(t);
      const log = join(subject.dir, 'server.log');
      const writing = setInterval(() => writeFileSync(log, String(performance.now())), 20);
      atEnd(t, () => clearInterval(writing));
      const words = ['--dir', subject.dir, '--store', subject.store, '--exclude', 'server.log'];
      const agent = new Agent(t, words);
      await agent.point(1);
      fillGraph(subject.dir, 2);
      await agent.point(2);
      clearInterval(writing);
      assert.equal((await agent.stop()).code, 0);
      rmSync(log);
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(readTree(subject.dir), join(place, 'back'));
    });

    it('is read at low priority if it is large', async (t) => {
      const { place, subject } = await graphCase(t);
      fill(subject.dir, { large: noise('large', 10_000_000) });
      const agent = new Agent(t, ['--dir', subject.dir, '--store', subject.store]);
      await agent.point(1);
      // Threads rest for a while after their work.
      const nice = readdirSync(`/proc/${agent.pid}/task`).map((thread) => {
        const stat = readFileSync(`/proc/${agent.pid}/task/${thread}/stat`, 'latin1');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16]);
      });
      assert.equal(nice.includes(19), true, `${nice}`);
      assert.equal(nice[0], 0, 'the agent itself answers as before');
      assert.equal((await agent.stop()).code, 0);
      await assertCaptured({ place, subject });
    });

    it('may be missing when the agent stops', async (t) => {
      const { place, subject, agent } = await running(t);
      const wanted = readTree(subject.dir);
      rmSync(subject.dir, { recursive: true });
      const ended = await agent.stop();
      assert.equal(ended.code, 0, outcomeText(ended));
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(wanted, join(place, 'back'));
    });

    it('may become a symlink to another disk', async (t) => {
      const up = await running(t);
      const { place, subject, agent } = up;
      renameSync(subject.dir, join(place, 'moved'));
      symlinkSync(join(place, 'moved'), subject.dir);
      fillGraph(subject.dir, 2);
      await agent.point(2);
      assert.equal((await agent.stop()).code, 0);
      assert.equal(agent.stderr, '');
      await assertCaptured(up);
    });

    it('is not captured when it becomes a file or a bad symlink', async (t) => {
      const { place, subject, agent } = await running(t);
      const wanted = readTree(subject.dir);
      renameSync(subject.dir, join(place, 'away'));
      writeFileSync(subject.dir, 'a file');
      await agent.says(/it is not a directory/);
      rmSync(subject.dir);
      symlinkSync(subject.store, subject.dir);
      await agent.says(/it is the store/);
      rmSync(subject.dir);
      symlinkSync('nowhere', subject.dir);
      await agent.says(/it is not there/);
      const ended = await agent.stop();
      assert.equal(ended.code, 0, outcomeText(ended));
      assert.equal((await subject.list()).length, 1);
      await subject.restore('latest', join(place, 'back'));
      assertSameTree(wanted, join(place, 'back'));
    });

    it('gives a snapshot when emptied, and the one before is retained', async (t) => {
      const { place, subject, agent } = await running(t);
      const wanted = readTree(subject.dir);
      const [first = ''] = agent.points;
      for (const name of readdirSync(subject.dir)) rmSync(join(subject.dir, name), { recursive: true });
      await agent.point(2);
      assert.equal((await agent.stop()).code, 0);
      await subject.restore(first, join(place, 'first'));
      assertSameTree(wanted, join(place, 'first'));
      await subject.restore('latest', join(place, 'back'));
      assert.equal(readTree(join(place, 'back')).size, 0);
    });
  });

  describe('a stopped agent', { concurrency: 2 }, () => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      it(`captures the last state on ${signal}`, async (t) => {
        const up = await running(t);
        fillGraph(up.subject.dir, 2);
        const ended = await up.agent.stop(signal);
        assert.equal(ended.code, 0, outcomeText(ended));
        assert.ok(ended.tookMs < 5000, `${ended.tookMs} ms`);
        assert.match(ended.stdout, /stopping.*\n(?:.*\n)*stopped\n$/);
        await assertCaptured(up);
      });
    }

    it('ends well in the middle of its first capture', async (t) => {
      const { place, subject } = await graphCase(t);
      for (let i = 0; i < 6; i++) fill(subject.dir, { [`large${i}`]: noise(i, 25_000_000) });
      const agent = new Agent(t, ['--dir', subject.dir, '--store', subject.store]);
      const tmp = join(subject.store, 'tmp');
      await until('it reads', () => existsSync(tmp) && readdirSync(tmp).length > 0);
      const ended = await agent.stop();
      assert.equal(ended.code, 0, outcomeText(ended));
      assert.ok(ended.tookMs < 20_000, `${ended.tookMs} ms`);
      await assertCaptured({ place, subject });
    });

    it('ends within seconds beside a constant writer', async (t) => {
      const { subject } = await graphCase(t);
      const script = `
      let n = 0;
      setInterval(() => require('node:fs').writeFileSync(${JSON.stringify(join(subject.dir, 'busy'))}, String(n++)), 40);`;
      new Running([process.execPath, '-e', script]).endWith(t);
      await until('it writes', () => readTree(subject.dir).has('busy'));
      const agent = new Agent(t, ['--dir', subject.dir, '--store', subject.store]);
      await agent.says(/protecting/);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const ended = await agent.stop();
      assert.equal(ended.code, 0, outcomeText(ended));
      assert.ok(ended.tookMs < 10_000, `${ended.tookMs} ms`);
      assert.ok((await subject.list()).length >= 1);
      await subject.assertSound();
    });

    it('ends at once before it has begun', async (t) => {
      const { subject } = await graphCase(t);
      const agent = new Agent(t, ['--dir', subject.dir, '--store', subject.store]);
      await new Promise((resolve) => setTimeout(resolve, 120));
      const ended = await agent.stop();
      // Before its handlers are there, a signal just ends it.
      assert.ok(ended.code === 0 || ended.code === 130 || ended.signal === 'SIGTERM', outcomeText(ended));
      assert.equal((await subject.snapshot()).cutMethod, 'SETTLED');
      await subject.assertSound();
    });
  });

  describe('a halted agent', () => {
    it('is named by a command that needs its store and times out', async (t) => {
      const { subject, agent } = await running(t);
      agent.kill('SIGSTOP');
      const ended = await subject.run(['list']);
      agent.kill('SIGCONT');
      const error = new RegExp(`process ${agent.pid} on .* does not respond`);
      assertRefused(ended, { code: 4, error, hint: new RegExp(`process ${agent.pid}`) });
      assert.ok(ended.ms < 20_000);
      assert.equal((await agent.stop()).code, 0);
    });
  });

  describe('an agent with wrong arguments', { concurrency: 2 }, () => {
    it('says what is wrong and how to correct it, and writes nothing', async (t) => {
      const { place, subject } = await graphCase(t);
      const ok = ['up', '--dir', subject.dir, '--store', subject.store];
      const names = readdirSync(place);
      for (const [words, code, error, hint] of [
        [['up'], 2, /no directory/, /--dir/],
        [['up', '--dir', ''], 2, /./, /./],
        [[...ok, '--http', 'nonsense'], 2, /host:port/, /127\.0\.0\.1/],
        [[...ok, '--http', '127.0.0.1:99999'], 2, /host:port/, /127\.0\.0\.1/],
        [[...ok, '--http', '0.0.0.0:9701'], 2, /loopback/, /127\.0\.0\.1/],
        [[...ok, '--graph', 'not/an id'], 2, /graph id/, /letters/],
        [[...ok, '--disk-reserve', 'much'], 2, /"much" as a size/, /1GiB/],
        [[...ok, '--disk-reserve', '-1'], 2, /./, /./],
        [[...ok, '--nonsense'], 2, /nonsense/, /--help/],
        [[...ok, 'more', 'words'], 2, /argument/, /--help/],
      ] as const) {
        const ended = await lightkeeper(words);
        assertRefused(ended, { code, error, hint: /./ });
        // Where several things may be wrong, each tells the mend itself.
        assert.match(ended.stderr, hint);
      }
      assert.deepEqual(readdirSync(place), names);
    });

    it('is refused a port in use, and picks another if none was given', async (t) => {
      const { subject } = await graphCase(t);
      const server = createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      atEnd(t, () => server.close());
      const address = server.address();
      const port = typeof address === 'object' && address !== null ? address.port : 0;
      const words = ['--dir', subject.dir, '--store', subject.store];
      const ended = await lightkeeper(['up', ...words, '--http', `127.0.0.1:${port}`]);
      assertRefused(ended, { code: 4, error: /something else does/, hint: /--http/ });
      // Whoever has the default port, this test or another program: it is taken.
      const standard = createServer().listen(9701, '127.0.0.1');
      await Promise.race([once(standard, 'listening'), once(standard, 'error')]).catch(() => {});
      atEnd(t, () => standard.close());
      const agent = new Agent(t, [...words, '--default-http']);
      await agent.point(1);
      const [, found = ''] = /http:\/\/127\.0\.0\.1:(\d+)\/metrics/.exec(agent.stdout) ?? [];
      assert.notEqual(found, '9701');
      assert.equal((await fetch(`http://127.0.0.1:${found}/readiness`)).status, 200);
      assert.equal((await agent.stop()).code, 0);
    });

    it('is refused a read-only or full disk', needing('mount'), async (t) => {
      const disk = await smallDisk(t, 500_000);
      const { subject } = await graphCase(t, disk.path);
      const words = ['up', '--dir', subject.dir, '--store', subject.store, '--http', '127.0.0.1:0'];
      await disk.remount('ro');
      assertRefused(await lightkeeper(words), { code: 1, error: /EROFS|Read-only/, hint: /read-only/ });
      await disk.remount('rw');
      writeFileSync(join(disk.path, 'filler'), Buffer.alloc(500_000 - 4096));
      assertRefused(await lightkeeper(words), { code: 1, error: /ENOSPC|No space/, hint: /free space/ });
    });
  });

  describe("an agent whose store's disk is full", { concurrency: 2, ...needing('mount') }, () => {
    it('continues, reports it once and recovers when there is space', async (t) => {
      const disk = await smallDisk(t, 4_000_000);
      const up = await running(t, disk.path);
      const { subject, agent } = up;
      fill(subject.dir, { large: noise('large', 5_000_000) });
      await agent.says(/error: Cannot .*ENOSPC.*\nhint: free space/);
      const [, port = ''] = /:(\d+)\/metrics/.exec(agent.stdout) ?? [];
      await new Promise((resolve) => setTimeout(resolve, 6500));
      assert.equal(count(agent.stderr, /^error:/m), 1, agent.stderr);
      // Each further attempt writes until the disk is full again, and removes that.
      await until('nothing half is left', () => readdirSync(join(subject.store, 'tmp')).length === 0);
      const ready = await fetch(`http://127.0.0.1:${port}/readiness`);
      assert.equal(ready.status, 503);
      assert.match(await ready.text(), /free space/);
      // What is there can be had meanwhile.
      assert.equal((await subject.list()).length, 1);
      await disk.remount('size=32000000');
      await agent.point(2, 40_000);
      fillGraph(subject.dir, 2);
      await agent.point(3);
      assert.equal((await fetch(`http://127.0.0.1:${port}/readiness`)).status, 200);
      // Nothing of that is lost with the process.
      await agent.stop('SIGKILL');
      assert.equal(await subject.assertSound(), 3);
      assert.doesNotMatch(agent.stderr, /Warning|garbage/);
      await assertCaptured(up);
    });

    it('loses nothing of a directory at rest', async (t) => {
      const disk = await smallDisk(t, 4_000_000);
      const up = await running(t, disk.path);
      const { subject, agent } = up;
      fillGraph(subject.dir, 2);
      await agent.point(2);
      const filler = join(disk.path, 'filler');
      let size = 3_500_000;
      for (let step = size; step >= 1; step = Math.floor(step / 2)) {
        try {
          writeFileSync(filler, Buffer.alloc(size + step));
          size += step;
        } catch {
          rmSync(filler);
        }
      }
      writeFileSync(filler, Buffer.alloc(size));
      // It confirms every five seconds that nothing has changed, which is a write.
      await new Promise((resolve) => setTimeout(resolve, 8000));
      assert.ok(count(agent.stderr, /^error:/m) <= 1, agent.stderr);
      rmSync(filler);
      fillGraph(subject.dir, 3);
      await agent.point(3);
      fillGraph(subject.dir, 4);
      await agent.point(4);
      await agent.stop('SIGKILL');
      assert.equal((await subject.list()).length, 4);
      assert.deepEqual(
        (await subject.list()).map(({ position }) => position.sequence),
        ['4', '3', '2', '1'],
      );
      await assertCaptured(up);
    });
  });
});
