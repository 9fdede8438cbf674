import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { transformSync } from 'esbuild';
import { briefly, Case, type Snapshot } from '../support/case.ts';
import { fill, fillGraph, noise } from '../support/fill.ts';
import { clockShifted, needing } from '../support/machine.ts';
import { tempFolder } from '../support/place.ts';
import {
  assertRefused,
  killGroup,
  lightkeeper,
  outcomeText,
  Running,
  type StartOptions,
} from '../support/program.ts';
import { assertSameTree, type Fact, readTree } from '../support/tree.ts';
import { isBlocksInstant, isLogInstant, isWholeState } from '../support/writer.ts';

/** The writer as a program of its own, which starts ten times faster than from its source. */
const WRITER = transformSync(readFileSync(join(import.meta.dirname, '../support/writer.ts')), {
  loader: 'ts',
}).code;

/** Checks of the files that a writer changes: whether their bytes were ever there at one instant. */
const INSTANTS: Readonly<Record<string, (bytes: Buffer) => boolean>> = {
  whole: isWholeState,
  blocks: isBlocksInstant,
  log: isLogInstant,
};

/** Starts a process that changes the directory until the answered function is called, or the test ends. */
async function writing(t: TestContext, kind: string, dir: string, pauseMs = 0): Promise<() => void> {
  const program = join(await tempFolder(t), 'writer.mjs');
  writeFileSync(program, WRITER);
  const writer = new Running([process.execPath, program, kind, dir, String(pauseMs)]).endWith(t);
  await writer.says(/./);
  return () => killGroup(writer.child);
}

interface Begun {
  readonly place: string;
  readonly subject: Case;
  /** A snapshot from before anything moved, and what is in it. */
  readonly first: Snapshot;
  readonly before: ReadonlyMap<string, Fact>;
}

async function begun(t: TestContext): Promise<Begun> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'data'), join(place, 'store'));
  fillGraph(subject.dir);
  const first = await subject.snapshot();
  return { place, subject, first, before: readTree(subject.dir) };
}

/** Whatever happened meanwhile: the store holds, and the first snapshot gives back what it was taken of. */
async function assertUnharmed({ place, subject, first, before }: Begun): Promise<void> {
  await subject.assertSound();
  await subject.restore(first.snapshotId, join(place, 'first'));
  assertSameTree(before, join(place, 'first'));
}

/** A snapshot while something writes: it ends with 0 as SETTLED or with 3 as TORN, and says which. */
async function snapshotAnyway(subject: Case, flags: string[], options: StartOptions = {}): Promise<Snapshot> {
  const words = ['snapshot', '--dir', subject.dir, '--store', subject.store, '--json', ...flags];
  const ended = await lightkeeper(words, options);
  assert.ok(ended.code === 0 || ended.code === 3, outcomeText(ended));
  const snapshot = JSON.parse(ended.stdout) as Snapshot;
  const torn = ended.code === 3;
  assert.equal(snapshot.cutMethod, torn ? 'CHANGED' : 'SETTLED');
  assert.equal(snapshot.grade === 'TORN', torn);
  assert.equal(snapshot.position.sequence === '0', torn);
  const codes = snapshot.findings.map(({ code }) => code);
  const says = codes.includes('changed_while_read') || codes.includes('not_settled');
  assert.equal(says, torn, codes.join());
  return snapshot;
}

/** Asserts that each file of a restored directory has bytes that it had at some instant. */
function assertInstants(dir: string, names: readonly string[] = Object.keys(INSTANTS)): void {
  const there = readTree(dir);
  for (const name of names) {
    if (!there.has(name)) continue;
    assert.ok(INSTANTS[name]?.(readFileSync(join(dir, name))), `${join(dir, name)} is no state of its own`);
  }
}

