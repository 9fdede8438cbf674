import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTcp } from 'node:net';
import { basename, join } from 'node:path';
import { after, describe, it, type TestContext } from 'node:test';
import { withStore } from '../../agent/main.ts';
import { withDirectoryLock } from '../../agent/restore/journal-recovery.ts';
import { lastOf } from '../../cli/await-result.ts';
import { random } from '../../demo/random.ts';
import { watchEffects } from '../../host/disk.ts';
import { inParallel, runBuilt, scratch } from '../prove/store-calls.ts';
import { briefly, Case, type Finding } from '../support/case.ts';
import { commandHere } from '../support/command-here.ts';
import { asUser, bind, boundFolder, NOBODY, needing, smallDisk } from '../support/machine.ts';
import { atEnd, tempFolder, until } from '../support/place.ts';
import {
  Agent,
  assertRefused,
  BUILT,
  type Ended,
  killGroup,
  outcomeText,
  Running,
  runToEnd,
} from '../support/program.ts';
import { fillNew, notAs, oldDirectory, ownNames, type State, stateOf } from '../support/restore-states.ts';
import { differences } from '../support/tree.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
/** Kills on each kind of mount; `npm run prove -- inplace` kills at every effect. */
const SAMPLE = Number(process.env.LIGHTKEEPER_COUNT ?? 3);
/** Kills while the stage is filled. */
const STAGING = 3;

interface InPlace {
  readonly replaced: number;
  readonly added: number;
  readonly removed: number;
  readonly kept: number;
  readonly removedNames: readonly string[];
  readonly keptNames: readonly string[];
  readonly oldState: string;
}

interface Result {
  readonly to: string;
  readonly files: number;
  readonly verified: boolean;
  readonly dryRun: boolean;
  readonly findings: readonly Finding[];
  readonly inPlace?: InPlace;
}

/** A store with the snapshot of the new state, of which each test takes a copy. */
const folder = scratch('inplace');
after(() => folder.drop());
const source = folder.fresh('source');
const base = folder.fresh('store');
mkdirSync(source);
fillNew(source);
const wantedNew = stateOf(source);
const { snapshotId } = await new Case(source, base).snapshot();
const wantedOld = stateOf(oldDirectory(folder.fresh('old')));

/** A directory in the old state and a store that holds the new one. */
class World {
  readonly dir: string;
  readonly store: string;

  constructor(place: string, dir = join(place, 'data')) {
    this.dir = oldDirectory(dir);
    this.store = folder.fresh('store');
    cpSync(base, this.store, { recursive: true, preserveTimestamps: true });
  }

  words(...more: string[]): string[] {
    // The snapshot came from another directory.
    const from = ['--graph', basename(source), '--store', this.store];
    const words = ['restore', '--snapshot', snapshotId, '--in-place', this.dir, ...from];
    return [...words, '--disk-reserve', '0', ...more];
  }

  async restore(...more: string[]): Promise<Result> {
    const ended = await commandHere(this.words('--json', ...more));
    assert.equal(ended.code, 0, outcomeText(ended));
    return JSON.parse(ended.stdout) as Result;
  }

  async run(...more: string[]): Promise<Ended> {
    return await commandHere(this.words(...more));
  }

  /** As `run`, in another process. */
  async runElsewhere(...more: string[]): Promise<Ended> {
    return await runBuilt(this.words(...more));
  }

  /** Runs it until it kills itself. */
  async killed(fault: string, ...more: string[]): Promise<void> {
    const ended = await runBuilt(this.words('--instance-stopped', ...more), { fault });
    assert.equal(ended.signal, 'SIGKILL', `${fault}: ${outcomeText(ended)}`);
  }

  /** A capture: the next start settles what was cut off, and says so. */
  async next(): Promise<readonly Finding[]> {
    // For a minute this would be taken for a flush under way.
    rmSync(join(this.dir, 'a.json.tmp.1.2.3'), { force: true });
    return (await new Case(this.dir, this.store).snapshot()).findings;
  }

