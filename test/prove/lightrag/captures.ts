// Captures beside a real server that ingests, deletes, edits and fails: every usable one is whole.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { random } from '../../../demo/random.ts';
import { Case, type Snapshot } from '../../support/case.ts';
import { Guard, isUsable } from '../../support/lightrag/grading.ts';
import { FAIL_KEY, finds, Ingest } from '../../support/lightrag/ingest.ts';
import { Judge, type Truth, verdictText } from '../../support/lightrag/judge.ts';
import { LightRagServer } from '../../support/lightrag/server.ts';
import { World } from '../../support/lightrag/world.ts';
import { type Scope, tempFolder } from '../../support/place.ts';
import { lightkeeper, outcomeText } from '../../support/program.ts';
import { withScope } from '../../support/scope.ts';
import type { Part } from './part.ts';

const CAPTURES = 150;
const INGEST_EACH_MS = 5000;
const EMBEDDING_MS = 200;
const COMMAND_PAUSE_MS = 6000;
const WITHIN_MS = 20 * 60_000;
const REFUSALS_MAX = 5;
/** Of the attempts of an agent. */
const USABLE_MIN = 0.9;
/** Every so many-th usable point is also served by a server process. */
const SERVED_EACH = 15;

interface Taken {
  readonly who: string;
  readonly store: string;
  readonly points: readonly Pick<Snapshot, 'snapshotId' | 'grade'>[];
}

/** Takes single snapshots at any time, each of a graph of its own, until a time has come. */
async function takeSingly(dir: string, store: string, part: Part, isOver: () => boolean): Promise<Taken> {
  const draw = random(part.seed);
  const points: Snapshot[] = [];
  while (!isOver()) {
    await sleep(draw(COMMAND_PAUSE_MS));
    const words = ['snapshot', '--dir', dir, '--store', store, '--graph', `g${points.length}`, '--json'];
    const ended = await lightkeeper([...words, '--settle-timeout', '10s', '--disk-reserve', '0']);
    if (![0, 3].includes(ended.code ?? -1)) throw new Error(outcomeText(ended));
    points.push(JSON.parse(ended.stdout) as Snapshot);
  }
  return { who: 'single commands', store, points };
}

/** Lets agents and single commands capture beside a server until there are enough captures. */
async function takeAll(
  scope: Scope,
  part: Part,
  root: string,
): Promise<{ taken: Taken[]; world: World; ingest: Ingest }> {
  const world = await World.make({ scope, installed: part.installed, root, onState: async () => {} });
  await world.start();
  // As on a real endpoint: new versions compute embeddings inside their flush.
  world.fake.embeddingDelayMs = EMBEDDING_MS;
  const { dir, api } = world;
  const guards = {
    'an agent that asks': new Guard(scope, { dir, root: join(root, 'asks'), url: api.url }),
    'an agent that does not ask': new Guard(scope, { dir, root: join(root, 'silent') }),
  };
  const ingest = new Ingest(api, INGEST_EACH_MS);
  let isOver = false;
  const singly = takeSingly(dir, join(root, 'single/store'), part, () => isOver);
  singly.catch(() => {});
  const wanted = (part.count ?? CAPTURES) / 3;
  const end = performance.now() + WITHIN_MS;
  for (let round = 0; performance.now() < end; round++) {
    await sleep(INGEST_EACH_MS);
    if (ingest.refusals > REFUSALS_MAX) throw new Error('the server takes no more documents');
    // Failures come and go.
    if (round % 8 < 4) world.fake.failing.add(FAIL_KEY);
    else world.fake.failing.delete(FAIL_KEY);
    const counts = await Promise.all(
      Object.values(guards).map(async (guard) => (await guard.points()).length),
    );
    if (Math.min(...counts) >= wanted) break;
  }
  isOver = true;
  const taken = [await singly];
  await ingest.stop();
  for (const [who, guard] of Object.entries(guards)) {
    taken.push({ who, store: guard.store, points: await guard.points() });
    await guard.agent.stop();
  }
  world.fake.failing.clear();
  world.fake.embeddingDelayMs = 0;
  await world.stop('SIGKILL');
  return { taken, world, ingest };
}

