import assert from 'node:assert/strict';
import { existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Level } from 'level';
import { SHARDS } from '../../agent/store/index/reconcile.ts';
import { type Random, random } from '../../demo/random.ts';
import { type Effect, watchEffects } from '../../host/disk.ts';
import { readTree, type Tree } from '../support/tree.ts';
import { Disk } from './disk-model.ts';
import { makeGraphs, makeTree } from './random-tree.ts';
import {
  callsInProcess,
  FAILURES_SHOWN,
  filesIn,
  inParallel,
  packFiles,
  restoresTo,
  type Said,
  type Scratch,
  type StoreCalls,
  saidOf,
  scratch,
} from './store-calls.ts';
import { acknowledgedAs, checkAnnotated, checkPositions, checkRebuilt, checkSaid } from './store-checks.ts';

/** Batches of the index that are synced. One that is missing here is taken as not synced, which is stricter. */
const SYNCED = new Set(
  ['commit', 'annotate', 'confirm', 'pack-remove', 'pack-lost', 'distrust', 'trust'].map(
    (name) => `index:${name}`,
  ),
);

type Files = ReadonlyMap<string, Buffer>;

/** What the store promises at one moment. */
interface Promised {
  /** Snapshots whose commit has returned. */
  readonly published: ReadonlyMap<string, Tree>;
  /** What was recorded about them, and what a call that is under way may record instead. */
  readonly said: ReadonlyMap<string, Said>;
  readonly saidAfter: ReadonlyMap<string, Said>;
  /** Of those, the ones that a call that is under way may remove. */
  readonly removable: ReadonlySet<string>;
  /** Snapshots whose removal has returned. */
  readonly deleted: ReadonlySet<string>;
  /** What a snapshot that is under way holds. */
  readonly taken: Tree | undefined;
}

/** One moment of the recording: an effect begins or has ended. */
interface Moment {
  readonly phase: 'before' | 'after';
  readonly effect: Effect;
  readonly index: Files;
  /** The index as it was when it was last synced. */
  readonly syncedIndex: Files;
  readonly owner: Files;
  readonly stamps: ReadonlyMap<string, string>;
  readonly promised: Promised;
}

/** Everything that a few calls did to the disk. */
export interface Recording {
  readonly seed: number;
  readonly folder: Scratch;
  readonly store: string;
  readonly moments: readonly Moment[];
  readonly further: string;
}

const NOTHING: Files = new Map();

function filesOf(folder: string): Files {
  return existsSync(folder) ? filesIn(folder) : NOTHING;
}

function stampsOf(store: string): Map<string, string> {
  const stamps = new Map<string, string>();
  for (const shard of SHARDS) {
    const stat = statSync(join(store, 'packs', shard), { bigint: true, throwIfNoEntry: false });
    if (stat !== undefined) stamps.set(shard, `${stat.mtimeNs}:${stat.ino}`);
  }
  return stamps;
}

/** Records a store's life: three snapshots, an acknowledgement, tags, a pin, a deletion, a prune, one more snapshot. */
export async function record(seed: number): Promise<Recording> {
  const folder = scratch('power', { memory: true });
  const keeper = callsInProcess(folder.fresh('recorded'));
  const { store } = keeper;
  const graphs = await makeGraphs(seed);
  const dirs = Array.from({ length: 5 }, (_, version) => {
    const dir = folder.fresh('dir');
    makeTree(dir, seed, { version, graphs });
    return dir;
  });
  const moments: Moment[] = [];
  const published = new Map<string, Tree>();
  const said = new Map<string, Said>();
  const saidAfter = new Map<string, Said>();
  const deleted = new Set<string>();
  let removable: ReadonlySet<string> = new Set();
  let taken: Tree | undefined;
  let syncedIndex = NOTHING;
  const stop = watchEffects((phase, effect) => {
    const index = filesOf(join(store, 'index'));
    if (phase === 'after' && SYNCED.has(effect.label)) syncedIndex = index;
    const bytes = effect.bytes === undefined ? {} : { bytes: Buffer.from(effect.bytes) };
    const promised = {
      published: new Map(published),
      said: new Map(said),
      saidAfter: new Map(saidAfter),
      removable,
      deleted: new Set(deleted),
      taken,
    };
    const owner = filesOf(join(store, 'owner'));
    moments.push({
      phase,
      effect: { ...effect, ...bytes },
      index,
      syncedIndex,
      owner,
      stamps: stampsOf(store),
      promised,
    });
  });
  const take = async (version: number) => {
    taken = readTree(dirs[version] as string);
    const snapshot = await keeper.snapshot(dirs[version] as string);
    published.set(snapshot.snapshotId, taken);
    said.set(snapshot.snapshotId, saidOf(snapshot));
    taken = undefined;
  };
  const annotate = async (id: string, more: Said, call: () => Promise<unknown>) => {
    saidAfter.set(id, { ...said.get(id), ...more });
    await call();
    said.set(id, saidAfter.get(id) as Said);
    saidAfter.clear();
  };
  const remove = async (ids: readonly string[], call: () => Promise<unknown>) => {
    removable = new Set(ids);
    await call();
    for (const id of ids) deleted.add(id);
    removable = new Set();
  };
  try {
    for (const version of [0, 1, 2]) await take(version);
    const [first = '', second = '', third = ''] = [...published.keys()];
    const reason = 'the documents were moved';
    await annotate(third, acknowledgedAs(said.get(third), reason), () => keeper.acknowledge(third, reason));
    await annotate(third, { tags: { release: '1' } }, () => keeper.tag(third, 'release=1'));
    await annotate(third, { pinned: true }, () => keeper.pin(third));
    checkAnnotated(said);
    await remove([first], () => keeper.delete(first));
    await remove([second], () => keeper.prune({ last: 1 }));
    await take(3);
  } finally {
    stop();
  }
  return { seed, folder, store, moments, further: dirs[4] as string };
}

