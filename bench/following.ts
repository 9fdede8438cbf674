import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials } from '@grpc/grpc-js';
import { type Generated, generate, ingest } from '../demo/generate.ts';
import { TcpProxy } from '../test/support/tcp-proxy.ts';
import { BARE } from './bare-stream.ts';
import { freshPlace, Guarded } from './guarded.ts';
import { filesBytes, measure, median, run } from './measure.ts';
import { OURS } from './peers.ts';
import type { Report } from './report.ts';

const MB = 1e6;
const ROUNDS = 3;
const REST_MS = 1500;
/** Ports that nothing else here has. */
const SOURCE_PORT = 29_702;
const RSYNC_PORT = 29_704;
const BARE_PORT = 29_705;
const SOURCE_URL = `http://127.0.0.1:${SOURCE_PORT}`;
const FOLLOWERS = 10;

/** The agent of one machine. */
class Peer {
  readonly state: string;
  readonly agent: Guarded;

  constructor(place: string, name: string, words: readonly string[]) {
    this.state = join(place, name);
    const own = ['--state', this.state, '--name', name, '--http', '127.0.0.1:0', '--disk-reserve', '0'];
    this.agent = new Guarded(['agent', ...own, '--graph', 'g', ...words]);
  }

  static source(place: string, dir: string, name = 'source'): Peer {
    return new Peer(place, name, ['--dir', dir, '--grpc', `127.0.0.1:${SOURCE_PORT}`, '--quiet', '100ms']);
  }

  static follower(place: string, name: string, url = SOURCE_URL): Peer {
    return new Peer(place, name, ['--grpc', '127.0.0.1:0', '--follow', url]);
  }

  /** Waits until this follower, which may just have been started, holds all that its source has. */
  async caughtUp(): Promise<void> {
    const words = ['replicate', '--graph', 'g', '--timeout', '600s', '--state', this.state];
    await until(async () => void (await measure({ name: 'replicate', command: [...OURS, ...words] })));
  }

  async receivedBytes(): Promise<number> {
    const { stdout } = await run(OURS[0], [OURS[1], 'status', '--state', this.state, '--json']);
    const { graphs } = JSON.parse(stdout) as { graphs: { source: { receivedBytes: string } }[] };
    return Number(graphs[0]?.source.receivedBytes);
  }
}

