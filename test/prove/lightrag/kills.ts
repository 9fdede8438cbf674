// Servers that are killed while they write, restored in place and started again: how long until the right answer.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { random } from '../../../demo/random.ts';
import { filesMark } from '../../support/lightrag/api.ts';
import { Guard, isUsable } from '../../support/lightrag/grading.ts';
import { documentOf, fileOf } from '../../support/lightrag/ingest.ts';
import { World } from '../../support/lightrag/world.ts';
import { tempFolder, until } from '../../support/place.ts';
import { lightkeeper, outcomeText } from '../../support/program.ts';
import { withScope } from '../../support/scope.ts';
import type { Part } from './part.ts';

const KILLS = 40;
const MEDIAN_MAX_MS = 8000;
const WORST_MAX_MS = 15_000;
/** A kill comes so long after the first change of a file, at most. */
const KILL_WITHIN_MS = 600;
const CHANGE_WITHIN_MS = 60_000;
const EMBEDDING_MS = 100;

/** Inserts a document and kills the server while it writes it. */
async function killInFlush(world: World, n: number, delayMs: number): Promise<void> {
  await world.api.insert(documentOf(n).text, fileOf(n));
  // The first writes say that the document is there; those of the graph follow them.
  const before = filesMark(join(world.dir));
  await until('files change', () => filesMark(world.dir) !== before, CHANGE_WITHIN_MS);
  await sleep(delayMs);
  await world.stop('SIGKILL');
}

/** Restores the newest usable point in place, starts the server, and asks for a document; returns the time it took. */
async function recover(world: World, guard: Guard, url: string, expected: number): Promise<number> {
  const began = performance.now();
  const target = ['--in-place', world.dir, '--instance-url', url];
  const words = [
    'restore',
    '--store',
    guard.store,
    '--snapshot',
    'latest-valid',
    ...target,
    '--yes',
    '--json',
  ];
  const ended = await lightkeeper([...words, '--disk-reserve', '0']);
  if (ended.code !== 0) throw new Error(outcomeText(ended));
  await world.start();
  const [name = ''] = documentOf(expected).names;
  const { body } = await world.api.query(`Where was ${name}?`, 'naive', { only_need_context: true });
  if (!JSON.stringify(body).includes(name))
    throw new Error(`a query does not find ${name}: ${JSON.stringify(body)}`);
  return performance.now() - began;
}

/** Proves that a killed server answers rightly again in time. */
export async function proveKills(part: Part): Promise<string[]> {
  return await withScope(async (scope) => {
    const root = await tempFolder(scope);
    const draw = random(part.seed);
    const world = await World.make({ scope, installed: part.installed, root, onState: async () => {} });
    await world.start();
    world.fake.embeddingDelayMs = EMBEDDING_MS;
    const failures: string[] = [];
    const times: number[] = [];
    for (let n = 0; n < 2 * (part.count ?? KILLS); n += 2) {
      // An agent for each server, as each has a port of its own.
      const guardRoot = join(root, 'guard');
      const { url } = world.api;
      const guard = new Guard(scope, { dir: world.dir, root: guardRoot, url });
      await world.insert(documentOf(n).text.replace(/^@@.*?@@ /, ''), fileOf(n));
      const judged = await guard.judged();
      if (!isUsable(judged)) failures.push(`before kill ${n / 2}: ${judged.grade}`);
      await killInFlush(world, n + 1, draw(KILL_WITHIN_MS));
      try {
        times.push(await recover(world, guard, url, n));
      } catch (error) {
        failures.push(`kill ${n / 2}: ${String(error)}`);
        if (world.server === undefined) break;
      }
      await guard.agent.stop();
    }
    const sorted = times.toSorted((a, b) => a - b);
    const [median = 0, worst = 0] = [sorted[Math.floor(sorted.length / 2)], sorted.at(-1)];
    part.log(
      `${times.length} kills recovered: median ${(median / 1000).toFixed(1)} s, worst ${(worst / 1000).toFixed(1)} s`,
    );
    if (median > MEDIAN_MAX_MS) failures.push(`median ${Math.round(median)} ms`);
    if (worst > WORST_MAX_MS) failures.push(`worst ${Math.round(worst)} ms`);
    return failures;
  });
}
