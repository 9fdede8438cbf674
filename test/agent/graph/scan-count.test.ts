import assert from 'node:assert/strict';
import fs, { writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type AgentSettings, defaultRetention, GRAPH_DEFAULTS } from '../../../agent/config/settings.ts';
import { withStore } from '../../../agent/main.ts';
import { type AgentEvents, runAgent } from '../../../agent/run/agent.ts';
import { lastOf } from '../../../cli/await-result.ts';
import { callsInProcess, GRAPH, scratch } from '../../prove/store-calls.ts';
import { fill } from '../../support/fill.ts';
import { until } from '../../support/place.ts';

const folder = scratch('scans', { memory: true });
after(() => folder.drop());

/** A folder in each directory, which nothing but a scan reads. */
const MARKER = 'marker';
/** A directory that has not changed for so long is at rest for every capture here. */
const RESTED_MS = 200;

/** Change times are those of the last tick of the kernel's clock. */
const TICK_MS = 20;

/** Counts the scans of one directory: each lists every folder once. */
class ScanCounter {
  /** Times of the scans on the monotonic clock. */
  readonly times: number[] = [];
  readonly #original = fs.readdirSync;

  constructor(dir: string) {
    const marker = join(dir, MARKER);
    const { times } = this;
    // Modules import the function by its name: `syncBuiltinESMExports` gives them this one.
    fs.readdirSync = new Proxy(this.#original, {
      apply(target, self, args: Parameters<typeof fs.readdirSync>) {
        if (String(args[0]) === marker) times.push(performance.now());
        return Reflect.apply(target, self, args);
      },
    });
    syncBuiltinESMExports();
  }

  /** Counts the scans that began between two times. */
  between(fromMs: number, toMs: number): number {
    return this.times.filter((time) => time >= fromMs && time <= toMs).length;
  }

  end(): void {
    fs.readdirSync = this.#original;
    syncBuiltinESMExports();
  }
}

function makeDir(): string {
  const dir = folder.fresh('dir');
  fill(dir, { 'kv_store_notes.json': '{}', 'graph.graphml': '<graphml/>', [`${MARKER}/leaf`]: 'x' });
  return dir;
}

describe('a single snapshot', () => {
  it('scans an unchanged directory at most twice, a changed one at most three times', async () => {
    const dir = makeDir();
    const calls = callsInProcess(folder.fresh('store'));
    const counter = new ScanCounter(dir);
    const scans = async () => {
      await sleep(RESTED_MS);
      const before = counter.times.length;
      const { unchanged } = await calls.snapshot(dir);
      return { unchanged, scans: counter.times.length - before };
    };
    try {
      const first = await scans();
      assert.equal(!first.unchanged && first.scans >= 2 && first.scans <= 3, true, JSON.stringify(first));
      const same = await scans();
      assert.equal(same.unchanged && same.scans >= 1 && same.scans <= 2, true, JSON.stringify(same));
      writeFileSync(join(dir, 'graph.graphml'), '<graphml>2</graphml>');
      const changed = await scans();
      assert.equal(
        !changed.unchanged && changed.scans >= 2 && changed.scans <= 3,
        true,
        JSON.stringify(changed),
      );
    } finally {
      counter.end();
    }
  });
});

/** Settings of an agent that guards one directory. */
function settingsOf(dir: string, store: string, quietMs: number): AgentSettings {
  const graph = {
    ...GRAPH_DEFAULTS,
    graphId: GRAPH,
    isIdGiven: true,
    dir: Buffer.from(dir),
    quietMs,
    minIntervalMs: 0,
    split: false,
    retention: defaultRetention(),
  };
  const any = { host: '127.0.0.1', port: 0, fallback: false, secure: false };
  const listeners = { name: 'a', http: any, grpc: any, tls: undefined, hosts: undefined };
  return {
    store,
    graphs: [graph],
    state: store,
    followed: [],
    targets: [],
    ...listeners,
    reserveBytes: 0n,
    scrubMs: 0,
    captures: true,
    continuous: true,
  };
}

describe('a running agent', () => {
  it('scans a changed directory at most three times once it is at rest, an unchanged one twice', async () => {
    const dir = makeDir();
    const store = folder.fresh('store');
    const quietMs = 300;
    const takenMs: number[] = [];
    const failures: unknown[] = [];
    const events: AgentEvents = {
      started: () => {},
      guarding: () => {},
      settled: () => {},
      pruned: () => {},
      waiting: () => {},
      healed: () => {},
      warned: () => {},
      instance: () => {},
      certificate: () => {},
      snapshot: () => takenMs.push(performance.now()),
      failed: (_, error) => failures.push(error),
    };
    const counter = new ScanCounter(dir);
    const stop = new AbortController();
    const running = runAgent(settingsOf(dir, store, quietMs), events, stop.signal);
    try {
      await until('the first point', () => takenMs.length === 1);
      for (const version of [2, 3, 4]) {
        await sleep(RESTED_MS + quietMs);
        writeFileSync(join(dir, 'graph.graphml'), `<graphml>${version}</graphml>`);
        const restedMs = performance.now() + quietMs - TICK_MS;
        await until('a further point', () => takenMs.length === version);
        const scans = counter.between(restedMs, takenMs.at(-1) ?? 0);
        // Of these the first one finds it at rest, and the last one finds it as it was read.
        assert.equal(scans >= 2 && scans <= 3, true, `${scans} scans of a directory that had changed`);
      }
      await sleep(RESTED_MS + quietMs);
      const counts: number[] = [];
      for (let n = 0; n < 3; n++) {
        const before = counter.times.length;
        const request = { dir: Buffer.from(dir), graphId: GRAPH };
        const { unchanged } = await withStore(store, {}, (client) => lastOf(client.createSnapshot(request)));
        assert.equal(unchanged, true);
        counts.push(counter.times.length - before);
      }
      // The agent itself may scan at the same time.
      assert.equal(Math.min(...counts) >= 1 && Math.min(...counts) <= 2, true, counts.join());
      assert.deepEqual(failures, []);
    } finally {
      stop.abort();
      await running;
      counter.end();
    }
  });
});