// ----- what the disk may hold after the power went -----

/** How the index comes out of it. */
const INDEX_WAYS = ['synced', 'all', 'cut', 'zeros', 'hole', 'torn', 'nothing'] as const;

function indexAfter(moment: Moment, way: (typeof INDEX_WAYS)[number], draw: Random): Files {
  if (way === 'synced') return moment.syncedIndex;
  if (way === 'nothing') return NOTHING;
  const files = new Map(moment.index);
  const log = [...files.keys()]
    .filter((name) => name.endsWith('.log'))
    .sort()
    .at(-1);
  const bytes = Buffer.from(files.get(log ?? '') ?? '');
  if (log === undefined || way === 'all') return files;
  // Only what was not synced can be lost.
  const safe = Math.min(bytes.length, moment.syncedIndex.get(log)?.length ?? 0);
  const from = safe + draw(bytes.length - safe + 1);
  const to = from + draw(bytes.length - from + 1);
  if (way === 'zeros') bytes.fill(0, from);
  if (way === 'hole') bytes.fill(0, from, to);
  if (way === 'torn') for (let i = from; i < to; i++) bytes[i] = draw(256);
  files.set(log, way === 'cut' ? bytes.subarray(0, from) : bytes);
  return files;
}

/** The lock of the owner means nothing, whatever is left of it. */
function ownerAfter(moment: Moment, draw: Random): Files {
  const way = draw(3);
  if (way === 0) return NOTHING;
  if (way === 1) return moment.owner;
  return new Map([...moment.owner].map(([name, bytes]) => [name, bytes.subarray(0, draw(bytes.length + 1))]));
}

function writeFiles(folder: string, files: Files): void {
  for (const [name, bytes] of files) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), bytes);
  }
}

/**
 * The index knows the folders of packs by their times. Where a folder is as it was at a time that the recording
 * saw, its time went back to that with it; the copy that is on this disk has another, so the index is told.
 */
async function carryStamps(store: string, recorded: ReadonlyMap<string, string>): Promise<void> {
  const now = stampsOf(store);
  const db = new Level<string, string>(join(store, 'index'), { valueEncoding: 'utf8' });
  try {
    await db.open();
    for await (const [key, stamp] of db.iterator({ gte: 'd', lt: 'e' })) {
      const shard = key.slice(1);
      const real = now.get(shard);
      if (stamp === recorded.get(shard) && real !== undefined) await db.put(key, real);
    }
  } catch {
    // An index that does not open has no stamps either: the program makes it again.
  } finally {
    await db.close().catch(() => {});
  }
}

/** One way in which the power can go. */
export interface Cut {
  /** The moment that is not reached any more. */
  readonly at: number;
  readonly seed: number;
}

async function materialise(recording: Recording, cut: Cut, store: string, draw: Random): Promise<string> {
  const moment = recording.moments[cut.at] as Moment;
  const disk = new Disk(recording.store);
  for (const { phase, effect, stamps } of recording.moments.slice(0, cut.at)) disk.see(phase, effect, stamps);
  const style = (['all', 'none', 'some', 'some'] as const)[draw(4)] as 'all' | 'none' | 'some';
  const { files, folders, stamps } = disk.afterPowerLoss(style, draw);
  mkdirSync(store);
  for (const folder of folders) mkdirSync(join(store, folder), { recursive: true });
  writeFiles(store, files);
  writeFiles(join(store, 'owner'), ownerAfter(moment, draw));
  const way = INDEX_WAYS[draw(INDEX_WAYS.length)] as (typeof INDEX_WAYS)[number];
  writeFiles(join(store, 'index'), indexAfter(moment, way, draw));
  if (existsSync(join(store, 'index')) && draw(2) === 0) await carryStamps(store, stamps);
  return `${style} of what was not synced survives, index: ${way}`;
}

