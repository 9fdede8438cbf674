import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Random, random } from '../../demo/random.ts';
import { difference, type Fact, readTree, type Tree } from '../support/tree.ts';
import { type Graphs, makeGraphs, makeTree, someBytes } from './random-tree.ts';
import {
  COMMANDS,
  callsByProgram,
  callsInProcess,
  FAILURES_SHOWN,
  inParallel,
  type Portrait,
  packFiles,
  portrait,
  restoresTo,
  runBuilt,
  type Said,
  type Scratch,
  type StoreCalls,
  scratch,
} from './store-calls.ts';
import {
  acknowledgedAs,
  annotate,
  checkAnnotated,
  checkPositions,
  checkRebuilt,
  checkSaid,
} from './store-checks.ts';

const INCOMPLETE = '.lightkeeper-incomplete';
/** Enough for a thread of its own. */
const LARGE_BYTES = 8_000_000;
/** More than a restore keeps open. */
const MANY_FILES = 140;
const ENDS = 3;
/** One case in so many is looked at by the built program alone. */
const BUILT_EVERY = 10;

/** A command on a store, and what must hold of the store however the command ends. */
interface Scene {
  readonly name: string;
  /** The store as the command finds it; undefined if there is none yet. */
  readonly store: string | undefined;
  /** Snapshots that were published before, with what is in them. */
  readonly published: ReadonlyMap<string, Tree>;
  /** Of those, the ones that the command may remove. */
  readonly removable: ReadonlySet<string>;
  /** What the store held about those that were published. */
  readonly said: Portrait['snapshots'];
  /** What it may hold about some of them instead, once the command has ended well. */
  readonly saidAfter?: ReadonlyMap<string, Said>;
  /** Snapshots that were deleted before. */
  readonly deleted: ReadonlySet<string>;
  /** What a snapshot that the command takes holds. */
  readonly taken?: Tree;
  /** The command changes nothing in the store: a store that cannot be written to will do. */
  readonly reads?: boolean;
  /** The command ends with this code if nothing disturbs it. */
  readonly code: number;
  readonly args: (store: string, target: string) => string[];
  /** Makes the target of the command as it finds it. */
  readonly target?: (path: string) => void;
  /** What must hold of the target of a restore; `whole` if the command ended well. */
  readonly checkTarget?: (path: string, whole: boolean) => void;
  /** The store was damaged before: it is repaired before it is looked at. */
  readonly damaged?: { readonly aside: ReadonlySet<string> };
  /** It has the same effect hundreds of times: only the first and the last of them are cut off. */
  readonly thinned?: boolean;
}

/** One end of one command: a kill, or a disk that says no. */
export interface Case {
  readonly scene: Scene;
  readonly fault: string;
  readonly fails: boolean;
}

/** The scenes on one seed, and a folder for what they need. */
export class World {
  readonly seed: number;
  readonly folder: Scratch = scratch('crash', { memory: true });
  readonly scenes: Scene[] = [];
  readonly graphs: Graphs;
  readonly #trees = new Map<number, Tree>();

  constructor(seed: number, graphs: Graphs) {
    this.seed = seed;
    this.graphs = graphs;
  }

  /** The directory in its n-th version. */
  dir(version: number): string {
    const path = join(this.folder.path, `v${version}`);
    if (!existsSync(path)) makeTree(path, this.seed, { version, graphs: this.graphs });
    return path;
  }

  tree(version: number): Tree {
    const known = this.#trees.get(version) ?? readTree(this.dir(version));
    this.#trees.set(version, known);
    return known;
  }

  copy(store: string): string {
    const to = this.folder.fresh('store');
    cpSync(store, to, { recursive: true, preserveTimestamps: true });
    return to;
  }
}

/** A store with a snapshot of each of the versions, and what people recorded about them. */
interface History {
  readonly store: string;
  /** In the order of the versions. */
  readonly ids: string[];
  readonly said: Portrait['snapshots'];
}

async function history(world: World, versions: readonly number[]): Promise<History> {
  const keeper = callsInProcess(world.folder.fresh('base'));
  const ids: string[] = [];
  for (const version of versions) ids.push(await annotate(keeper, await keeper.snapshot(world.dir(version))));
  return { store: keeper.store, ids, said: (await portrait(keeper)).snapshots };
}

