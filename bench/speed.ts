import { cp, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Generated, generate, ingest } from '../demo/generate.ts';
import { alternate, type Contender, measure, run, type Series } from './measure.ts';
import { borg, OURS, type Peer, PLACE, restic } from './peers.ts';
import type { Report } from './report.ts';

const ROUNDS = 5;

interface Ground {
  readonly dir: string;
  readonly more: string;
}

/** A generated directory of about `bytes`, and the same after 1 % more documents. */
export async function ground(bytes: number, log: (line: string) => void): Promise<Ground> {
  const dir = join(PLACE, 'rag');
  const more = join(PLACE, 'rag-more');
  await rm(PLACE, { recursive: true, force: true });
  await mkdir(PLACE, { recursive: true });
  log(`generating ${(bytes / 1e9).toFixed(1)} GB`);
  const state: Generated = await generate(dir, { seed: 1, bytes });
  await cp(dir, more, { recursive: true, preserveTimestamps: true });
  await ingest(more, state, Math.max(1, Math.round(state.ingested / 100)));
  await run('sync');
  return { dir, more };
}

function ours(store: string, dir: string): Contender['command'] {
  return [...OURS, 'snapshot', '--dir', dir, '--graph', 'g', '--store', store, '--no-grade'];
}

/** Removes a folder, or replaces it by a copy of `from`. */
export async function fresh(path: string, from?: string): Promise<void> {
  await rm(path, { recursive: true, force: true });
  if (from !== undefined) await cp(from, path, { recursive: true, preserveTimestamps: true });
}

async function freshRepo(peer: Peer, repo: string): Promise<void> {
  await fresh(repo);
  await peer.init(repo);
}

/** First snapshot, unchanged, and one percent more: against borg, restic beside it. */
export async function captures(bytes: number, report: Report): Promise<Ground> {
  const { log } = report;
  const { dir, more } = await ground(bytes, log);
  const store = join(PLACE, 'store');
  const repos = [borg, restic].map((peer) => ({ peer, repo: join(PLACE, peer.name) }));
  log('first snapshot');
  const first = await alternate(
    [
      { name: 'ours', prepare: () => fresh(store), command: ours(store, dir) },
      ...repos.map(({ peer, repo }) => ({
        name: peer.name,
        prepare: () => freshRepo(peer, repo),
        command: peer.create(repo, 'one', dir),
        env: peer.env,
      })),
    ],
    ROUNDS,
    log,
  );
  report.speed('First snapshot', first, 'borg', { floor: 1.2, goal: 1.6 });
  report.memory('First snapshot', first);
  log('unchanged');
  const unchanged = await alternate(
    [
      { name: 'ours', command: ours(store, dir) },
      ...repos.map(({ peer, repo }) => ({
        name: peer.name,
        command: peer.create(repo, 'again-{now:%H%M%S%f}', dir),
        env: peer.env,
      })),
    ],
    ROUNDS,
    log,
  );
  report.speed('Nothing changed', unchanged, 'borg', { floor: 0.5, goal: 1 });
  log('one percent more');
  // The ingest has written every file, so all three read everything. Each round begins with the same repository
  // and with the cache that goes with it: borg would otherwise build its cache anew.
  const onePercent = await alternate(
    [
      { name: 'ours', prepare: () => fresh(`${store}-more`, store), command: ours(`${store}-more`, more) },
      ...repos.map(({ peer, repo }) => ({
        name: peer.name,
        prepare: async () => {
          await fresh(`${repo}-more`, repo);
          await fresh(`${peer.cache}-more`, peer.cache);
        },
        command: peer.create(`${repo}-more`, 'two', more),
        env: { ...peer.env, [peer.cacheVariable]: `${peer.cache}-more` },
      })),
    ],
    ROUNDS,
    log,
  );
  report.speed('One percent more documents', onePercent, 'borg', { floor: 1.6, goal: 3 });
  return { dir, more };
}

/** Restore and the check of all bytes, on the stores that `captures` left. */
export async function restores(dir: string, report: Report): Promise<void> {
  const { log } = report;
  const store = join(PLACE, 'store');
  const to = join(PLACE, 'restored');
  log('restore');
  const series: Series[] = await alternate(
    [
      {
        name: 'ours',
        prepare: () => fresh(to),
        command: [...OURS, 'restore', '--snapshot', 'latest', '--store', store, '--to', to],
      },
      ...[borg, restic].map((peer) => ({
        name: peer.name,
        prepare: async () => {
          await fresh(to);
          await mkdir(to);
        },
        command: peer.extract(join(PLACE, peer.name), 'one', to),
        cwd: to,
        env: peer.env,
      })),
      {
        name: 'cp -r, sync -f',
        prepare: () => fresh(to),
        command: ['sh', '-c', `cp -r ${dir} ${to} && sync -f ${to}`],
      },
    ],
    ROUNDS,
    log,
  );
  report.speed('Restore', series, 'borg', { floor: 1.5, goal: 2.5 });
  report.memory('Restore', series);
  await fresh(to);
  log('check of all bytes');
  const checks = await alternate(
    [
      { name: 'ours', command: [...OURS, 'verify', '--level', 'bytes', '--store', store] },
      ...[borg, restic].map((peer) => ({
        name: peer.name,
        command: peer.check(join(PLACE, peer.name)),
        env: peer.env,
      })),
    ],
    ROUNDS,
    log,
  );
  report.speed('Check of all bytes', checks, 'borg', { floor: 1, goal: 1 });
}

/** Peak memory of a first snapshot at four times the size. */
export async function bigMemory(bytes: number, smallRss: number, report: Report): Promise<void> {
  const dir = join(PLACE, 'rag-big');
  const store = join(PLACE, 'store-big');
  await rm(PLACE, { recursive: true, force: true });
  await mkdir(PLACE, { recursive: true });
  report.log(`generating ${(bytes / 1e9).toFixed(1)} GB`);
  await generate(dir, { seed: 2, bytes });
  const result = await measure({ name: 'ours', command: ours(store, dir) });
  report.ratio('Memory at four times the size', result.rssBytes / smallRss, {
    floor: 1.25,
    text: `${(result.rssBytes / 1e6).toFixed(0)} MB at ${(bytes / 1e9).toFixed(0)} GB, ${(smallRss / 1e6).toFixed(0)} MB at a quarter of it`,
  });
}