describe('files that change during a capture', { concurrency: 2 }, () => {
  describe('a directory that changes while it is read', { concurrency: 2 }, () => {
    it('in every way at once gives a torn side snapshot, which harms nothing', async (t) => {
      const all = await begun(t);
      const { place, subject, first } = all;
      const stop = await writing(t, 'storm', subject.dir);
      const torn = await snapshotAnyway(subject, ['--settle-timeout', '700ms']);
      assert.equal(torn.cutMethod, 'CHANGED');
      const hurried = await snapshotAnyway(subject, ['--quiet', '0']);
      stop();
      if (hurried.cutMethod === 'CHANGED') {
        assert.equal(
          (await subject.list()).find(({ grade }) => grade !== 'TORN')?.snapshotId,
          first.snapshotId,
        );
      }
      const refused = await subject.run([
        'restore',
        '--snapshot',
        torn.snapshotId,
        '--to',
        join(place, 'torn'),
      ]);
      assertRefused(refused, { code: 4, error: /it is torn/, hint: /--allow-torn/ });
      await subject.restore(torn.snapshotId, join(place, 'torn'), { allowTorn: true });
      // Each file was read through one descriptor, so what is replaced by a rename is whole even here.
      assertInstants(join(place, 'torn'), ['whole']);
      // Once it rests, the next snapshot is settled, and goes on from the first.
      const settled = await subject.snapshot();
      assert.equal(settled.cutMethod, 'SETTLED');
      if (hurried.cutMethod === 'CHANGED') assert.equal(settled.parentId, first.snapshotId);
      await subject.restore('latest', join(place, 'rest'));
      const rest = readTree(subject.dir);
      // The writer may have been killed between its two steps.
      rest.delete('whole.tmp.1.2.3');
      assertSameTree(rest, join(place, 'rest'));
      await assertUnharmed(all);
    });

    for (const [kind, name] of [
      ['rename', 'whole'],
      ['blocks', 'blocks'],
      ['log', 'log'],
    ] as const) {
      it(`by ${kind} is never captured as settled and wrong`, async (t) => {
        const all = await begun(t);
        const { place, subject } = all;
        const stop = await writing(t, kind, subject.dir, kind === 'rename' ? 15 : 40);
        const methods: string[] = [];
        for (let i = 0; i < 3; i++) {
          const { snapshotId, cutMethod } = await snapshotAnyway(subject, ['--quiet', i < 2 ? '0' : '25ms']);
          methods.push(cutMethod);
          if (cutMethod === 'CHANGED' && kind !== 'rename') continue;
          await subject.restore(snapshotId, join(place, `back${i}`), { allowTorn: true });
          assert.ok(readTree(join(place, `back${i}`)).has(name));
          assertInstants(join(place, `back${i}`), [name]);
        }
        stop();
        t.diagnostic(methods.join(' '));
        await assertUnharmed(all);
      });
    }

    it('by a flush that does not end is torn', async (t) => {
      const all = await begun(t);
      const { subject } = all;
      const stop = await writing(t, 'flush', subject.dir, 20);
      fill(subject.dir, { 'kv.json': 'an older state' });
      const torn = await snapshotAnyway(subject, ['--settle-timeout', '900ms']);
      assert.equal(torn.findings[0]?.code, 'not_settled');
      assert.match(torn.findings[0]?.hint ?? '', /--settle-timeout/);
      stop();
      // For a minute its temporary file may still be that of a flush; after that it is only a finding.
      const early = await snapshotAnyway(subject, ['--settle-timeout', '500ms']);
      assert.equal(early.cutMethod, 'CHANGED');
      rmSync(join(subject.dir, 'kv.json.tmp.1.2.3'));
      assert.equal((await snapshotAnyway(subject, [])).cutMethod, 'SETTLED');
      const shown = await subject.show('latest');
      assert.ok(!shown.files.some(({ path }) => path.includes('.tmp.')));
      await assertUnharmed(all);
    });

    it(
      'by an interrupted flush is settled after a minute, with a finding',
      needing('faketime'),
      async (t) => {
        const all = await begun(t);
        const { subject } = all;
        fill(subject.dir, { 'kv.json.tmp.1.2.3': 'half of a st' });
        const settled = await snapshotAnyway(subject, [], { env: clockShifted(61) });
        assert.equal(settled.unchanged, true);
        assert.deepEqual(briefly(settled.findings), ['stale_temp kv.json.tmp.1.2.3']);
        await assertUnharmed(all);
      },
    );

    it('now and then is waited for no longer than asked', async (t) => {
      const all = await begun(t);
      const { subject } = all;
      fill(subject.dir, { new: 'x' });
      const began = performance.now();
      const torn = await snapshotAnyway(subject, ['--quiet', '1h', '--settle-timeout', '400ms']);
      assert.equal(torn.findings[0]?.code, 'not_settled');
      assert.ok(performance.now() - began < 10_000);
      await assertUnharmed(all);
    });

    it('by an excluded log is settled', async (t) => {
      const all = await begun(t);
      const { subject } = all;
      mkdirSync(join(subject.dir, 'logs'));
      await Promise.all([
        writing(t, 'log', join(subject.dir, 'logs'), 30),
        writing(t, 'log', subject.dir, 30),
      ]);
      fill(subject.dir, { new: 'x' });
      const flags = ['--exclude', 'logs', '--exclude', 'log', '--settle-timeout', '5s'];
      const { cutMethod, unchanged } = await snapshotAnyway(subject, flags);
      assert.deepEqual({ cutMethod, unchanged }, { cutMethod: 'SETTLED', unchanged: false });
      assert.ok(!(await subject.show('latest')).files.some(({ path }) => path.startsWith('log')));
      await assertUnharmed(all);
    });
  });

  /** Makes each read of one file take a while. */
  function slowly(path: string, ms: number): string[] {
    const calls = 'read,pread64,preadv,readv';
    return [
      ...['strace', '-f', '--seccomp-bpf', '-qq', '-o', '/dev/null', '-P', path, '-e', `trace=${calls}`],
      ...['-e', `inject=${calls}:delay_exit=${ms * 1000}`],
    ];
  }

  describe('a file that changes during a slow read', {
    concurrency: 2,
    ...needing('strace'),
  }, () => {
    const SIZE = 10_000_000;
    /** What a writer does every 60 ms with `path`, `n` counting up, and what the file may be in a settled snapshot. */
    const cases: readonly [what: string, act: string, holds: (bytes: Buffer) => boolean][] = [
      ['grows', "fs.appendFileSync(path, 'more')", (bytes) => bytes.length >= SIZE],
      ['shrinks', 'fs.truncateSync(path, Math.max(0, fs.statSync(path).size - 700000))', () => true],
      [
        'is written in place, at both ends',
        "const fd = fs.openSync(path, 'r+'); for (const at of [0, 9999000]) fs.writeSync(fd, String(n).padEnd(9), at); fs.closeSync(fd)",
        (bytes) => {
          const [first, last] = [0, 9_999_000].map((at) => Number(bytes.toString('latin1', at, at + 9)));
          return first === last || first === (last ?? 0) + 1;
        },
      ],
      [
        'is replaced, removed, and made a folder and a symlink',
        `fs.rmSync(path, { force: true, recursive: true });
       if (n % 4 === 0) { fs.writeFileSync(path + '.new', 'b'); fs.renameSync(path + '.new', path); }
       if (n % 4 === 2) fs.mkdirSync(path);
       if (n % 4 === 3) fs.symlinkSync('/etc/passwd', path);`,
        (bytes) => bytes.equals(Buffer.from('b')),
      ],
    ];
    for (const [what, act, holds] of cases) {
      it(what, async (t) => {
        const all = await begun(t);
        const { place, subject } = all;
        const path = join(subject.dir, 'slow');
        fill(subject.dir, { slow: noise('slow', SIZE) });
        const script = `
        const fs = require('node:fs');
        const path = ${JSON.stringify(path)};
        let n = 0;
        setInterval(() => { ${act}; n++; }, 60);`;
        const writer = new Running([process.execPath, '-e', script]).endWith(t);
        const { snapshotId, cutMethod } = await snapshotAnyway(subject, ['--quiet', '0'], {
          under: slowly(path, 60),
        });
        killGroup(writer.child);
        await subject.restore(snapshotId, join(place, 'back'), { allowTorn: cutMethod === 'CHANGED' });
        const fact = readTree(join(place, 'back')).get('slow');
        assert.ok(readTree(join(place, 'back')).has('graph.graphml'));
        if (fact?.type === 'symlink') assert.equal(fact.content, '/etc/passwd');
        if (cutMethod === 'SETTLED' && fact?.type === 'file')
          assert.ok(holds(readFileSync(join(place, 'back/slow'))), what);
        t.diagnostic(cutMethod);
        await assertUnharmed(all);
      });
    }
  });
});