function published(world: World, ids: readonly string[], versions: readonly number[]): Map<string, Tree> {
  return new Map(ids.map((id, i) => [id, world.tree(versions[i] as number)]));
}

function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

/** Flips one bit in a frame of the newest data pack, and one in the footer of the oldest. */
function damage(store: string): Set<string> {
  const ages = packFiles(store)
    .filter((path) => readFileSync(path)[10] === 1)
    .map((path) => ({ path, ms: statSync(path).mtimeMs }))
    .sort((a, b) => a.ms - b.ms);
  const flip = (path: string, place: (length: number) => number): string => {
    const bytes = readFileSync(path);
    const at = place(bytes.length);
    bytes[at] = (bytes[at] as number) ^ 4;
    writeFileSync(path, bytes);
    return sha256(path);
  };
  const [oldest, newest] = [ages[0], ages.at(-1)];
  assert.ok(oldest !== undefined && newest !== undefined && oldest !== newest);
  writeFileSync(join(store, 'config.copy'), 'not a config');
  return new Set([flip(oldest.path, (length) => length - 70), flip(newest.path, (length) => length >> 1)]);
}

/** Builds the scenes: the same on every call with one seed. */
export async function makeWorld(seed: number, options: { large: boolean }): Promise<World> {
  const world = new World(seed, await makeGraphs(seed));
  const versions = [0, 1, 2];
  const { store, ids, said } = await history(world, versions);
  const [first = '', second = '', third = ''] = ids;
  checkAnnotated(said);
  const base = {
    store,
    published: published(world, ids, versions),
    said,
    removable: new Set<string>(),
    deleted: new Set<string>(),
    code: 0,
  };
  const old = new Set([first, second]);
  const marked = world.copy(store);
  await callsInProcess(marked).delete(first);
  const rest = new Map([...base.published].filter(([id]) => id !== first));
  const saidWith = (id: string, more: Said) => new Map([[id, { ...said.get(id), ...more }]]);
  const prune = { removable: old, args: (at: string) => COMMANDS.prune(at, { last: 1 }) };
  world.scenes.push(
    {
      ...base,
      name: 'first snapshot',
      store: undefined,
      published: new Map(),
      taken: world.tree(0),
      args: (at) => COMMANDS.snapshot(at, world.dir(0)),
    },
    { ...base, name: 'snapshot', taken: world.tree(3), args: (at) => COMMANDS.snapshot(at, world.dir(3)) },
    { ...base, name: 'unchanged snapshot', args: (at) => COMMANDS.snapshot(at, world.dir(2)) },
    { ...base, ...prune, name: 'prune' },
    {
      ...base,
      ...prune,
      name: 'prune of a marked store',
      store: marked,
      published: rest,
      deleted: new Set([first]),
    },
    { ...base, name: 'delete', removable: new Set([first]), args: (at) => COMMANDS.delete(at, first) },
    {
      ...base,
      name: 'pin',
      saidAfter: saidWith(second, { pinned: true }),
      args: (at) => COMMANDS.pin(at, second),
    },
    {
      ...base,
      name: 'acknowledgement',
      saidAfter: new Map([[third, acknowledgedAs(said.get(third), 'another reason')]]),
      args: (at) => COMMANDS.acknowledge(at, third, 'another reason'),
    },
    ...restores(base, second),
    ...(await onDamaged(world, base)),
  );
  if (options.large) world.scenes.push(await joining(world, prune), ...(await manyFiles(world, base)));
  return world;
}

type Base = Omit<Scene, 'name' | 'args'>;

function restores(base: Base, id: string): Scene[] {
  const args = (at: string, target: string) => COMMANDS.restore(at, id, target);
  const wanted = base.published.get(id) ?? new Map<string, Fact>();
  const equal = (path: string) =>
    assert.equal(difference(wanted, readTree(path)), undefined, 'the target is whole');
  return [
    {
      ...base,
      name: 'restore',
      reads: true,
      args,
      checkTarget: (path, whole) => {
        assert.ok(!whole || existsSync(path), 'a restore that ended well is there');
        if (existsSync(path)) equal(path);
      },
    },
    {
      ...base,
      name: 'restore to an empty directory',
      reads: true,
      args,
      target: (path) => mkdirSync(path),
      checkTarget: (path, whole) => {
        const names = readdirSync(path);
        if (whole || (names.length > 0 && !names.includes(INCOMPLETE))) equal(path);
      },
    },
  ];
}

