import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DERIVED } from '../../demo/generate.ts';
import { random } from '../../demo/random.ts';
import { Case, type Snapshot } from '../support/case.ts';
import { type Scope, tempFolder, until } from '../support/place.ts';
import { Agent, jsonOf, lightkeeper, outcomeText } from '../support/program.ts';
import { brokenPromises } from '../support/promise.ts';
import { type StandIn, startStandIn } from '../support/standin.ts';

const CHUNKS = 'kv_store_text_chunks.json';
const STATUS = 'kv_store_doc_status.json';
/** Files that an ingest changes, each of which names the chunks that it knows of. */
const FILES = [CHUNKS, ...DERIVED.filter((name) => !name.startsWith('kv_store_full_'))];
/** What is promised at pauses up to so much. */
const USABLE_MIN = 0.6;
const PROMISED_PAUSE_MS = 300;
const STANDS_WITHIN_MS = 10 * 60_000;

/** A flush with long pauses is waited for. */
const REST_WITHIN_MS = 180_000;

/** How much is proven. */
export interface Amount {
  readonly seed: number;
  /** For each style and pause, of an agent that asks the instance, of one that does not, and of single commands. */
  readonly captures: number;
  /** In the graph at first. In one of hundreds most of each file is passed over. */
  readonly documents: number;
  readonly pausesMs: readonly number[];
  readonly ingestEvery: string;
  /** An agent with long pauses makes few points: it is not waited for longer. */
  readonly withinMs: number;
  /** Also the share of usable points, and that an instance with a standing defect gets some. */
  readonly withShares: boolean;
}

/** What a style of writing goes with: versions that write in place call a document processed before it is. */
export const STYLES = [
  { style: 'inplace', api: 'old' },
  { style: 'rename', api: 'new' },
] as const;
type Style = (typeof STYLES)[number];

/** What an instance knew whenever it was at rest: a digest for each number of documents. */
class Truth {
  readonly digests = new Map<number, string>();
  #stopped = false;
  readonly #watching: Promise<void>;

  constructor(instance: StandIn) {
    this.#watching = this.#watch(instance);
    // Whoever waits for the end is told.
    this.#watching.catch(() => {});
  }

  async #watch(instance: StandIn): Promise<void> {
    while (!this.#stopped) {
      const count = await this.#processed(instance);
      const digest = await instance.digest();
      // Nothing has begun in between.
      if (count > 0 && (await this.#processed(instance)) === count) this.digests.set(count, digest);
      await sleep(100);
    }
  }

  /** How many documents there are, if all are processed. */
  async #processed(instance: StandIn): Promise<number> {
    const { body } = await instance.ask('GET /documents');
    const documents = body.documents as { status: string }[];
    return documents.every(({ status }) => status === 'processed') ? documents.length : 0;
  }

  async end(): Promise<void> {
    this.#stopped = true;
    await this.#watching;
  }
}

/** Which documents' chunks a file names, by their places in the order of ingests. */
function documentsIn(dir: string, name: string, ordered: ReadonlyMap<string, number>): Set<number> {
  const path = join(dir, name);
  const text = existsSync(path) ? readFileSync(path, 'latin1') : '';
  const chunks = new Set(text.match(/(?:doc-[0-9a-f]{32}-)?chunk-(?:[0-9a-f]{32}|\d{3})/g));
  return new Set([...chunks].map((chunk) => ordered.get(chunk) ?? Number.NaN));
}

/** The place in the order of ingests of each chunk's document, as the instance has it in the end. */
function orderOf(dir: string): Map<string, number> {
  const read = (name: string) => JSON.parse(readFileSync(join(dir, name), 'utf8')) as Record<string, object>;
  const places = new Map(Object.keys(read(STATUS)).map((id, place) => [id, place]));
  const chunks = Object.entries(read(CHUNKS)) as [string, { full_doc_id: string }][];
  return new Map(chunks.map(([id, { full_doc_id }]) => [id, places.get(full_doc_id) ?? Number.NaN]));
}

/** Files of a directory that know of other documents than its chunks, by their newest. */
function mixedFiles(dir: string, whole: string, ordered: ReadonlyMap<string, number>): string[] {
  const newest = Math.max(...documentsIn(dir, CHUNKS, ordered));
  return FILES.filter((name) => {
    const known = documentsIn(dir, name, ordered);
    const should = documentsIn(whole, name, ordered).has(newest);
    return Math.max(...known) > newest || (should && !known.has(newest)) || known.has(Number.NaN);
  });
}

/** What came of some captures. */
interface Counts {
  readonly who: string;
  readonly grades: Map<string, number>;
  usable: number;
  unfinished: number;
  /** Of the usable ones, those with files of two flushes. */
  mixed: number;
}

