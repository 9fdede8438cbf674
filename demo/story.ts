import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { up, withStore } from '../agent/main.ts';
import { LightkeeperError } from '../core/errors.ts';
import type { Snapshot } from '../gen/lightkeeper/v1/agent_pb.ts';
import { durationText, sizeText } from '../host/quantity.ts';
import { type Generated, generate, growCache, ingest, rowCounts } from './generate.ts';

const DOCUMENTS = 60;
const STEPS = 4;
/** A snapshot of a settled change comes well within this. */
const WAIT_MS = 20_000;

/** One file and its SHA-256, as `sha256sum` prints them. */
async function sha256Tree(dir: string): Promise<string[]> {
  const lines: string[] = [];
  for (const name of (await readdir(dir)).sort()) {
    const hash = createHash('sha256').update(await readFile(join(dir, name)));
    lines.push(`${hash.digest('hex')}  ${name}`);
  }
  return lines;
}

function say(line = ''): void {
  process.stdout.write(`${line}\n`);
}

/** Snapshots that an agent tells of, and a way to wait for the next one. */
class Told {
  readonly all: Snapshot[] = [];
  #wake: () => void = () => {};

  add(snapshot: Snapshot): void {
    this.all.push(snapshot);
    this.#wake();
  }

  async atLeast(count: number): Promise<void> {
    const deadline = AbortSignal.timeout(WAIT_MS);
    while (this.all.length < count) {
      await Promise.race([new Promise<void>((resolve) => (this.#wake = resolve)), aborted(deadline)]);
    }
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () =>
      reject(new LightkeeperError('DEADLINE', 'Cannot tell the story: no snapshot came in time')),
    );
  });
}

/** Tells the main job on a generated graph; throws if what it says does not come true. */
export async function tellStory(options: { keep: boolean }): Promise<void> {
  const place = await mkdtemp(join(tmpdir(), 'lightkeeper-demo-'));
  try {
    await story(place);
  } finally {
    if (options.keep) say(`the files are in ${place}`);
    else await rm(place, { recursive: true, force: true });
  }
}

async function story(place: string): Promise<void> {
  const dir = join(place, 'rag_storage');
  const store = join(place, 'points');
  const beganMs = performance.now();
  say('1. A LightRAG working directory, and an agent beside it (what "lightkeeper up" runs)');
  let state = await generate(dir, { seed: 7, documents: DOCUMENTS });
  const { chunks, entities, relationships } = rowCounts(state);
  say(`   ${DOCUMENTS} documents, ${chunks} chunks, ${entities} entities, ${relationships} relations`);
  const stop = new AbortController();
  const told = new Told();
  let failure: LightkeeperError | undefined;
  const agent = up(
    {
      dir: Buffer.from(dir),
      graphId: 'demo',
      store,
      http: { host: '127.0.0.1', port: 0, fallback: true },
      reserveBytes: 0n,
    },
    {
      started: () => {},
      guarding: () => {},
      snapshot: (snapshot) => told.add(snapshot),
      settled: () => {},
      pruned: () => {},
      waiting: () => {},
      warned: () => {},
      failed: (_, error) => {
        failure = error;
      },
    },
    stop.signal,
  );
  try {
    await told.atLeast(1);
    say(`   first point: ${pointText(told.all[0])}`);
    say();
    say('2. The instance writes; every settled change becomes a point by itself');
    state = await write(dir, state, told);
    say();
    say('3. The directory is destroyed');
    const before = await sha256Tree(dir);
    for (const line of before) say(`   ${line}`);
  } finally {
    stop.abort();
    await agent;
  }
  if (failure !== undefined) throw failure;
  const before = await sha256Tree(dir);
  await rm(dir, { recursive: true });
  say('   rm -rf: gone');
  say();
  await bringBack(store, dir, before);
  say();
  say(`the whole story took ${durationText(performance.now() - beganMs)}`);
}

function pointText(snapshot: Snapshot | undefined): string {
  if (snapshot === undefined) return '-';
  const { snapshotId, rawBytes, newBytes, storedBytes, durationMs } = snapshot;
  return (
    `${snapshotId.slice(0, 12)}  ${sizeText(Number(rawBytes))}, ${sizeText(Number(newBytes))} new, ` +
    `${sizeText(Number(storedBytes))} stored, ${durationText(durationMs)}`
  );
}

async function write(dir: string, first: Generated, told: Told): Promise<Generated> {
  let state = first;
  for (let step = 1; step <= STEPS; step++) {
    const query = step % 2 === 1;
    const seen = told.all.length;
    state = query ? await growCache(dir, state) : await ingest(dir, state, 1);
    const wroteMs = performance.now();
    await told.atLeast(seen + 1);
    const lag = durationText(performance.now() - wroteMs);
    say(
      `   ${query ? 'one query    ' : 'one document '} → ${pointText(told.all.at(-1))}  (${lag} after the write)`,
    );
    await sleep(50);
  }
  return state;
}

async function bringBack(store: string, dir: string, before: readonly string[]): Promise<void> {
  say('4. It is restored from its newest point');
  const began = performance.now();
  const { stats } = await withStore(store, {}, async (client) => {
    const events = client.restore({ snapshotId: 'latest', to: Buffer.from(dir), diskReserveBytes: 0n });
    for await (const { event } of events) {
      if (event.case !== 'result') continue;
      const { files, bytes } = event.value;
      say(
        `   ${files} files, ${sizeText(Number(bytes))}, read back and hashed, in ${durationText(performance.now() - began)}`,
      );
    }
    return { stats: await client.getStats({}) };
  });
  const after = await sha256Tree(dir);
  for (const line of after) say(`   ${line}`);
  if (after.join('\n') !== before.join('\n')) {
    throw new LightkeeperError('INTERNAL', 'Cannot tell the story to its end: the restored files differ');
  }
  say(`   the two lists are equal: ${after.length} files, byte for byte`);
  say();
  say(
    `5. What it cost: ${stats.snapshots} points of ${sizeText(Number(stats.rawBytes))} in all are kept in ` +
      `${sizeText(Number(stats.storedBytes))} (${(stats.savedRatio * 100).toFixed(0)} % saved)`,
  );
}