async function onDamaged(world: World, base: Base): Promise<Scene[]> {
  const store = world.copy(base.store as string);
  const aside = damage(store);
  const whole = new Map<string, Tree>();
  const mended = callsInProcess(world.copy(store));
  await mended.repair();
  const broken = new Set((await mended.verify()).flatMap(({ snapshots }) => snapshots));
  for (const [id, tree] of base.published) if (!broken.has(id)) whole.set(id, tree);
  assert.ok(whole.size === 2 && broken.size === 1, 'all but the newest can be had back');
  const scene = { ...base, store, published: whole, code: 3, damaged: { aside } };
  return [
    { ...scene, name: 'repair', args: COMMANDS.repair },
    { ...scene, name: 'verify of a damaged store', reads: true, args: (at) => COMMANDS.verify(at, 'bytes') },
  ];
}

/** A snapshot and restores that are the work of another thread, and that sync many files at once. */
async function manyFiles(world: World, base: Base): Promise<Scene[]> {
  const dir = world.folder.fresh('many');
  makeTree(dir, world.seed, { version: 0, graphs: world.graphs });
  writeFileSync(join(dir, 'large'), someBytes(random(world.seed), LARGE_BYTES));
  for (let i = 0; i < MANY_FILES; i++) writeFileSync(join(dir, `many-${i}`), `${i}`);
  const keeper = callsInProcess(world.folder.fresh('base'));
  const snapshotId = await annotate(keeper, await keeper.snapshot(dir));
  const trees = new Map([[snapshotId, readTree(dir)]]);
  const said = (await portrait(keeper)).snapshots;
  const scene = { ...base, store: keeper.store, published: trees, said, thinned: true };
  const snapshot = {
    name: 'snapshot',
    taken: trees.get(snapshotId) as Tree,
    args: (at: string) => COMMANDS.snapshot(at, dir),
  };
  return [{ ...base, ...snapshot }, ...restores(scene, snapshotId)].map((one) => ({
    ...one,
    name: `${one.name}, large`,
  }));
}

/** So many small packs that a prune writes them together. */
async function joining(world: World, prune: Pick<Scene, 'args'>): Promise<Scene> {
  const versions = Array.from({ length: 18 }, (_, i) => i % 9);
  const { store, ids, said } = await history(world, versions);
  return {
    ...prune,
    name: 'prune that joins packs',
    store,
    said,
    published: published(world, ids, versions),
    removable: new Set(ids.slice(0, -1)),
    deleted: new Set(),
    code: 0,
  };
}

/** The labels of a command's effects in their order. */
export async function traceOf(world: World, scene: Scene): Promise<string[]> {
  const store = scene.store === undefined ? world.folder.fresh('store') : world.copy(scene.store);
  const target = world.folder.fresh('target');
  scene.target?.(target);
  const trace = world.folder.fresh('trace');
  const { code, stderr } = await runBuilt(scene.args(store, target), { trace });
  assert.equal(code, scene.code, `${scene.name}: ${stderr}`);
  scene.checkTarget?.(target, true);
  rmSync(store, { recursive: true });
  return readFileSync(trace, 'utf8').split('\n').slice(0, -1);
}

/** Every way in which a command can be cut off or refused, at each of its effects. */
export function casesOf(scene: Scene, trace: readonly string[]): Case[] {
  const totals = new Map<string, number>();
  for (const label of trace) totals.set(label, (totals.get(label) ?? 0) + 1);
  const seen = new Map<string, number>();
  const cases: Case[] = [];
  for (const label of trace) {
    const nth = (seen.get(label) ?? 0) + 1;
    seen.set(label, nth);
    const inside = nth > ENDS && nth <= (totals.get(label) ?? 0) - ENDS;
    if (scene.thinned === true && inside) continue;
    for (const phase of ['before', 'after'])
      cases.push({ scene, fails: false, fault: `kill:${phase}:${label}:${nth}` });
    for (const code of ['ENOSPC', 'EIO'])
      cases.push({ scene, fails: true, fault: `fail:${code}:${label}:${nth}` });
  }
  return cases;
}