function storedBytes(place: string, name: string): Promise<number> {
  return filesBytes(join(place, name, 'store', 'packs'));
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

/** From the commit of a one-document change to the commit of its copy in another process. */
async function changes(
  bytes: number,
  { rounds, marks }: { readonly rounds: number; readonly marks: { floor: number; goal: number } },
  report: Report,
): Promise<void> {
  const place = await freshPlace('changes');
  const dir = join(place, 'rag');
  let state: Generated = await generate(dir, { seed: 5, bytes });
  const source = Peer.source(place, dir);
  await source.agent.point(1);
  const follower = Peer.follower(place, 'follower');
  await follower.caughtUp();
  await follower.agent.point(1);
  const seconds: number[] = [];
  const before = [await follower.receivedBytes(), await storedBytes(place, 'source')] as const;
  try {
    for (let round = 1; round <= rounds; round++) {
      await sleep(REST_MS);
      const points = source.agent.toldMs.length;
      const copies = follower.agent.toldMs.length;
      state = await ingest(dir, state, 1);
      const committedMs = await source.agent.point(points + 1);
      const copiedMs = await follower.agent.point(copies + 1);
      // A pause between two files makes a point of its own: the copy of one is compared with that one.
      if (source.agent.toldMs.length === points + 1) seconds.push((copiedMs - committedMs) / 1000);
      await follower.caughtUp();
    }
    const received = (await follower.receivedBytes()) - before[0];
    const stored = (await storedBytes(place, 'source')) - before[1];
    const size = bytes < 1e9 ? `${bytes / MB} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
    const p99 = quantile(seconds, 0.99);
    report.ratio(`A change of one document in ${size}, on a follower`, p99 / marks.floor, {
      floor: 1,
      goal: marks.goal / marks.floor,
      text: `${p99.toFixed(3)} s from the commit to the commit of the copy (99th percentile of ${seconds.length}, median ${median(seconds).toFixed(3)} s)`,
    });
    report.ratio(`Bytes on the wire of changes in ${size}`, received / stored, {
      floor: 1.1,
      goal: 1.03,
      text: `${(received / MB).toFixed(2)} MB of frames for ${(stored / MB).toFixed(2)} MB of new packs`,
    });
  } finally {
    await follower.agent.end();
    await source.agent.end();
  }
}

interface Transfer {
  readonly seconds: number;
  readonly rssBytes: number;
}

/** Starts a new follower, and returns how long it takes to hold everything. */
async function bulk(place: string, url = SOURCE_URL): Promise<Transfer> {
  await rm(join(place, 'follower'), { recursive: true, force: true });
  await run('sync');
  const began = performance.now();
  const follower = Peer.follower(place, 'follower', url);
  try {
    await follower.caughtUp();
    const seconds = (performance.now() - began) / 1000;
    return { seconds, rssBytes: await peakRss(follower.agent.child) };
  } finally {
    await follower.agent.end();
  }
}

/** Tries until the agent listens. */
async function until(attempt: () => Promise<void>): Promise<void> {
  for (let left = 50; ; left--) {
    try {
      await attempt();
      return;
    } catch (error) {
      if (left === 0) throw error;
      await sleep(100);
    }
  }
}

async function peakRss({ pid }: ChildProcess): Promise<number> {
  const { stdout } = await run('grep', ['VmHWM', `/proc/${pid}/status`]);
  return Number(/(\d+) kB/.exec(stdout)?.[1]) * 1024;
}

/** Copies packs by an rsync daemon, to the disk. */
async function rsync(place: string): Promise<number> {
  const to = join(place, 'rsynced');
  await rm(to, { recursive: true, force: true });
  await mkdir(to);
  await run('sync');
  const from = `rsync://127.0.0.1:${RSYNC_PORT}/packs/`;
  return (await measure({ name: 'rsync', command: ['sh', '-c', `rsync -a ${from} ${to} && sync -f ${to}`] }))
    .seconds;
}

async function rsyncDaemon(place: string): Promise<ChildProcess> {
  const config = join(place, 'rsyncd.conf');
  const packs = join(place, 'source', 'store', 'packs');
  await writeFile(config, `use chroot = false\n[packs]\npath = ${packs}\nuid = 0\ngid = 0\n`);
  const words = [
    '--daemon',
    '--no-detach',
    `--port=${RSYNC_PORT}`,
    '--address=127.0.0.1',
    `--config=${config}`,
  ];
  const daemon = spawn('rsync', words, { stdio: 'ignore' });
  await sleep(500);
  return daemon;
}

/** Reads so many bytes from a bare stream of another process, and returns the seconds that it takes. */
async function bareStream(bytes: number): Promise<number> {
  const file = join(import.meta.dirname, 'bare-stream.ts');
  const words = ['--import', 'tsx', file, `${BARE_PORT}`, `${bytes}`];
  const server = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => server.stdout.once('data', resolve));
  const client = new Client(`127.0.0.1:${BARE_PORT}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
    'grpc-node.flow_control_window': 8 << 20,
  });
  const { path, requestSerialize, responseDeserialize } = BARE;
  const began = performance.now();
  try {
    const empty = Buffer.alloc(0);
    for await (const _ of client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, empty));
    return (performance.now() - began) / 1000;
  } finally {
    client.close();
    server.kill('SIGKILL');
  }
}

/** A whole graph: beside rsync, through proxies with a round trip, and with ten followers. */
async function bulks(bytes: number, report: Report): Promise<Transfer> {
  const place = await freshPlace('bulk');
  const dir = join(place, 'rag');
  await generate(dir, { seed: 6, bytes });
  const source = Peer.source(place, dir);
  const daemon = await rsyncDaemon(place);
  try {
    await source.agent.point(1);
    const stored = await storedBytes(place, 'source');
    const ours: Transfer[] = [];
    const theirs: number[] = [];
    for (let round = 1; round <= ROUNDS; round++) {
      ours.push(await bulk(place));
      theirs.push(await rsync(place));
      report.log(
        `  round ${round}: ours ${ours.at(-1)?.seconds.toFixed(2)} s, rsync ${theirs.at(-1)?.toFixed(2)} s`,
      );
    }
    const middle = median(ours.map(({ seconds }) => seconds));
    report.ratio(`A whole graph of ${(bytes / 1e9).toFixed(1)} GB`, middle / median(theirs), {
      floor: 2.2,
      goal: 1.5,
      text: `${middle.toFixed(2)} s from the start of a new follower until it holds ${(stored / MB).toFixed(0)} MB of packs, rsync and sync -f of the same packs ${median(theirs).toFixed(2)} s`,
    });
    const bare: number[] = [];
    for (let round = 1; round <= ROUNDS; round++) bare.push(await bareStream(stored));
    report.ratio('A bare stream of as many bytes', middle / median(bare), {
      floor: 1 / 0.4,
      goal: 1 / 0.6,
      text: `${median(bare).toFixed(2)} s without reading, checking or storing anything; ours ${middle.toFixed(2)} s`,
    });
    for (const [roundTripMs, floor] of [
      [20, 60],
      [100, 15],
    ] as const) {
      const undo: (() => Promise<void>)[] = [];
      const proxy = await TcpProxy.to(SOURCE_PORT, { after: (step) => void undo.push(step) });
      proxy.delayMs = roundTripMs / 2;
      const { seconds } = await bulk(place, proxy.url);
      for (const step of undo) await step();
      const rate = stored / MB / seconds;
      report.ratio(`Through ${roundTripMs} ms of round trip`, floor / rate, {
        floor: 1,
        text: `${rate.toFixed(0)} MB/s (at least ${floor})`,
      });
    }
    const rssBytes = Math.max(...ours.map((one) => one.rssBytes));
    const sourceRss = await peakRss(source.agent.child);
    for (const [name, rss] of [
      ['follower', rssBytes],
      ['source', sourceRss],
    ] as const)
      report.ratio(`Memory of the ${name} of ${(bytes / 1e9).toFixed(1)} GB`, rss / (250 * MB), {
        floor: 1,
        text: `${(rss / MB).toFixed(0)} MB at most (at most 250)`,
      });
    return { seconds: middle, rssBytes: Math.max(rssBytes, sourceRss) };
  } finally {
    daemon.kill();
    await source.agent.end();
  }
}

/** Memory of a source with ten followers, as a multiple of that with one. */
async function many(bytes: number, report: Report): Promise<void> {
  const place = await freshPlace('many');
  const dir = join(place, 'rag');
  await generate(dir, { seed: 7, bytes });
  const rss: number[] = [];
  for (const count of [1, FOLLOWERS]) {
    await rm(join(place, 'source'), { recursive: true, force: true });
    const source = Peer.source(place, dir);
    await source.agent.point(1);
    const followers: Peer[] = [];
    for (let i = 0; i < count; i++) followers.push(Peer.follower(place, `f${count}-${i}`));
    for (const follower of followers) await follower.caughtUp();
    rss.push(await peakRss(source.agent.child));
    for (const { agent } of followers) await agent.end();
    await source.agent.end();
  }
  const [one = Number.NaN, ten = Number.NaN] = rss;
  report.ratio(`Memory of a source with ${FOLLOWERS} followers`, ten / one, {
    floor: 1.3,
    text: `${(ten / MB).toFixed(0)} MB, ${(one / MB).toFixed(0)} MB with one`,
  });
}

/** What following costs: time, bytes and memory. */
export async function following(bytes: number, report: Report): Promise<void> {
  const isQuick = bytes < 1e9;
  await changes(10 * MB, { rounds: isQuick ? 10 : 100, marks: { floor: 0.7, goal: 0.3 } }, report);
  await changes(bytes, { rounds: isQuick ? 3 : 20, marks: { floor: 2, goal: 1 } }, report);
  const small = await bulks(bytes, report);
  const large = await bulks(4 * bytes, report);
  report.ratio('Memory of following at four times the size', large.rssBytes / small.rssBytes, {
    floor: 1.25,
    text: `${(large.rssBytes / MB).toFixed(0)} MB, ${(small.rssBytes / MB).toFixed(0)} MB at a quarter of the size`,
  });
  await many(bytes / 10, report);
}
