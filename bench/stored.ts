import { cp, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { filesBytes, measure } from './measure.ts';
import { borg, OURS, PLACE, restic } from './peers.ts';
import type { Report } from './report.ts';

const FIXTURES = join(import.meta.dirname, '..', '..', 'shared', 'fixtures');

/** Ten real states of one directory in one store: what is on disk in the end. */
export async function stored(report: Report): Promise<void> {
  const states = (await readdir(FIXTURES).catch(() => []))
    .filter((name) => name.startsWith('gustobot@'))
    .sort();
  if (states.length === 0) return report.note('The gustobot series is not on this machine: skipped.');
  const place = join(PLACE, 'series');
  await rm(place, { recursive: true, force: true });
  await mkdir(place, { recursive: true });
  const dir = join(place, 'gustobot');
  const store = join(place, 'store');
  const peers = [borg, restic];
  for (const peer of peers) await peer.init(join(place, peer.name));
  let raw = 0;
  for (const state of states) {
    await rm(dir, { recursive: true, force: true });
    await cp(join(FIXTURES, state), dir, { recursive: true, preserveTimestamps: true });
    raw += await filesBytes(dir);
    await measure({
      name: 'ours',
      command: [...OURS, 'snapshot', '--dir', dir, '--store', store, '--no-grade', '--quiet', '0ms'],
    });
    for (const peer of peers) {
      await measure({
        name: peer.name,
        command: peer.create(join(place, peer.name), state, dir),
        env: peer.env,
      });
    }
  }
  await measure({ name: 'ours', command: [...OURS, 'prune', '--keep-last', '100', '--store', store] });
  const sizes = {
    ours: await filesBytes(store, 'index'),
    oursWithIndex: await filesBytes(store),
    borg: await filesBytes(join(place, 'borg')),
    restic: await filesBytes(join(place, 'restic')),
  };
  const mb = (bytes: number) => `${(bytes / 1e6).toFixed(2)} MB`;
  report.ratio('Stored, ten real states', sizes.ours / sizes.borg, {
    floor: 0.85,
    goal: 0.8,
    text: `${mb(sizes.ours)} (${mb(sizes.oursWithIndex)} with the index, a cache), borg ${mb(sizes.borg)}, restic ${mb(sizes.restic)}, of ${mb(raw)}`,
  });
}