/** Whether a store is what was promised, and goes on. */
async function checkAfter(
  recording: Recording,
  promised: Promised,
  keeper: StoreCalls,
  looksFirst: boolean,
): Promise<void> {
  const { published, removable, deleted, taken } = promised;
  const restored = () => recording.folder.fresh('restored');
  const inStore = existsSync(join(keeper.store, 'config')) || existsSync(join(keeper.store, 'config.copy'));
  assert.ok(inStore || published.size === 0, 'the store is one');
  const ids = new Set(inStore ? (await keeper.list()).map(({ snapshotId }) => snapshotId) : []);
  for (const id of published.keys())
    assert.ok(ids.has(id) || removable.has(id) || deleted.has(id), `snapshot ${id} is listed`);
  // Both list the packs, and the index then knows what it had missed: every second store goes on without.
  if (inStore && looksFirst) {
    const findings = await keeper.verify();
    const found = findings.map(({ code, object, message }) => `${code} ${object}: ${message}`);
    assert.deepEqual(found, [], 'verify finds nothing');
  }
  for (const id of ids) {
    assert.ok(!deleted.has(id), `deleted snapshot ${id} is back`);
    const wanted = published.get(id) ?? taken;
    assert.ok(wanted, `snapshot ${id} has a reason to be there`);
    await restoresTo(keeper, id, wanted, restored());
  }
  const further = await keeper.snapshot(recording.further);
  assert.equal(further.unchanged, false);
  await restoresTo(keeper, further.snapshotId, readTree(recording.further), restored());
  await checkPositions(keeper);
  await checkSaid(keeper, promised);
  const gone = new Set([...published.keys()].filter((id) => !ids.has(id)));
  if (looksFirst) await checkRebuilt(keeper, gone);
  // What an interrupted removal left behind goes with the next ones, and does not come back either.
  const { remove } = await keeper.prune({ last: 1 });
  for (const { snapshotId } of remove) gone.add(snapshotId);
  await keeper.prune({ last: 1 });
  assert.equal(packFiles(keeper.store).length, await keeper.packs(), 'every pack is known to the index');
  await checkRebuilt(keeper, gone);
  await checkSaid(keeper, promised);
}

/** Cuts the power at one moment, lets chance decide what survives, and looks at the store. */
export async function runCut(recording: Recording, cut: Cut): Promise<void> {
  const draw = random(cut.seed);
  const keeper = callsInProcess(recording.folder.fresh('store'));
  const moment = recording.moments[cut.at] as Moment;
  let how = '';
  try {
    how = await materialise(recording, cut, keeper.store, draw);
    await checkAfter(recording, moment.promised, keeper, draw(2) === 0);
  } catch (error) {
    const where = `${moment.phase} ${moment.effect.label} (moment ${cut.at} of ${recording.moments.length})`;
    throw new Error(`power cut ${where}, ${how}, seeds ${recording.seed} and ${cut.seed}: ${String(error)}`, {
      cause: error,
    });
  } finally {
    rmSync(keeper.store, { recursive: true, force: true });
  }
}

/** Seeded cuts: spread evenly over the recording. */
export function drawCuts(recording: Recording, count: number): Cut[] {
  const draw = random(recording.seed);
  const step = recording.moments.length / count;
  return Array.from({ length: count }, (_, i) => ({
    at: Math.min(recording.moments.length - 1, Math.floor(i * step + draw(1000) * step * 0.001)),
    seed: draw(2 ** 31),
  }));
}

/** The proof: every moment, several times. */
export async function run(log: (line: string) => void): Promise<void> {
  const seed = Number(process.env.LIGHTKEEPER_SEED ?? 1);
  const recording = await record(seed);
  const { moments } = recording;
  const count = Number(process.env.LIGHTKEEPER_COUNT ?? moments.length * 8);
  const failures: string[] = [];
  const started = performance.now();
  log(
    `seed ${seed}: ${moments.length} moments, ${new Set(moments.map(({ effect }) => effect.label)).size} labels`,
  );
  try {
    await inParallel(2, drawCuts(recording, count), async (cut) => {
      await runCut(recording, cut).catch((error: unknown) => failures.push(String(error)));
    });
  } finally {
    recording.folder.drop();
  }
  log(
    `${count} power cuts: ${failures.length} failures, ${((performance.now() - started) / 1000).toFixed(0)} s`,
  );
  for (const failure of failures.slice(0, FAILURES_SHOWN)) log(failure);
  assert.equal(failures.length, 0, `${failures.length} failures`);
}
