import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { flushFiles } from '../../../agent/watch/flush.ts';
import { scan } from '../../../agent/watch/scan.ts';
import { TempWriters } from '../../../agent/watch/temp-writers.ts';
import { Severity_Value } from '../../../gen/lightkeeper/v1/types_pb.ts';
import { atEnd, type Scope, tempFolder } from '../../support/place.ts';

/** A process that does nothing, killed when the test ends. */
function idleProcess(t: Scope): ChildProcess & { readonly pid: number } {
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  atEnd(t, () => child.kill('SIGKILL'));
  assert.ok(child.pid !== undefined);
  return child as ChildProcess & { readonly pid: number };
}

async function ended(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

/** Writes a temporary file as LightRAG names it, `ageS` seconds ago; returns its path. */
function temporary(dir: string, pid: number, ageS = 0): string {
  const path = join(dir, `vdb_chunks.json.tmp.${pid}.140737.1790000000000000000`);
  writeFileSync(path, 'half');
  const time = Date.now() / 1000 - ageS;
  utimesSync(path, time, time);
  return path;
}

async function flushing(dir: string, writers = new TempWriters()): Promise<number> {
  return flushFiles(await scan(Buffer.from(dir), { writers })).length;
}

describe('a temporary file', () => {
  it('means a flush for a minute while its process runs', async (t) => {
    const dir = await tempFolder(t);
    const { pid } = idleProcess(t);
    temporary(dir, pid, 50);
    assert.equal(await flushing(dir), 1);
    temporary(dir, pid, 61);
    assert.equal(await flushing(dir), 0);
  });

  it('means a flush for a minute while its process cannot be seen', async (t) => {
    const dir = await tempFolder(t);
    const child = idleProcess(t);
    await ended(child);
    temporary(dir, child.pid);
    assert.equal(await flushing(dir), 1);
  });

  it('means no flush once its process, seen alive before, has ended', async (t) => {
    const dir = await tempFolder(t);
    const child = idleProcess(t);
    temporary(dir, child.pid);
    const writers = new TempWriters();
    assert.equal(await flushing(dir, writers), 1);
    await ended(child);
    const after = await scan(Buffer.from(dir), { writers });
    assert.deepEqual(flushFiles(after), []);
    const [finding, ...others] = after.findings;
    assert.deepEqual([finding?.code, finding?.severity, others], ['stale_temp', Severity_Value.INFO, []]);
  });

  it('means no flush if the instance is down, unless its process is seen to run', async (t) => {
    const dir = await tempFolder(t);
    const child = idleProcess(t);
    temporary(dir, child.pid);
    assert.equal(await flushing(dir, new TempWriters(() => true)), 1);
    await ended(child);
    assert.equal(await flushing(dir, new TempWriters(() => true)), 0);
  });

  it('means no flush while its process has ended but was not waited for', async (t) => {
    const dir = await tempFolder(t);
    // The shell becomes a program that never waits for its child.
    const parent = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    atEnd(t, () => parent.kill('SIGKILL'));
    const [line] = (await once(parent.stdout, 'data')) as [Buffer];
    await new Promise((resolve) => setTimeout(resolve, 300));
    temporary(dir, Number(line.toString()));
    assert.equal(await flushing(dir, new TempWriters(() => true)), 0);
  });

  it('means a flush at any age while it grows', async (t) => {
    const dir = await tempFolder(t);
    const path = temporary(dir, 2 ** 22 + 1, 3600);
    const before = await scan(Buffer.from(dir));
    assert.deepEqual(flushFiles(before), []);
    appendFileSync(path, ' and more');
    const time = Date.now() / 1000 - 3600;
    utimesSync(path, time, time);
    const after = await scan(Buffer.from(dir));
    assert.deepEqual(flushFiles(after, before).length, 1);
  });

  it('is seen although a pattern excludes it', async (t) => {
    const dir = await tempFolder(t);
    temporary(dir, process.pid);
    const found = await scan(Buffer.from(dir), { exclude: ['*.tmp.*', 'vdb_*'] });
    assert.deepEqual([flushFiles(found).length, found.entries.length], [1, 0]);
  });

  it('is no temporary file of LightRAG without the three numbers', async (t) => {
    const dir = await tempFolder(t);
    for (const name of ['a.tmp.1', 'b.tmp.1.2', 'c.tmp', 'd.tmp.x.2.3']) writeFileSync(join(dir, name), 'x');
    const found = await scan(Buffer.from(dir));
    assert.deepEqual([flushFiles(found).length, found.entries.length], [0, 4]);
  });
});
