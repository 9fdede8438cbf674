import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { Case, type Finding, type Snapshot } from '../support/case.ts';
import { Place } from '../support/cli-place.ts';
import { assertDiff } from '../support/independent-diff.ts';
import { tempFolder } from '../support/place.ts';
import { Agent, jsonOf, lightkeeper } from '../support/program.ts';
import { assertSameTree, readTree } from '../support/tree.ts';

// Node's own cp keeps times to the millisecond only.
const copy = promisify(execFile);
const FIXTURES = join(import.meta.dirname, '../../../shared/fixtures');
const GOLDEN = join(import.meta.dirname, '../golden/gustobot.json');
const STATES = (await readdir(FIXTURES).catch(() => []))
  .filter((name) => name.startsWith('gustobot@'))
  .sort();
const skip = STATES.length === 0 ? 'the gustobot fixtures are not on this machine' : false;

/** What is said of a state: its grade, and each finding in a line. */
interface Judged {
  readonly grade: string;
  readonly findings: readonly Finding[];
}

/** What a command says, whatever the grade. */
async function answered<T>(words: readonly string[]): Promise<T> {
  const ended = await lightkeeper([...words, '--json']);
  assert.ok(ended.code === 0 || ended.code === 3, ended.stderr);
  return JSON.parse(ended.stdout) as T;
}

function lines({ grade, findings }: Judged) {
  return {
    grade,
    findings: findings.map(
      ({ severity, code, object, message }) => `${severity} ${code} ${object}: ${message}`,
    ),
  };
}

test('ten real states: restore to equal trees, with the grades of the golden file', {
  skip,
}, async (t) => {
  const place = await tempFolder(t);
  const graph = new Case(join(place, 'gustobot'), join(place, 'store'));
  const taken: { state: string; snapshotId: string; tree: ReturnType<typeof readTree> }[] = [];
  const alone: Record<string, unknown> = {};
  const series: Record<string, unknown> = {};
  let newInAll = 0;
  let rawInAll = 0;
  for (const state of STATES) {
    await rm(graph.dir, { recursive: true, force: true });
    await copy('cp', ['-a', join(FIXTURES, state), graph.dir]);
    alone[state] = lines(await answered<Judged>(['validate', '--dir', graph.dir, '--instance-stopped']));
    const words = ['snapshot', '--dir', graph.dir, '--store', graph.store, '--quiet', '50ms'];
    const snapshot = await answered<Snapshot>([...words, '--instance-stopped']);
    series[state] = lines(snapshot);
    assert.equal(snapshot.unchanged, false);
    newInAll += Number(snapshot.newBytes);
    rawInAll += Number(snapshot.rawBytes);
    taken.push({ state, snapshotId: snapshot.snapshotId, tree: readTree(graph.dir) });
  }
  assert.ok(newInAll < rawInAll / 2, `${newInAll} new bytes of ${rawInAll}`);
  for (const { state, snapshotId, tree } of taken) {
    const to = join(place, 'restored', state);
    // One of them has lost a file that the one before it had.
    await graph.restore(snapshotId, to, { allowTorn: true });
    assertSameTree(tree, to);
  }
  assert.equal(await graph.assertSound({}), taken.length);
  if (process.env.LIGHTKEEPER_GOLDEN === 'write')
    await writeFile(GOLDEN, `${JSON.stringify({ alone, series }, null, 2)}\n`);
  assert.deepEqual({ alone, series }, JSON.parse(await readFile(GOLDEN, 'utf8')));
});

test('up: captures every real state copied over the directory and ends with 0', {
  skip,
}, async (t) => {
  const place = await tempFolder(t);
  const dir = join(place, 'gustobot');
  const store = join(place, 'state', 'store');
  await cp(join(FIXTURES, 'gustobot@10'), dir, { recursive: true });
  const env = { XDG_RUNTIME_DIR: place };
  const agent = new Agent(t, ['--dir', dir, '--state', join(place, 'state')], { env });
  await agent.point(1);
  for (const [i, state] of ['gustobot@09', 'gustobot@08'].entries()) {
    for (const name of await readdir(join(FIXTURES, state))) {
      await cp(join(FIXTURES, state, name), join(place, 'next'));
      await rename(join(place, 'next'), join(dir, name));
    }
    await agent.point(i + 2);
  }
  const list = await jsonOf<{ snapshots: Snapshot[] }>(['list', '--store', store], { env });
  assert.ok(list.snapshots.length >= 3);
  const to = join(place, 'restored');
  await jsonOf(['restore', '--snapshot', 'latest', '--to', to, '--store', store], { env });
  for (const name of await readdir(dir)) {
    assert.deepEqual(await readFile(join(to, name)), await readFile(join(dir, name)), name);
  }
  const beside = await jsonOf<Snapshot>(['snapshot', '--dir', dir, '--store', store], { env });
  assert.equal(beside.unchanged, true);
  const { code, stdout } = await agent.stop('SIGINT');
  assert.equal(code, 0);
  assert.match(stdout, /protected since .*, RPO /);
});

test('ten real states: their diffs agree with an independent comparison', { skip }, async () => {
  const place = new Place();
  for (const state of STATES) {
    await rm(place.dir, { recursive: true });
    await cp(join(FIXTURES, state), place.dir, { recursive: true });
    // Else a capture waits for the files that some of them lack.
    await place.snapshot({}, '--instance-stopped', '--no-grade');
  }
  const ids = (await place.ids()).reverse();
  assert.equal(ids.length, STATES.length);
  for (let i = 1; i < ids.length; i++) {
    const answer = await place.json(['diff', ids[i - 1] ?? '', ids[i] ?? '']);
    assertDiff(answer, join(FIXTURES, STATES[i - 1] ?? ''), join(FIXTURES, STATES[i] ?? ''));
  }
});

test('ten real states: INVALID at rest where a file was not kept, TORN before', { skip }, async (t) => {
  const place = await tempFolder(t);
  for (const state of STATES) {
    const dir = join(place, state);
    // A copy is young: nothing has been at rest for a minute.
    await cp(join(FIXTURES, state), dir, { recursive: true });
    const missing = state === 'gustobot@01' ? 1 : state < 'gustobot@08' ? 2 : 0;
    const grades = [];
    for (const words of [[], ['--instance-stopped']]) {
      const { grade, findings } = await answered<Judged>(['validate', '--dir', dir, ...words]);
      const errors = findings.filter(({ severity }) => severity === 'ERROR');
      assert.deepEqual(
        errors.map(({ code }) => code),
        Array(missing).fill('missing_file'),
      );
      grades.push(grade);
    }
    assert.deepEqual(grades, missing > 0 ? ['TORN', 'INVALID'] : ['VALID', 'VALID'], state);
  }
});