/** So many cases that each label is among them, if they suffice; chosen by a seed. */
export function sampleOf(cases: readonly Case[], count: number, draw: Random): Case[] {
  const left = [...cases];
  for (let i = left.length - 1; i > 0; i--) {
    const k = draw(i + 1);
    [left[i], left[k]] = [left[k] as Case, left[i] as Case];
  }
  const labelOf = ({ fault }: Case) => fault.replace(/^\w+:\w+:|:\d+$/g, '');
  const firsts = new Map(left.map((one) => [labelOf(one), one]));
  const chosen = new Set(firsts.values());
  for (const one of left) if (chosen.size < count) chosen.add(one);
  return [...chosen].slice(0, count);
}

/**
 * Faults that a command may end well with: how many folders new packs need depends on their names, which are those of
 * other bytes in each run, and an index for whose seal the disk has no room goes without one.
 */
const VARIES = /:store:shard:create:\d+$|^fail:ENOSPC:store:index:seal:\d+$/;

/** Runs one case and then the store by the normal program; throws on anything that does not hold. */
export async function runCase(world: World, one: Case, way: 'own' | 'built'): Promise<void> {
  const { scene, fault, fails } = one;
  const store = scene.store === undefined ? world.folder.fresh('store') : world.copy(scene.store);
  const target = world.folder.fresh('target');
  scene.target?.(target);
  try {
    const ended = await runBuilt(scene.args(store, target), { fault });
    const missed = ended.code === scene.code && VARIES.test(fault);
    if (missed || (fails && ended.code === scene.code && scene.reads === true))
      scene.checkTarget?.(target, true);
    // The snapshot is there all the same, and says that nobody could look into it.
    else if (fails && ended.code === scene.code && ended.stdout.includes('not_graded'))
      scene.checkTarget?.(target, true);
    else if (fails) checkFailure(ended, fault, store);
    else assert.equal(ended.signal, 'SIGKILL', `it was killed, exit ${ended.code} ${ended.stderr}`);
    scene.checkTarget?.(target, false);
    // Verify lists the packs, and the index then knows what it had missed. A kill after one effect and one before
    // the next leave the same: one of them is looked at by verify first, the other is just used.
    const looksFirst = /^kill:before|^fail:EIO/.test(fault);
    await checkStore(world, scene, (way === 'own' ? callsInProcess : callsByProgram)(store), looksFirst);
  } catch (error) {
    throw new Error(`${scene.name}, ${fault}, seed ${world.seed}: ${String(error)}`, { cause: error });
  } finally {
    rmSync(store, { recursive: true, force: true });
    rmSync(target, { recursive: true, force: true });
  }
}

function checkFailure(
  { code, signal, stdout, stderr }: Awaited<ReturnType<typeof runBuilt>>,
  fault: string,
  store: string,
): void {
  const [, errno = '', ...label] = fault.split(':');
  assert.ok(code === 1 || code === 4, `exit ${code} ${signal}: ${stderr}`);
  assert.match(stderr, /^error: Cannot .+\n(?:hint: .+\n)?$/, 'one error for people, and a hint');
  assert.ok(stderr.includes(errno), `the error says ${errno}: ${stderr}`);
  const { error } = JSON.parse(stdout) as { error: { code: string } };
  assert.equal(error.code, 'IO', stdout);
  const tmp = join(store, 'tmp');
  const left = existsSync(tmp) && !/tmp|discard/.test(label.join(':')) ? readdirSync(tmp) : [];
  assert.deepEqual(left, [], 'a call that failed leaves no half packs behind');
}

