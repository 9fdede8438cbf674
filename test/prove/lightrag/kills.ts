// Servers that are killed while they write, restored in place and started again: how long until the right answer.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { random } from '../../../demo/random.ts';
import { filesMark } from '../../support/lightrag/api.ts';
import { Guard, isUsable } from '../../support/lightrag/grading.ts';
import { documentOf, fileOf, finds } from '../../support/lightrag/ingest.ts';
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

/** Times since a kill, in milliseconds: until the directory was restored, and until the right answer. */
interface Recovered {
  readonly restoredMs: number;
  readonly rightMs: number;
}

/** Returns the middle and the largest of some times. */
function spread(times: readonly number[]): { median: number; worst: number } {
  const sorted = times.toSorted((a, b) => a - b);
  return { median: sorted[Math.floor(sorted.length / 2)] ?? 0, worst: sorted.at(-1) ?? 0 };
}

/** Restores the newest usable point in place, starts the server, and asks for a document. */
async function recover(world: World, guard: Guard, url: string, expected: number): Promise<Recovered> {
  const began = performance.now();
  const target = ['--in-place', world.dir, '--instance-url', url];
  const words = ['restore', '--store', guard.store, '--snapshot', 'latest-valid', ...target, '--json'];
  const ended = await lightkeeper([...words, '--disk-reserve', '0']);
  if (ended.code !== 0) throw new Error(outcomeText(ended));
  const restoredMs = performance.now() - began;
  await world.start();
  if (!(await finds(world.api, documentOf(expected))))
    throw new Error(`a query does not find ${fileOf(expected)}`);
  return { restoredMs, rightMs: performance.now() - began };
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
    const times: Recovered[] = [];
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
    const { median, worst } = spread(times.map(({ rightMs }) => rightMs));
    const restored = spread(times.map(({ restoredMs }) => restoredMs));
    const text = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
    part.log(
      `${times.length} kills recovered: median ${text(median)}, worst ${text(worst)}; ` +
        `of it the restore ${text(restored.median)}, at worst ${text(restored.worst)}`,
    );
    if (median > MEDIAN_MAX_MS) failures.push(`median ${Math.round(median)} ms`);
    if (worst > WORST_MAX_MS) failures.push(`worst ${Math.round(worst)} ms`);
    return failures;
  });
}
