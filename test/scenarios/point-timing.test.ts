import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, copyFileSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { generate } from '../../demo/generate.ts';
import { Case } from '../support/case.ts';
import { atEnd, type Scope, tempFolder, until } from '../support/place.ts';
import { Agent, jsonOf } from '../support/program.ts';
import { startStandIn } from '../support/standin.ts';

const GRAPH_FILE = 'graph_chunk_entity_relation.graphml';
const CACHE = 'kv_store_llm_response_cache.json';

interface Point {
  readonly grade: string;
  /** Start of the capture. */
  readonly atMs: number;
  readonly files: number;
}

/** Starts an agent and records when its log reports which point. */
function watched(t: Scope, { dir, store }: Case): { agent: Agent; points: Point[] } {
  const words = ['--dir', dir, '--store', store, '--disk-reserve', '0', '--log-format', 'json'];
  const agent = new Agent(t, words, { command: 'agent' });
  const points: Point[] = [];
  let rest = '';
  agent.child.stderr?.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines.filter((one) => one.includes('"snapshot taken"'))) {
      const { grade, durationMs, gradeMs, files } = JSON.parse(line) as Record<string, string>;
      const atMs = performance.now() - Number(durationMs) - Number(gradeMs);
      points.push({ grade: grade ?? '', atMs, files: Number(files) });
    }
  });
  return { agent, points };
}

function usable(points: readonly Point[]): Point[] {
  return points.filter(({ grade }) => grade === 'VALID' || grade === 'DEGRADED');
}

async function begun(t: Scope): Promise<Case> {
  const place = await tempFolder(t);
  return new Case(join(place, 'rag'), join(place, 'store'));
}

/** Writes a file of `from` as newer versions do: beside its place, then renamed. */
function flushFile(from: string, dir: string, name: string): void {
  const temporary = join(dir, `${name}.tmp.${process.pid}.1.${Date.now()}`);
  copyFileSync(join(from, name), temporary);
  renameSync(temporary, join(dir, name));
}

describe('the next usable point', { concurrency: 2 }, () => {
  it('comes soon after a first flush that pauses before its vectors, and never from that pause', async (t) => {
    const subject = await begun(t);
    const source = join(subject.dir, '..', 'source');
    await generate(source, { seed: 3, documents: 5, dimension: 8 });
    mkdirSync(subject.dir);
    const { agent, points } = watched(t, subject);
    await until('the agent runs', () => agent.text.includes('protecting'));
    const names = readdirSync(source);
    const kv = names.filter((name) => name.startsWith('kv_store_'));
    const vectors = names.filter((name) => name.startsWith('vdb_'));
    for (const name of [...kv, GRAPH_FILE]) flushFile(source, subject.dir, name);
    await sleep(3000);
    const beforeVectors = usable(points).length;
    for (const name of vectors) flushFile(source, subject.dir, name);
    const whole = () => usable(points).some(({ files }) => files === names.length);
    await until('a usable point of the whole flush', whole, 15_000);
    const listed = await subject.list();
    const files = await Promise.all(
      listed.map(async ({ snapshotId }) => (await subject.show(snapshotId)).files),
    );
    const isPartial = files.map(
      (shown) => shown.some(({ path }) => path === GRAPH_FILE) && shown.length < names.length,
    );
    assert.deepEqual(
      listed.filter(({ grade }, i) => isPartial[i] === true && ['VALID', 'DEGRADED'].includes(grade)),
      [],
    );
    assert.ok(beforeVectors <= 1, 'the empty directory alone may have a point');
    assert.equal((await agent.stop()).code, 0);
  });

  it('is at most fifteen seconds behind a writer that hardly ever pauses', async (t) => {
    const subject = await begun(t);
    await startStandIn(t, subject.dir, [
      ...['--ingest-every', '1500ms', '--query-every', '600ms', '--pause', '100ms', '--documents', '10'],
    ]);
    const { points } = watched(t, subject);
    await until('a usable point', () => usable(points).length > 0, 30_000);
    const fromMs = performance.now();
    await sleep(30_000);
    const times = usable(points).map(({ atMs }) => atMs);
    const ends = [...times.slice(1), performance.now()];
    const gaps = times.map((ms, i) => (ends[i] ?? ms) - ms);
    assert.ok(Math.max(...gaps) < 15_000, `${JSON.stringify(points)} from ${fromMs}`);
  });

  it('waits for a minute after changes of the cache alone, not for a change of another file', async (t) => {
    const subject = await begun(t);
    await generate(subject.dir, { seed: 4, documents: 3, dimension: 8 });
    writeFileSync(join(subject.dir, CACHE), '{}');
    const { agent, points } = watched(t, subject);
    await until('the first point', () => points.length === 1);
    const changeCache = () =>
      writeFileSync(join(subject.dir, CACHE), JSON.stringify({ a: { return: `${Date.now()}` } }));
    for (let i = 0; i < 10; i++) {
      changeCache();
      await sleep(1000);
    }
    assert.equal(points.length, 1, 'changes of the cache made a point');
    appendFileSync(join(subject.dir, 'kv_store_doc_status.json'), '\n');
    await until('a point after another change', () => points.length === 2, 10_000);
    changeCache();
    const asked = await jsonOf<{ unchanged: boolean }>([
      ...['snapshot', '--dir', subject.dir, '--store', subject.store, '--disk-reserve', '0'],
    ]);
    assert.equal(asked.unchanged, false, 'an explicit snapshot has the change');
    changeCache();
    await sleep(500);
    const stopped = await agent.stop();
    assert.equal(stopped.code, 0);
    assert.equal(points.length, 4, 'the last point at a stop has the change');
  });

  it('does not wait for the temporary file of a writer that was killed', async (t) => {
    const subject = await begun(t);
    await generate(subject.dir, { seed: 5, documents: 3, dimension: 8 });
    const { agent, points } = watched(t, subject);
    await until('the first point', () => points.length === 1);
    const script = `const fs = require('fs'); const name = process.argv[1] + '/vdb_entities.json.tmp.' + process.pid + '.1.1';
      setInterval(() => fs.appendFileSync(name, 'x'.repeat(1000)), 50);`;
    const writer = spawn(process.execPath, ['-e', script, subject.dir], { stdio: 'ignore' });
    atEnd(t, () => writer.kill('SIGKILL'));
    const isWriting = () => readdirSync(subject.dir).some((name) => name.includes('.tmp.'));
    await until('the writer writes', isWriting);
    appendFileSync(join(subject.dir, 'kv_store_doc_status.json'), '\n');
    // The agent sees the writer alive while it waits for the end of the flush.
    await sleep(3000);
    const exit = once(writer, 'exit');
    writer.kill('SIGKILL');
    await exit;
    const killedMs = performance.now();
    appendFileSync(join(subject.dir, 'kv_store_doc_status.json'), '\n');
    await until('a point after the kill', () => points.some(({ atMs }) => atMs >= killedMs), 10_000);
    const { snapshot, files } = await subject.show('latest');
    assert.deepEqual(
      snapshot.findings.filter(({ code }) => code === 'stale_temp').map(({ severity }) => severity),
      ['INFO'],
    );
    assert.deepEqual(
      files.filter(({ path }) => path.includes('.tmp.')),
      [],
    );
    assert.equal((await agent.stop()).code, 0);
  });
});