/** Where all that a store promises is looked at. */
async function checkStore(
  world: World,
  scene: Scene,
  keeper: StoreCalls,
  looksFirst: boolean,
): Promise<void> {
  const mayBeDamaged = (id: string) => scene.damaged !== undefined && !scene.published.has(id);
  if (scene.damaged !== undefined) {
    await keeper.repair();
    const aside = new Set(packFiles(keeper.store, 'quarantine').map(sha256));
    for (const wanted of scene.damaged.aside) assert.ok(aside.has(wanted), 'the damaged bytes are kept');
  }
  const listed = existsSync(join(keeper.store, 'config')) ? await keeper.list() : [];
  const ids = new Set(listed.map(({ snapshotId }) => snapshotId));
  for (const id of scene.published.keys())
    assert.ok(ids.has(id) || scene.removable.has(id), `published snapshot ${id} is listed`);
  if (looksFirst) await checkFindings(scene, keeper, ids);
  await checkWhole(world, scene, keeper, ids);
  // A first snapshot may have ended before there was a store.
  if (existsSync(join(keeper.store, 'config'))) await checkSaid(keeper, { ...scene, mayBeDamaged });
  const further = await keeper.snapshot(world.dir(5));
  assert.equal(further.unchanged, false);
  await restoresTo(keeper, further.snapshotId, world.tree(5), world.folder.fresh('restored'));
  await checkPositions(keeper);
  const gone = new Set([...scene.deleted, ...[...scene.removable].filter((id) => !ids.has(id))]);
  if (looksFirst) await checkRebuilt(keeper, gone);
  assert.equal(packFiles(keeper.store).length, await keeper.packs(), 'every pack is known to the index');
  if (scene.removable.size > 0 || scene.deleted.size > 0) {
    await keeper.prune({ last: 1 });
    await keeper.prune({ last: 1 });
    for (const id of scene.removable) gone.add(id);
    assert.equal(packFiles(keeper.store).length, await keeper.packs(), 'every pack is known to the index');
    await restoresTo(keeper, further.snapshotId, world.tree(5), world.folder.fresh('restored'));
  }
  await checkRebuilt(keeper, gone);
  await checkSaid(keeper, { ...scene, mayBeDamaged });
}

async function checkFindings(scene: Scene, keeper: StoreCalls, ids: ReadonlySet<string>): Promise<void> {
  const findings = ids.size === 0 ? [] : await keeper.verify();
  for (const { code, object, snapshots, message } of findings) {
    assert.ok(scene.damaged !== undefined, `verify finds ${code} "${object}": ${message}`);
    for (const id of snapshots) assert.ok(!scene.published.has(id), `${code} concerns ${id}: ${message}`);
  }
}

async function checkWhole(
  world: World,
  scene: Scene,
  keeper: StoreCalls,
  ids: ReadonlySet<string>,
): Promise<void> {
  for (const id of ids) {
    assert.ok(!scene.deleted.has(id), `deleted snapshot ${id} is back`);
    if (scene.damaged !== undefined && !scene.published.has(id)) continue;
    const wanted = scene.published.get(id) ?? scene.taken;
    assert.ok(wanted, `snapshot ${id} has a reason to be there`);
    await restoresTo(keeper, id, wanted, world.folder.fresh('restored'));
  }
}

/** The proof: every effect of every scene, killed before and after, and refused. */
export async function run(log: (line: string) => void): Promise<void> {
  const seed = Number(process.env.LIGHTKEEPER_SEED ?? 1);
  const world = await makeWorld(seed, { large: true });
  const failures: string[] = [];
  let total = 0;
  try {
    log(`seed ${seed}`);
    for (const scene of world.scenes) {
      const started = performance.now();
      const trace = await traceOf(world, scene);
      const cases = casesOf(scene, trace);
      total += cases.length;
      const before = failures.length;
      await inParallel(3, [...cases.entries()], async ([i, one]) => {
        const way = i % BUILT_EVERY === 0 ? 'built' : 'own';
        await runCase(world, one, way).catch((error: unknown) => failures.push(String(error)));
      });
      const seconds = ((performance.now() - started) / 1000).toFixed(0);
      const wrong = failures.length - before;
      log(
        `${scene.name}: ${trace.length} effects, ${new Set(trace).size} labels, ${cases.length} cases, ${wrong} failures, ${seconds} s`,
      );
    }
  } finally {
    world.folder.drop();
  }
  log(`${total} cases, ${failures.length} failures`);
  for (const failure of failures.slice(0, FAILURES_SHOWN)) log(failure);
  assert.equal(failures.length, 0, `${failures.length} failures`);
}