interface World {
  readonly scope: Scope;
  readonly place: string;
  readonly dir: string;
  readonly name: string;
  readonly truth: Truth;
  readonly flags: readonly string[];
}

const isUsable = ({ grade }: Pick<Snapshot, 'grade'>) => grade === 'VALID' || grade === 'DEGRADED';

/**
 * A usable point must keep the promises of its processed documents, by a second statement of them. One that holds all
 * files of one flush must start as the instance that wrote them.
 */
// Files of two flushes are no fault as long as nothing that was promised is lacking.
async function prove(world: World, subject: Case, snapshot: Snapshot, counts: Counts): Promise<void> {
  const back = join(world.place, 'back', snapshot.snapshotId);
  await subject.restore(snapshot.snapshotId, back);
  const what = `${world.name}, ${counts.who}, point ${snapshot.snapshotId.slice(0, 12)} (${snapshot.grade})`;
  assert.deepEqual(brokenPromises(back), [], what);
  const isMixed = mixedFiles(back, world.dir, orderOf(world.dir)).length > 0;
  if (isMixed) counts.mixed += 1;
  const undo: (() => Promise<void>)[] = [];
  const restored = await startStandIn({ after: (step) => void undo.push(step) }, back, world.flags);
  try {
    const { body } = await restored.ask('GET /documents');
    const documents = body.documents as { status: string }[];
    if (documents.some(({ status }) => status !== 'processed')) {
      // As the instance itself would: a document that was begun is taken again.
      counts.unfinished += 1;
      assert.equal((await restored.ask('POST /documents')).status, 200);
    }
    const digest = world.truth.digests.get(documents.length);
    if (!isMixed)
      assert.equal(await restored.digest(), digest, `${what} answers otherwise than the instance did`);
  } finally {
    for (const step of undo) await step();
    rmSync(back, { recursive: true });
  }
}

async function proveAll(world: World, subject: Case, points: readonly Snapshot[], who: string) {
  const counts: Counts = { who, grades: new Map(), usable: 0, unfinished: 0, mixed: 0 };
  for (const snapshot of points) {
    counts.grades.set(snapshot.grade, (counts.grades.get(snapshot.grade) ?? 0) + 1);
    if (!isUsable(snapshot)) continue;
    counts.usable += 1;
    await prove(world, subject, snapshot, counts);
  }
  return counts;
}

function listOf(store: string): Promise<{ snapshots: Snapshot[] }> {
  return jsonOf(['list', '--store', store]);
}

/** Points of an agent beside the instance. */
async function agentPoints(
  { scope, place, dir }: World,
  who: string,
  words: readonly string[],
  { captures, withinMs }: Amount,
): Promise<{ subject: Case; points: Snapshot[] }> {
  const subject = new Case(dir, join(place, who));
  const agent = new Agent(scope, ['--dir', dir, '--store', subject.store, '--disk-reserve', '0', ...words]);
  await agent.point(1);
  const enough = async () => (await listOf(subject.store)).snapshots.length >= captures;
  const deadline = performance.now() + withinMs;
  while (performance.now() < deadline && !(await enough())) await sleep(1000);
  const { snapshots } = await listOf(subject.store);
  agent.kill('SIGKILL');
  await until('the agent has ended', () => agent.hasEnded);
  return { subject, points: snapshots };
}

/**
 * Points of single commands at any moment, each of a graph of its own: nothing is known of how the directory is written,
 * nor of a point before.
 */
async function commandPoints(
  { place, dir }: World,
  amount: Amount,
): Promise<{ subject: Case; points: Snapshot[] }> {
  const subject = new Case(dir, join(place, 'commands'));
  const draw = random(amount.seed);
  const points: Snapshot[] = [];
  while (points.length < amount.captures) {
    await sleep(draw(3000));
    const words = ['snapshot', '--dir', dir, '--store', subject.store, '--graph', `g${points.length}`];
    const ended = await lightkeeper([...words, '--settle-timeout', '10s', '--disk-reserve', '0', '--json']);
    assert.equal([0, 3].includes(ended.code ?? -1), true, outcomeText(ended));
    points.push(JSON.parse(ended.stdout) as Snapshot);
  }
  return { subject, points };
}