  get journal(): string {
    return join(this.dir, '.lightkeeper/journal.json');
  }

  assertIs(wanted: State): void {
    assert.deepEqual(notAs(wanted, this.dir), []);
  }

  /** Nothing has changed, and nothing was left. */
  assertUntouched(): void {
    this.assertIs(wantedOld);
    if (existsSync(join(this.dir, '.lightkeeper'))) assert.deepEqual(ownNames(this.dir), []);
  }
}

async function world(t: TestContext): Promise<World> {
  return new World(await tempFolder(t));
}

/** Without the temporary file, which an agent would take for a flush under way, for a minute. */
async function restingWorld(t: TestContext): Promise<World> {
  const one = await world(t);
  rmSync(join(one.dir, 'a.json.tmp.1.2.3'));
  return one;
}

const STOPPED = '--instance-stopped';
const RUNBOOK =
  /^hint: stop the instance \(docker compose stop .*systemctl stop .*\), then: lightkeeper restore --in-place \S+ --snapshot [0-9a-f]{32} --store \S+ --graph \S+ --instance-(?:stopped|url \S+), then start it again \(docker compose start .*systemctl start /m;

function assertAlive(ended: Ended, error: RegExp): void {
  assertRefused(ended, { code: 4, error, hint: /stop the instance/ });
  assert.match(ended.stderr, RUNBOOK);
}

async function traceOf(one: World): Promise<string[]> {
  const trace = folder.fresh('trace');
  const ended = await runBuilt(one.words(STOPPED), { trace });
  assert.equal(ended.code, 0, outcomeText(ended));
  return readFileSync(trace, 'utf8').split('\n').slice(0, -1);
}

/** A kill before each effect of a label, and one after the last. */
function killsOf(trace: readonly string[], label: RegExp): string[] {
  const seen = new Map<string, number>();
  const kills: string[] = [];
  for (const name of trace) {
    const nth = (seen.get(name) ?? 0) + 1;
    seen.set(name, nth);
    if (label.test(name)) kills.push(`kill:before:${name}:${nth}`);
  }
  const last = kills.at(-1)?.replace('before', 'after');
  return last === undefined ? [] : [...kills, last];
}

function drawn<T>(items: readonly T[], count: number): T[] {
  const draw = random(SEED);
  const left = [...items];
  return Array.from(
    { length: Math.min(count, left.length) },
    () => left.splice(draw(left.length), 1)[0] as T,
  );
}

/** Kills a restore, has the next start or command settle it, and looks at what there is. */
async function cutOff(one: World, fault: string, way: 'capture' | 'restore'): Promise<'old' | 'new'> {
  await one.killed(fault);
  const pending = existsSync(one.journal);
  const findings = way === 'capture' ? await one.next() : (await one.restore(STOPPED)).findings;
  const said = findings.filter(({ code }) => /^restore_/.test(code)).map(({ code }) => code);
  assert.deepEqual(said, pending ? ['restore_rolled_forward'] : [], `${fault}: it is said which`);
  assert.equal(existsSync(one.journal), false);
  const asNew = notAs(wantedNew, one.dir, { rootTime: pending });
  if (way === 'restore' || pending) assert.deepEqual(asNew, [], fault);
  if (asNew.length === 0) return 'new';
  assert.deepEqual(notAs(wantedOld, one.dir), [], `${fault}: neither the old state nor the new one`);
  return 'old';
}

describe('restore --in-place', { concurrency: 2 }, () => {
  describe('a normal run', { concurrency: 4 }, () => {
    it('restores the snapshot and saves the old state', async (t) => {
      const one = await world(t);
      const { ino } = statSync(one.dir);
      const result = await one.restore(STOPPED);
      assert.deepEqual(notAs(wantedNew, one.dir, { rootTime: true }), []);
      assert.equal(statSync(one.dir).ino, ino, 'it may be a mount point');
      const { replaced, added, removed, kept, removedNames, keptNames, oldState } = result.inPlace as InPlace;
      assert.deepEqual([replaced, added, removed, kept], [4, 3, 4, 1]);
      assert.deepEqual(removedNames, ['a.json.tmp.1.2.3', 'away', 'gone.json', 'old\\xff']);
      assert.deepEqual(keptNames, ['.lightrag_kv_lock']);
      assert.ok(existsSync(join(oldState, 'a.json.tmp.1.2.3')), 'what a killed flush left is set aside');
      assert.deepEqual([result.to, result.verified, result.findings.length], [one.dir, true, 0]);
      assert.deepEqual(notAs({ ...wantedOld, mode: 0o700 }, oldState), [], 'the old state is whole');
      for (const name of keptNames) assert.ok(existsSync(join(one.dir, name)), name);
      const again = await one.restore(STOPPED);
      assert.deepEqual(
        ownNames(one.dir),
        [again.inPlace?.oldState.split('/').at(-1)],
        'only the newest stays',
      );
      assert.deepEqual(notAs(wantedNew, one.dir, { rootTime: true }), []);
      assert.deepEqual(await one.next(), []);
    });

    it('accepts a URL that refuses connections as evidence', async (t) => {
      const one = await world(t);
      const closed = createTcp().listen(0, '127.0.0.1');
      await once(closed, 'listening');
      const { port } = closed.address() as { port: number };
      closed.close();
      await one.restore('--instance-url', `http://127.0.0.1:${port}/health`);
      one.assertIs(wantedNew);
    });

    it('works like --to for a missing directory', async (t) => {
      const one = await world(t);
      rmSync(one.dir, { recursive: true });
      const result = await one.restore();
      assert.equal(result.inPlace, undefined);
      one.assertIs(wantedNew);
      assert.equal(existsSync(join(one.dir, '.lightkeeper')), false);
    });

    it('with --dry-run reports its plan and changes nothing', async (t) => {
      const one = await world(t);
      const before = lstatSync(one.dir, { bigint: true });
      const result = await one.restore('--dry-run', '--exclude', 'gone*');
      const { replaced, added, removed, kept, removedNames, oldState } = result.inPlace as InPlace;
      assert.deepEqual([replaced, added, removed, kept, oldState], [4, 3, 3, 2, '']);
      assert.deepEqual(removedNames, ['a.json.tmp.1.2.3', 'away', 'old\\xff']);
      assert.deepEqual([result.dryRun, result.verified, result.files], [true, false, 8]);
      const after = lstatSync(one.dir, { bigint: true });
      assert.deepEqual([after.ctimeNs, after.mtimeNs], [before.ctimeNs, before.mtimeNs]);
      one.assertUntouched();
      assert.match((await one.run('--dry-run')).stdout, /would restore .*\n.*4 removed.*\n.*gone\.json/);
    });

    it('leaves excluded names alone', async (t) => {
      const one = await world(t);
      const { findings } = await one.restore(STOPPED, '--exclude', 'gone.json', '--exclude', 'sub');
      assert.equal(readFileSync(join(one.dir, 'gone.json'), 'utf8'), 'only here');
      assert.equal(readFileSync(join(one.dir, 'sub/deep/leaf'), 'utf8'), 'old leaf');
      assert.equal(readFileSync(join(one.dir, 'docs.json'), 'utf8'), 'new docs');
      assert.deepEqual(briefly(findings), ['excluded_kept sub']);
    });

    it('works with a store at the top of the directory', async (t) => {
      const place = await tempFolder(t);
      const one = new World(place);
      renameSync(one.store, join(one.dir, 'store'));
      const words = one.words(STOPPED, '--json');
      words[words.indexOf('--store') + 1] = join(one.dir, 'store');
      const ended = await runBuilt(words);
      assert.equal(ended.code, 0, ended.stderr);
      assert.deepEqual(await new Case(one.dir, join(one.dir, 'store')).assertSound(), 1);
      assert.equal(readFileSync(join(one.dir, 'docs.json'), 'utf8'), 'new docs');
    });
  });

  describe('a refusal', { concurrency: 5 }, () => {
    it('refuses without evidence and prints the commands that are needed', async (t) => {
      const one = await world(t);
      assertAlive(await one.run(), /there is no evidence that the instance is down/);
      one.assertUntouched();
    });

    it('refuses while the URL does anything but refuse connections', async (t) => {
      const one = await world(t);
      const http = createServer((_, response) => response.writeHead(503).end()).listen(0, '127.0.0.1');
      await once(http, 'listening');
      atEnd(t, () => http.close());
      const { port } = http.address() as { port: number };
      const ask = (url: string) => one.run('--instance-url', url);
      assertAlive(await ask(`http://127.0.0.1:${port}/`), /something listens at/);
      assertAlive(await ask('http://no-such-host.invalid/'), /is not known \(E\w+\)|not resolved in time/);
      const wrong = await ask('the instance');
      assertRefused(wrong, { code: 2, error: /it is not an HTTP URL/, hint: /http:/ });
      one.assertUntouched();
    });

    it('refuses while a lock is held, not for one left behind', async (t) => {
      const one = await world(t);
      const holder = new Running(['flock', join(one.dir, '.lightrag_kv_lock'), 'sleep', '60']).endWith(t);
      await until('the lock is held', () => {
        const { ino } = statSync(join(one.dir, '.lightrag_kv_lock'));
        return new RegExp(`:${ino} `).test(readFileSync('/proc/locks', 'utf8'));
      });
      assertAlive(await one.run(STOPPED), /process \d+ holds its lock "\.lightrag_kv_lock"/);
      one.assertUntouched();
      killGroup(holder.child);
      await holder.ended;
      await one.restore(STOPPED);
    });

    it('refuses a directory in which a file changed within two seconds, and a young temporary file', async (t) => {
      const one = await world(t);
      // A process of its own: the loop of this one stands still while other tests compute.
      const script = 'while printf . >> sub/deep/leaf; do sleep 0.05; done';
      const writer = new Running(['sh', '-c', script], { cwd: one.dir }).endWith(t);
      const written = () => statSync(join(one.dir, 'sub/deep/leaf')).size;
      const before = written();
      await writer.until('it writes', () => written() > before);
      assertAlive(await one.run(STOPPED), /"sub\/deep\/leaf" has just changed/);
      assert.equal(writer.hasEnded, false, 'it has written all the time');
      killGroup(writer.child);
      await writer.ended;
      const young = `vectors.bin.tmp.${process.pid}.8.9`;
      writeFileSync(join(one.dir, young), 'half');
      assertAlive(
        await one.run(STOPPED),
        new RegExp(`"${young.replaceAll('.', '\\.')}" is younger than a minute`),
      );
      assert.deepEqual(readdirSync(one.dir).includes('.lightkeeper'), false);
    });

    it('refuses a store, a mount and what is no directory', async (t) => {
      const one = await world(t);
      const at = (dir: string, store = one.store) =>
        runBuilt([...one.words(STOPPED), '--in-place', dir, '--store', store]);
      const refused = async (ended: ReturnType<typeof at>, error: RegExp, hint: RegExp) =>
        assertRefused(await ended, { code: 4, error, hint });
      await refused(at(one.store), /it is the store, or a part of it/, /--in-place/);
      await refused(at(join(one.store, 'packs')), /it is the store, or a part of it/, /--in-place/);
      await refused(at(join(one.dir, 'gone.json')), /it is not a directory/, /--in-place/);
      cpSync(one.store, join(one.dir, 'sub/store'), { recursive: true });
      const deep = at(one.dir, join(one.dir, 'sub/store'));
      await refused(deep, /the store lies in its folder "sub"/, /another disk/);
      rmSync(join(one.dir, 'sub/store'), { recursive: true });
      mkdirSync(join(one.dir, '.lightkeeper'));
      renameSync(join(one.dir, '.lightkeeper'), join(one.dir, '../own'));
      symlinkSync('../own', join(one.dir, '.lightkeeper'));
      await refused(at(one.dir), /it is a symlink/, /own/);
      rmSync(join(one.dir, '.lightkeeper'));
      assert.equal(readFileSync(join(one.dir, 'sub/deep/leaf'), 'utf8'), 'old leaf');
    });

    it('refuses while another restore works on the directory', async (t) => {
      const one = await world(t);
      await one.killed('kill:before:inplace:move-in:2');
      const cannot = { code: 4, error: /another restore in place is at work on it/, hint: /wait/ };
      await withDirectoryLock(Buffer.from(one.dir), async () => {
        await assert.rejects(one.next(), { code: 'IN_USE' });
        assertRefused(await one.runElsewhere(STOPPED), cannot);
      });
      const dry = await one.runElsewhere('--dry-run');
      assertRefused(dry, { code: 4, error: /has not been finished/, hint: /without --dry-run/ });
      await one.next();
      one.assertIs(wantedNew);
    });

    it('refuses if the instance comes back while the snapshot is staged', async (t) => {
      const one = await world(t);
      const unwatch = watchEffects((phase, { label, path }) => {
        if (phase === 'before' && label === 'inplace:stage:sync' && String(path).startsWith(one.dir))
          appendFileSync(join(one.dir, 'docs.json'), '.');
      });
      const request = {
        snapshotId,
        graphId: basename(source),
        target: { case: 'inPlace' as const, value: Buffer.from(one.dir) },
        evidence: { case: 'instanceStopped' as const, value: true },
        diskReserveBytes: 0n,
      };
      const restored = withStore(one.store, {}, (client) => lastOf(client.restoreSnapshot(request)));
      const message = /"docs\.json" has just changed: something writes there/;
      await assert.rejects(restored, { code: 'REFUSED', message }).finally(unwatch);
      assert.deepEqual(ownNames(one.dir), []);
      assert.equal(readFileSync(join(one.dir, 'docs.json'), 'utf8'), 'old docs, longer.');
    });

    it('refuses a directory with another disk mounted below it', needing('mount'), async (t) => {
      const one = await world(t);
      const other = await tempFolder(t);
      writeFileSync(join(other, 'not-ours'), '');
      const unbind = await bind(other, join(one.dir, 'away/with'));
      try {
        const error = /another disk is mounted in it, at ".*\/away\/with"/;
        assertRefused(await one.run(STOPPED), { code: 4, error, hint: /--exclude/ });
        assert.equal(readFileSync(join(one.dir, 'gone.json'), 'utf8'), 'only here');
        await one.restore(STOPPED, '--exclude', 'away');
        assert.deepEqual(readdirSync(join(one.dir, 'away/with')), ['not-ours']);
      } finally {
        await unbind();
      }
    });
  });

  describe('a failure', { concurrency: 4 }, () => {
    it('on a full disk leaves the old state', needing('mount'), async (t) => {
      const disk = await smallDisk(t, 280_000);
      const one = new World(disk.path);
      assertRefused(await one.run(STOPPED), { code: 1, error: /ENOSPC|No space/, hint: /free space/ });
      one.assertUntouched();
      const guarded = await runBuilt([...one.words(STOPPED), '--disk-reserve', '1GiB']);
      assertRefused(guarded, { code: 4, error: /disk reserve/, hint: /--disk-reserve/ });
      one.assertUntouched();
    });

    it('at any of its own effects is undone', async (t) => {
      const place = await tempFolder(t);
      const labels = ['stage', 'journal:write', 'journal:publish', 'move-out', 'sync-out', 'move-in'];
      await inParallel(4, labels, async (label) => {
        const one = new World(place, join(place, label));
        const fault = `fail:EIO:inplace:${label}:${label.startsWith('move') ? 2 : 1}`;
        const ended = await runBuilt(one.words(STOPPED), { fault });
        assertRefused(ended, { code: 1, error: /EIO/, hint: /kernel log/ });
        if (/move|sync/.test(label)) assert.match(ended.stderr, /it has been undone/, label);
        one.assertUntouched();
      });
    });

    it('that cannot be undone is left to the next start', async (t) => {
      const one = await world(t);
      const ended = await runBuilt(one.words(STOPPED), { fault: 'fail:EIO:inplace:root:1' });
      const error = /EIO.*; undoing it failed: .*EIO/;
      assertRefused(ended, { code: 1, error, hint: /finished or undone first/ });
      assert.deepEqual(briefly(await one.next()), [`restore_rolled_forward ${one.dir}`]);
      one.assertIs(wantedNew);
    });

    it('does not happen when an unprivileged user moves read-only folders', async (t) => {
      if (process.getuid?.() !== 0) return t.skip('needs root');
      const one = await world(t);
      const owned = (path: string) => runToEnd(['chown', '-Rh', `${NOBODY}:${NOBODY}`, path]);
      chmodSync(folder.path, 0o755);
      chmodSync(join(one.dir, 'sub'), 0o555);
      for (const path of [one.dir, one.store]) await owned(path);
      const command = [process.execPath, BUILT, ...one.words(STOPPED)];
      const byNobody = await runToEnd(command, { under: asUser() });
      assert.equal(byNobody.code, 0, outcomeText(byNobody));
      assert.deepEqual(differences(wantedNew.facts, stateOf(one.dir).facts, { owners: false }), []);
      const [old = ''] = ownNames(one.dir);
      assert.equal(statSync(join(one.dir, '.lightkeeper', old, 'sub')).mode & 0o777, 0o555);
    });

    it('does not lock out the owner of the directory', async (t) => {
      if (process.getuid?.() !== 0) return t.skip('needs root');
      const one = await restingWorld(t);
      chmodSync(folder.path, 0o755);
      for (const path of [one.dir, one.store]) lchownSync(path, NOBODY, NOBODY);
      await one.killed('kill:before:inplace:move-in:1');
      const stage = join(one.dir, '.lightkeeper/stage');
      assert.equal(statSync(stage).uid, NOBODY);
      // As if the snapshot were of files of that user.
      for (const path of [one.store, stage]) await runToEnd(['chown', '-Rh', `${NOBODY}:${NOBODY}`, path]);
      const words = ['snapshot', '--dir', one.dir, '--store', one.store, '--disk-reserve', '0'];
      const ended = await runToEnd([process.execPath, BUILT, ...words], { under: asUser() });
      assert.match(ended.stdout, /restore_rolled_forward/, outcomeText(ended));
      assert.equal(existsSync(one.journal), false);
    });
  });

  describe('a kill', { concurrency: 4 }, () => {
    it(`at each of its effects leaves the old or the new state whole (seed ${SEED})`, async (t) => {
      const place = await tempFolder(t);
      const trace = await traceOf(new World(place));
      const own = killsOf(trace, /^inplace:/);
      const kills = [...own, ...drawn(killsOf(trace, /^restore:/), STAGING)];
      assert.ok(own.length > 30, `${own.length} effects`);
      const ends = new Map<string, number>();
      await inParallel(8, [...kills.entries()], async ([i, fault]) => {
        const one = new World(place, join(place, `data-${i}`));
        const end = await cutOff(one, fault, i % 8 === 0 ? 'restore' : 'capture');
        ends.set(end, (ends.get(end) ?? 0) + 1);
      });
      t.diagnostic(`${kills.length} kills: ${JSON.stringify(Object.fromEntries(ends))}`);
      assert.ok((ends.get('old') ?? 0) > 5 && (ends.get('new') ?? 0) > 15, JSON.stringify([...ends]));
    });

    for (const kind of ['a bind mount', 'a memory disk']) {
      it(`on ${kind} leaves the old or the new state whole (seed ${SEED})`, needing('mount'), async (t) => {
        const place = await tempFolder(t);
        const mounted = async () => {
          if (kind === 'a memory disk') return (await smallDisk(t, 4_000_000)).path;
          return await boundFolder(t, await tempFolder(t, place));
        };
        const first = new World(place, await mounted());
        const { dev, ino } = statSync(first.dir);
        const kills = drawn(killsOf(await traceOf(first), /^inplace:(?!folder|stage)/), SAMPLE);
        first.assertIs(wantedNew);
        assert.deepEqual([statSync(first.dir).dev, statSync(first.dir).ino], [dev, ino]);
        const ends = { old: 0, new: 0 };
        await inParallel(3, kills, async (fault) => {
          ends[await cutOff(new World(place, await mounted()), fault, 'capture')] += 1;
        });
        t.diagnostic(`${kills.length} kills: ${JSON.stringify(ends)}`);
      });
    }

    describe('a recovery from changed traces', { concurrency: 5 }, () => {
      it('rolls back if staged files are gone', async (t) => {
        const place = await tempFolder(t);
        const faults = ['move-out:4', 'move-in:1', 'move-in:5', 'journal:end:1'];
        await inParallel(3, faults, async (at) => {
          const one = new World(place, join(place, at));
          await one.killed(`kill:before:inplace:${at}`);
          const lost = at === 'journal:end:1' ? one.dir : join(one.dir, '.lightkeeper/stage');
          rmSync(join(lost, 'vectors.bin'));
          const findings = await one.next();
          assert.deepEqual(briefly(findings.filter(({ code }) => code.startsWith('restore_'))), [
            `restore_rolled_back ${one.dir}`,
          ]);
          assert.match(findings[0]?.message ?? '', /"vectors\.bin" was no longer staged.*its old state/);
          assert.deepEqual(notAs(wantedOld, one.dir, { rootTime: true }), [], at);
          assert.deepEqual(ownNames(one.dir), []);
          await one.restore(STOPPED);
          one.assertIs(wantedNew);
        });
      });

      it('is refused if neither state or the journal is whole', async (t) => {
        const one = await world(t);
        await one.killed('kill:before:inplace:move-in:3');
        const text = readFileSync(one.journal, 'utf8');
        const { journal } = JSON.parse(text) as { journal: Record<string, unknown> };
        const signed = (change: object) => {
          const changed = { ...journal, ...change };
          const sha256 = createHash('sha256').update(JSON.stringify(changed)).digest('hex');
          return JSON.stringify({ journal: changed, sha256 });
        };
        const bad: [RegExp, string][] = [
          [/its hash does not match/, text.replace('gone.json', 'gome.json')],
          [/it is not JSON/, text.slice(0, -20)],
          [/its hash does not match/, '{}'],
          [/it is not JSON/, ''],
          [/leads elsewhere/, signed({ out: ['../../etc'] })],
          [/leads elsewhere/, signed({ in: ['/etc'] })],
          [/leads elsewhere/, signed({ in: ['..'] })],
          [/never moved/, signed({ out: ['.lightkeeper'] })],
          [/twice/, signed({ in: ['a', 'a'] })],
          [/its ids are malformed/, signed({ id: '../../..' })],
          [/newer version/, signed({ format: 2 })],
          [/has no list of names/, signed({ in: 'a' })],
          [
            /metadata of the directory is malformed/,
            signed({ after: { mode: -1, uid: 0, gid: 0, mtimeNs: '0' } }),
          ],
        ];
        const held = stateOf(one.dir);
        for (const [state, content] of bad) {
          writeFileSync(one.journal, content);
          const refusal = { name: 'LightkeeperError', code: 'REFUSED', message: state };
          await assert.rejects(one.next(), refusal);
          assert.equal(readFileSync(one.journal, 'utf8'), content);
        }
        rmSync(one.journal);
        symlinkSync('/etc/passwd', one.journal);
        await assert.rejects(one.next(), /it cannot be read \(ELOOP\)/);
        assert.deepEqual(notAs(held, one.dir), []);
        rmSync(one.journal);
        writeFileSync(one.journal, text);
        const [old = ''] = ownNames(one.dir).filter((name) => name.startsWith('old-'));
        rmSync(join(one.dir, '.lightkeeper', old, 'gone.json'));
        rmSync(join(one.dir, '.lightkeeper/stage/vectors.bin'), { force: true });
        rmSync(join(one.dir, 'vectors.bin'), { force: true });
        const ended = await one.run(STOPPED);
        const error = /"vectors\.bin" of the new state is missing, and "gone\.json" of the old one/;
        assertRefused(ended, { code: 4, error, hint: /nothing was changed: .*journal\.json/ });
      });

      it('preserves what was written in between', async (t) => {
        const one = await world(t);
        await one.killed('kill:before:inplace:move-in:1');
        writeFileSync(join(one.dir, 'docs.json'), 'written by an instance that started too early');
        const findings = await one.next();
        const codes = ['restore_rolled_forward', 'restore_set_aside'];
        assert.deepEqual(findings.map(({ code }) => code).sort(), codes);
        one.assertIs(wantedNew);
        const [found = ''] = ownNames(one.dir).filter((name) => name.endsWith('-found'));
        const kept = join(one.dir, '.lightkeeper', found, 'docs.json');
        assert.match(readFileSync(kept, 'utf8'), /too early/);
      });
    });
  });

  async function readinessOf(agent: Agent): Promise<{ status: number; body: string }> {
    const [, port = ''] = /127\.0\.0\.1:(\d+)\/metrics/.exec(agent.stdout) ?? [];
    const response = await fetch(`http://127.0.0.1:${port}/readiness`);
    return { status: response.status, body: await response.text() };
  }

  describe('an agent on a restored directory', { concurrency: 2 }, () => {
    it('captures the restored state and then removes the old one', async (t) => {
      const one = await restingWorld(t);
      const words = ['--dir', one.dir, '--store', one.store, '--graph', 'mine', '--exclude', 'gone.json'];
      const agent = new Agent(t, [...words, '--disk-reserve', '0']);
      await agent.point(1);
      const result = await one.restore(STOPPED);
      assert.deepEqual(result.inPlace?.keptNames, ['.lightrag_kv_lock', 'gone.json']);
      const id = await agent.point(2);
      await until('the old state is gone', () => ownNames(one.dir).length === 0);
      await until('it is ready', async () => (await readinessOf(agent)).status === 200);
      assert.equal((await agent.stop()).code, 0, agent.text);
      assert.equal(agent.points.length, 2, 'it never took a state in between');
      await new Case(one.dir, one.store).restore(id, join(one.dir, '../back'));
      assert.deepEqual(readdirSync(join(one.dir, '../back')).length, 7);
      assert.equal(readFileSync(join(one.dir, 'gone.json'), 'utf8'), 'only here');
    });

    it('finishes an interrupted restore before its first snapshot, and is not ready until then', async (t) => {
      const one = await restingWorld(t);
      await new Case(one.dir, one.store).snapshot();
      await one.killed('kill:before:inplace:move-in:2');
      const text = readFileSync(one.journal);
      writeFileSync(one.journal, 'damaged');
      const agent = new Agent(t, ['--dir', one.dir, '--store', one.store, '--disk-reserve', '0']);
      await agent.says(/error: Cannot finish the interrupted restore of .* by its journal: it is not JSON/);
      const { status, body } = await readinessOf(agent);
      assert.deepEqual([status, /has not been finished/.test(body)], [503, true], body);
      assert.deepEqual(agent.points, []);
      writeFileSync(one.journal, text);
      await agent.says(
        /warning restore_rolled_forward .*: .*the directory holds the whole snapshot [0-9a-f]{32}/,
      );
      await agent.point(1);
      await until('it is ready', async () => (await readinessOf(agent)).status === 200);
      assert.equal((await agent.stop()).code, 0, agent.text);
      one.assertIs(wantedNew);
    });
  });
});