/** Starts a server on a point, and returns what it does otherwise than it should. */
async function serve(
  part: Part,
  world: World,
  dir: string,
  truth: ReadonlyMap<string, Truth>,
): Promise<string[]> {
  return await withScope(async (scope) => {
    const beside = await tempFolder(scope);
    const server = await LightRagServer.start(scope, {
      installed: part.installed,
      fake: world.fake,
      dir,
      beside,
    });
    const failures: string[] = [];
    const processed = (await server.api.documents()).filter(({ status }) => status === 'processed');
    for (const { file_path = '' } of processed.slice(-2)) {
      const document = truth.get(file_path);
      if (document !== undefined && !(await finds(server.api, document)))
        failures.push(`a query does not find ${file_path}`);
    }
    await server.api.reprocess();
    await server.api.settle(dir);
    const left = (await server.api.documents()).filter(({ status }) => status !== 'processed');
    failures.push(...left.map(({ file_path, status }) => `${file_path} stays ${status} after reprocessing`));
    await server.stop();
    return failures;
  });
}

/** Restores each usable point of one kind of captures and has it judged. */
async function proveTaken(
  scope: Scope,
  part: Part,
  world: World,
  ingest: Ingest,
  taken: Taken,
): Promise<string[]> {
  const { who, store, points } = taken;
  const root = await tempFolder(scope);
  const beside = join(root, 'beside');
  const judge = new Judge(scope, { installed: part.installed, fake: world.fake, beside });
  const subject = new Case(world.dir, store);
  const failures: string[] = [];
  const grades = new Map<string, number>();
  let [usable, unfinished, served] = [0, 0, 0];
  for (const { snapshotId, grade } of points) {
    grades.set(grade, (grades.get(grade) ?? 0) + 1);
    if (!isUsable({ grade })) continue;
    usable += 1;
    const dir = join(root, 'back');
    rmSync(dir, { recursive: true, force: true });
    await subject.restore(snapshotId, dir);
    const name = `${who}, point ${snapshotId.slice(0, 12)} (${grade})`;
    const verdict = await judge.judgeTruth(dir, ingest.truth);
    if (verdictText(verdict) !== 'unharmed') failures.push(`${name}: the server ${verdictText(verdict)}`);
    if ((verdict.documents ?? []).some((status) => status !== 'processed')) unfinished += 1;
    if (usable % SERVED_EACH === 0) {
      served += 1;
      failures.push(...(await serve(part, world, dir, ingest.truth)).map((what) => `${name}: ${what}`));
    }
  }
  const counts = [...grades].sort().map(([grade, count]) => `${count} ${grade}`);
  const share = usable / Math.max(1, points.length);
  part.log(
    `${who}: ${points.length} captures, ${counts.join(', ')}: ${(share * 100).toFixed(0)} % usable; ` +
      `${unfinished} with unfinished documents, ${served} served by a server; ${failures.length} failures`,
  );
  if (who !== 'single commands' && share < USABLE_MIN)
    failures.push(`${who}: ${(share * 100).toFixed(0)} % usable`);
  return failures;
}

/** Proves that every usable capture beside a server is whole, and that most are usable. */
export async function proveCaptures(part: Part): Promise<string[]> {
  return await withScope(async (scope) => {
    const root = await tempFolder(scope);
    const { taken, world, ingest } = await takeAll(scope, part, root);
    part.log(`${ingest.truth.size} documents inserted, one each ${INGEST_EACH_MS / 1000} s`);
    const failures: string[] = [];
    for (const one of taken) failures.push(...(await proveTaken(scope, part, world, ingest, one)));
    return failures;
  });
}