async function scenario(
  scope: Scope,
  { style, api }: Style,
  pauseMs: number,
  amount: Amount,
  log: (line: string) => void,
): Promise<string[]> {
  const place = await tempFolder(scope);
  const dir = join(place, 'rag');
  const documents = ['--documents', `${amount.documents}`];
  const flags = ['--seed', `${amount.seed}`, ...documents, '--dimension', '32', '--api', api];
  const pace = ['--style', style, '--pause', `${pauseMs}ms`, '--ingest-every', amount.ingestEvery];
  const instance = await startStandIn(scope, dir, [...flags, ...pace]);
  const truth = new Truth(instance);
  const name = `${style}, ${api} API, ${amount.documents} documents, pause ${pauseMs} ms`;
  const world: World = { scope, place, dir, name, truth, flags: [...flags, '--style', style] };
  const [asking, silent, commands] = await Promise.all([
    agentPoints(world, 'an agent that asks', ['--instance-url', instance.url], amount),
    agentPoints(world, 'an agent that does not ask', [], amount),
    commandPoints(world, amount),
  ]);
  // Its digest for the last document, too.
  const paused = async () => (await instance.ask('POST /pause').catch(() => undefined))?.status === 200;
  await until('the instance is at rest', paused, REST_WITHIN_MS);
  await sleep(500);
  await truth.end();
  await instance.stop();
  const failures: string[] = [];
  for (const [who, { subject, points }] of Object.entries({
    'an agent that asks': asking,
    'an agent that does not ask': silent,
    'single commands': commands,
  })) {
    const counts = await proveAll(world, subject, points, who);
    const share = counts.usable / points.length;
    const grades = [...counts.grades]
      .map(([grade, count]) => `${count} ${grade}`)
      .sort()
      .join(', ');
    log(
      `${name}, ${who}: ${points.length} captures, ${grades}; all ${counts.usable} usable ones keep their promises` +
        (counts.unfinished > 0 ? ` (${counts.unfinished} with a document under way)` : '') +
        (counts.mixed > 0 ? ` (${counts.mixed} with files of two flushes)` : ''),
    );
    const promised = amount.withShares && pauseMs <= PROMISED_PAUSE_MS && who !== 'single commands';
    if (promised && share < USABLE_MIN)
      failures.push(`${name}, ${who}: ${(share * 100).toFixed(0)} % usable`);
  }
  return failures;
}

/** An instance that has lost the text of a chunk gets usable points once that has stood for ten minutes. */
async function standing(scope: Scope, amount: Amount, log: (line: string) => void): Promise<void> {
  const place = await tempFolder(scope);
  const dir = join(place, 'rag');
  const flags = ['--seed', `${amount.seed}`, '--documents', '12', '--dimension', '32'];
  const first = await startStandIn(scope, dir, flags);
  await first.stop();
  const path = join(dir, CHUNKS);
  const [, ...chunks] = Object.entries(JSON.parse(readFileSync(path, 'utf8')) as object);
  writeFileSync(path, JSON.stringify(Object.fromEntries(chunks), null, 2));
  await startStandIn(scope, dir, [...flags, '--ingest-every', amount.ingestEvery, '--pause', '100ms']);
  const store = join(place, 'store');
  new Agent(scope, ['--dir', dir, '--store', store, '--disk-reserve', '0']);
  const began = performance.now();
  let points: Snapshot[] = [];
  await until(
    'a usable point',
    async () => {
      await sleep(1000);
      points = existsSync(store) ? (await listOf(store)).snapshots : [];
      return points.some(isUsable);
    },
    STANDS_WITHIN_MS,
  );
  const usable = points.find(isUsable)?.grade;
  log(
    `a standing defect under ingest: the first usable point, ${usable}, after ${Math.round((performance.now() - began) / 1000)} s and ${points.length} captures`,
  );
}

/** No usable point of a directory that is written all the time mixes two states of its instance. */
export async function proveGrades(
  scope: Scope,
  styles: readonly Style[],
  amount: Amount,
  log: (line: string) => void,
): Promise<void> {
  const failures: string[] = [];
  const slow = amount.withShares ? standing(scope, amount, log) : Promise.resolve();
  for (const style of styles) {
    // Small graphs, and most of the time nothing to do.
    const results = await Promise.all(
      amount.pausesMs.map((pauseMs) => scenario(scope, style, pauseMs, amount, log)),
    );
    failures.push(...results.flat());
  }
  await slow;
  assert.deepEqual(failures, []);
}

export async function run(log: (line: string) => void): Promise<void> {
  const seed = Number(process.env.LIGHTKEEPER_SEED ?? 1);
  const captures = Number(process.env.LIGHTKEEPER_COUNT ?? 12);
  log(
    `seed ${seed}: up to ${captures} captures for each style, pause, and way to take them; one document each 5 s`,
  );
  const undo: (() => Promise<void>)[] = [];
  const amount = {
    seed,
    captures,
    documents: 12,
    pausesMs: [0, 300, 1000, 3000],
    ingestEvery: '5s',
    withinMs: 240_000,
    withShares: true,
  };
  const scope = { after: (step: () => Promise<void>) => void undo.push(step) };
  try {
    const large = { ...amount, documents: 300, pausesMs: [300], withShares: false };
    await proveGrades(scope, STYLES, amount, log);
    await proveGrades(scope, STYLES, large, log);
  } finally {
    for (const step of undo) await step();
  }
}
