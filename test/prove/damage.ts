import assert from 'node:assert/strict';
import { cpSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { DirectoryPackStore } from '../../agent/pack/directory-pack-store.ts';
import { readPackTable } from '../../agent/pack/reader.ts';
import { type Random, random } from '../../demo/random.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { difference, readTree, type Tree } from '../support/tree.ts';
import { makeGraphs, makeTree } from './random-tree.ts';
import {
  callsInProcess,
  FAILURES_SHOWN,
  filesIn,
  inParallel,
  type Portrait,
  packFiles,
  portrait,
  restoresTo,
  type Scratch,
  type StoreCalls,
  scratch,
} from './store-calls.ts';
import { annotate, checkAnnotated } from './store-checks.ts';

const VERSIONS = 5;
const PACK_HEADER_BYTES = 40;
const FRAME_PREFIX_BYTES = 16;
const TRAILER_BYTES = 56;

/** What a disk or a person did to a store. */
export interface Damage {
  readonly what: string;
  /** The file concerned, from the store's folder; empty where only the index is. */
  readonly file: string;
  readonly apply: (store: string) => void;
  /** The index is concerned too. */
  readonly index?: boolean;
  /** With a pack and the index gone nothing says that there was something. */
  readonly silent?: boolean;
}

/** Where the parts of a pack are. */
interface PackParts {
  readonly size: number;
  readonly frames: readonly { readonly from: number; readonly to: number; readonly kind: UnitKind_Value }[];
}

/** A store with several snapshots that share data, and what is known of it beforehand. */
export interface Victim {
  readonly seed: number;
  readonly folder: Scratch;
  readonly store: string;
  /** The files of each snapshot that is kept, oldest first; the last one is still in the live directory. */
  readonly trees: ReadonlyMap<string, Tree>;
  /** A snapshot that was deleted, and whose data is still there. */
  readonly deleted: string;
  /** All that the store holds about the snapshots. */
  readonly said: Portrait;
  readonly live: string;
  readonly head: string;
  readonly files: ReadonlyMap<string, Buffer>;
  readonly parts: ReadonlyMap<string, PackParts>;
  /** Which snapshot's manifest a meta pack holds. */
  readonly manifests: ReadonlyMap<string, string>;
}

/** Builds the store that is damaged; the same on every call with one seed. */
export async function makeVictim(seed: number): Promise<Victim> {
  const folder = scratch('damage', { memory: true });
  const keeper = callsInProcess(folder.fresh('base'));
  const trees = new Map<string, Tree>();
  const manifests = new Map<string, string>();
  const parts = new Map<string, PackParts>();
  const graphs = await makeGraphs(seed);
  let live = '';
  let head = '';
  for (let version = 0; version < VERSIONS; version++) {
    live = folder.fresh('live');
    makeTree(live, seed, { version, graphs });
    const before = new Set(packFiles(keeper.store));
    head = await annotate(keeper, await keeper.snapshot(live));
    trees.set(head, readTree(live));
    for (const path of packFiles(keeper.store)) if (!before.has(path)) manifests.set(basename(path), head);
  }
  const [deleted = '', pinned = ''] = trees.keys();
  await keeper.pin(pinned);
  await keeper.delete(deleted);
  trees.delete(deleted);
  const said = await portrait(keeper);
  checkAnnotated(said.snapshots);
  const packs = new DirectoryPackStore(keeper.store);
  for await (const { packId, size } of packs.list()) {
    const { frames } = await readPackTable(packs, packId, size);
    const extents = frames.map(({ offset, length, kind }) => ({ from: offset, to: offset + length, kind }));
    parts.set(`${packId}.pack`, { size, frames: extents });
  }
  await packs.close();
  const files = new Map([...filesIn(keeper.store)].filter(([name]) => /^(packs|config)/.test(name)));
  return { seed, folder, store: keeper.store, trees, deleted, said, live, head, files, parts, manifests };
}

// ----- what is done to it -----

function flip(file: string, at: number, bit: number): Damage {
  return {
    what: `bit ${bit} of byte ${at} of ${file} flips`,
    file,
    apply: (store) => {
      const bytes = readFileSync(join(store, file));
      bytes[at] = (bytes[at] as number) ^ (1 << bit);
      writeFileSync(join(store, file), bytes);
    },
  };
}

/** A place in a file: anywhere, or in one of the small parts on which everything else depends. */
function place(victim: Victim, file: string, draw: Random): number {
  const size = victim.files.get(file)?.length ?? 0;
  const parts = victim.parts.get(basename(file));
  if (parts === undefined) return draw(size);
  const within = (from: number, to: number) => from + draw(Math.max(1, to - from));
  const frame = parts.frames[draw(parts.frames.length)];
  const footer = parts.frames.at(-1)?.to ?? PACK_HEADER_BYTES;
  if (frame === undefined) return draw(size);
  switch (draw(7)) {
    case 0:
      return within(0, PACK_HEADER_BYTES);
    case 1:
      return within(frame.from, frame.from + FRAME_PREFIX_BYTES);
    case 2:
      return within(frame.from + FRAME_PREFIX_BYTES, Math.min(frame.to, frame.from + 400));
    case 3:
      return within(footer, size - TRAILER_BYTES);
    case 4:
      return within(size - TRAILER_BYTES, size);
    case 5:
      return within(frame.from, frame.to);
    default:
      return draw(size);
  }
}

/** A seeded flip of one bit. */
export function drawFlip(victim: Victim, draw: Random): Damage {
  const names = [...victim.files.keys()];
  // The config is one file of a hundred in a store that has been used: it need not be half of the flips.
  const packs = names.filter((name) => name.startsWith('packs'));
  const file = (draw(16) === 0 ? names[draw(names.length)] : packs[draw(packs.length)]) as string;
  return flip(file, place(victim, file, draw), draw(8));
}

/** A seeded cut of one file. */
export function drawCut(victim: Victim, draw: Random): Damage {
  const packs = [...victim.files.keys()];
  const file = packs[draw(packs.length)] as string;
  const length = draw(victim.files.get(file)?.length ?? 1);
  return {
    what: `${file} is cut to ${length} bytes`,
    file,
    apply: (store) => truncateSync(join(store, file), length),
  };
}

/** One pack is not there any more. */
export function drawLoss(victim: Victim, draw: Random): Damage {
  const packs = [...victim.files.keys()].filter((name) => name.startsWith('packs'));
  const file = packs[draw(packs.length)] as string;
  return { what: `${file} is missing`, file, apply: (store) => rmSync(join(store, file)) };
}

function flipAt(bytes: Buffer, at: number, bit: number): Buffer {
  if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << bit);
  return bytes;
}

/** The index is gone, or one of its files is cut, zeroed or flipped. */
export function drawIndexLoss(draw: Random): Damage {
  const how = draw(6);
  const share = draw(1000) / 1000;
  const names = /\.log$|\.ldb$|MANIFEST|CURRENT/;
  const pick = draw(100);
  const change = (store: string, edit: (bytes: Buffer) => Buffer) => {
    const files = [...filesIn(join(store, 'index')).keys()].filter((name) => names.test(name)).sort();
    const path = join(store, 'index', files[pick % files.length] as string);
    writeFileSync(path, edit(readFileSync(path)));
  };
  const from = (bytes: Buffer) => Math.floor(bytes.length * share);
  const ways: [string, (store: string) => void][] = [
    ['the index is gone', (store) => rmSync(join(store, 'index'), { recursive: true })],
    ['a file of the index is cut', (store) => change(store, (bytes) => bytes.subarray(0, from(bytes)))],
    ['a file of the index ends in zeros', (store) => change(store, (bytes) => bytes.fill(0, from(bytes)))],
    [
      'there are zeros in a file of the index',
      (store) =>
        change(store, (bytes) => bytes.fill(0, from(bytes), Math.min(bytes.length, from(bytes) + 300))),
    ],
    ['a file of the index is all zeros', (store) => change(store, (bytes) => bytes.fill(0))],
    ['a bit of the index flips', (store) => change(store, (bytes) => flipAt(bytes, from(bytes), pick & 7))],
  ];
  const [what, apply] = ways[how] as (typeof ways)[number];
  return { what: `${what} (file ${pick}, from ${share})`, file: '', index: true, apply };
}

/** Two damages at once. */
export function both(a: Damage, b: Damage): Damage {
  return {
    silent: a.what.endsWith('is missing') && b.index === true,
    index: a.index === true || b.index === true,
    what: `${a.what}, and ${b.what}`,
    file: a.file === '' ? b.file : a.file,
    apply: (store) => {
      a.apply(store);
      b.apply(store);
    },
  };
}

// ----- what must hold -----

/** Which snapshots cannot be had back, by trying to on a copy. */
async function lostSnapshots(victim: Victim, store: string, damage: Damage): Promise<Set<string>> {
  const lost = new Set<string>();
  const copy = callsInProcess(victim.folder.fresh('oracle'));
  cpSync(store, copy.store, { recursive: true, preserveTimestamps: true });
  for (const [id, tree] of victim.trees) {
    const to = victim.folder.fresh('restored');
    const wrong = await copy.restore(id, to).then(
      () => {
        assert.equal(difference(tree, readTree(to)), undefined, 'a restore that ended well');
        return undefined;
      },
      (error: unknown) => String(error),
    );
    if (wrong !== undefined) lost.add(id);
    rmSync(to, { recursive: true, force: true });
  }
  rmSync(copy.store, { recursive: true });
  // The index has manifests too, so a restore works; but a manifest that no pack holds is lost with the index.
  const holder = victim.manifests.get(basename(damage.file));
  if (holder !== undefined && holder !== victim.deleted && manifestHit(victim, store, damage.file))
    lost.add(holder);
  return lost;
}

/** Whether the damage lies in the frame of a manifest. */
function manifestHit(victim: Victim, store: string, file: string): boolean {
  const before = victim.files.get(file) as Buffer;
  const now = filesIn(store).get(file) ?? Buffer.alloc(0);
  const frames = victim.parts.get(basename(file))?.frames ?? [];
  return frames.some(
    ({ kind, from, to }) =>
      kind === UnitKind_Value.MANIFEST && !before.subarray(from, to).equals(now.subarray(from, to)),
  );
}

async function named(keeper: StoreCalls): Promise<{ snapshots: Set<string>; codes: string[] }> {
  const findings = await keeper.verify();
  return {
    snapshots: new Set(findings.flatMap(({ snapshots }) => snapshots)),
    codes: findings.map(({ code, object, message }) => `${code} ${object}: ${message}`),
  };
}

/** Damages a copy of the store, and goes through verify, repair and a further snapshot. */
export async function runDamage(victim: Victim, damage: Damage, options: { repair: boolean }): Promise<void> {
  const keeper = callsInProcess(victim.folder.fresh('store'));
  cpSync(victim.store, keeper.store, { recursive: true, preserveTimestamps: true });
  try {
    damage.apply(keeper.store);
    const lost = await lostSnapshots(victim, keeper.store, damage);
    const before = await checkVerify(victim, keeper, damage, lost);
    if (options.repair) await checkRepair(victim, keeper, damage, before);
    await checkHealing(victim, keeper, damage, before);
  } catch (error) {
    const how = options.repair ? 'with repair' : 'without repair';
    throw new Error(`${damage.what}, ${how}, seed ${victim.seed}: ${String(error)}`, { cause: error });
  } finally {
    rmSync(keeper.store, { recursive: true, force: true });
  }
}

/** Verify misses nothing and names the right snapshots; answers those that are not whole. */
async function checkVerify(
  victim: Victim,
  keeper: StoreCalls,
  damage: Damage,
  lost: ReadonlySet<string>,
): Promise<ReadonlySet<string>> {
  const { snapshots, codes } = await named(keeper);
  const listed = new Set((await keeper.list()).map(({ snapshotId }) => snapshotId));
  assert.ok(damage.file === '' || damage.silent === true || codes.length > 0, 'verify finds something');
  if (damage.file === '') assert.deepEqual(codes, [], 'without the index nothing is lost');
  const unlisted = [...victim.trees.keys()].filter((id) => !listed.has(id));
  // What no pack and no index names cannot be named; it must be lost indeed, and not without a word.
  for (const id of unlisted)
    assert.ok(lost.has(id) && (codes.length > 0 || damage.silent === true), `snapshot ${id} is not listed`);
  const wanted = [...lost].filter((id) => listed.has(id)).sort();
  assert.deepEqual(
    [...snapshots].sort(),
    wanted,
    `verify names the snapshots concerned: ${codes.join('; ')}`,
  );
  await checkRestores(victim, keeper, damage, new Set([...lost, ...unlisted]));
  return new Set([...wanted, ...unlisted]);
}

/** Every snapshot that is said to be whole is, and what was deleted is not back. */
async function checkRestores(
  victim: Victim,
  keeper: StoreCalls,
  damage: Damage,
  except: ReadonlySet<string>,
): Promise<void> {
  const listed = (await keeper.list()).map(({ snapshotId }) => snapshotId);
  // With the index gone too, the deletion may be what was damaged.
  const forgotten = damage.index === true && damage.file !== '';
  assert.ok(forgotten || !listed.includes(victim.deleted), 'the deleted snapshot is not back');
  for (const [id, tree] of victim.trees)
    if (!except.has(id)) await restoresTo(keeper, id, tree, victim.folder.fresh('restored'));
}

async function checkRepair(
  victim: Victim,
  keeper: StoreCalls,
  damage: Damage,
  before: ReadonlySet<string>,
): Promise<void> {
  const damaged = damage.file === '' ? undefined : filesIn(keeper.store).get(damage.file);
  await keeper.repair();
  const after = filesIn(keeper.store);
  for (const [name, bytes] of victim.files)
    if (name !== damage.file) assert.ok(after.get(name)?.equals(bytes), `repair leaves ${name} as it was`);
  if (damage.file.startsWith('packs') && damaged !== undefined) {
    const kept = [...after].some(([name, bytes]) => name.startsWith('quarantine/') && bytes.equals(damaged));
    assert.ok(kept, 'the damaged bytes are in the quarantine');
  }
  const { snapshots, codes } = await named(keeper);
  for (const id of snapshots) assert.ok(before.has(id), `repair breaks ${id}: ${codes.join('; ')}`);
  for (const code of codes) assert.match(code, /^snapshot_damaged /, 'only what is lost is left');
  const listed = new Set((await keeper.list()).map(({ snapshotId }) => snapshotId));
  const lost = [...victim.trees.keys()].filter((id) => snapshots.has(id) || !listed.has(id));
  if (!inFrame(victim, damage)) assert.deepEqual(lost, [], 'all units could be saved');
  // The index still knows what manifests, positions and annotations said, whatever became of their packs.
  const said = await portrait(keeper);
  if (damage.index !== true)
    assert.deepEqual(withoutDamage(said), withoutDamage(victim.said), 'the store holds the same');
  const remembered = [...said.snapshots].filter(([, { damaged }]) => damaged === true).map(([id]) => id);
  assert.deepEqual(
    remembered.sort(),
    lost.filter((id) => said.snapshots.has(id)).sort(),
    'damage is remembered',
  );
  // What was only in the index has to be in packs again.
  rmSync(join(keeper.store, 'index'), { recursive: true });
  assert.deepEqual(await portrait(keeper), said, 'the store holds the same after its index is made again');
  for (const id of lost) assert.ok(before.has(id), `repair loses ${id}`);
  await checkRestores(victim, keeper, damage, new Set(lost));
}

/** Returns what a store holds, without what checks recorded about damage. */
export function withoutDamage({ snapshots, annotations }: Portrait): Portrait {
  return {
    snapshots: new Map(
      [...snapshots].map(([id, { damaged: _damaged, usable: _usable, ...said }]) => [id, said]),
    ),
    annotations: new Map(
      [...annotations].map(([id, all]) => [
        id,
        all.filter((one) => !Object.hasOwn(one as object, 'damaged')),
      ]),
    ),
  };
}

/** Whether units themselves are damaged, and not only what is around them. */
function inFrame(victim: Victim, { file, what }: Damage): boolean {
  if (!file.startsWith('packs')) return false;
  const at = /byte (\d+) of/.exec(what)?.[1];
  if (at === undefined) return true;
  const frames = victim.parts.get(basename(file))?.frames ?? [];
  return frames.some(({ from, to }) => Number(at) >= from && Number(at) < to);
}

/** The directory still holds the newest snapshot: taking it again makes it whole. */
async function checkHealing(
  victim: Victim,
  keeper: StoreCalls,
  damage: Damage,
  before: ReadonlySet<string>,
): Promise<void> {
  const wanted = victim.trees.get(victim.head) as Tree;
  const { snapshotId } = await keeper.snapshot(victim.live);
  const { snapshots, codes } = await named(keeper);
  assert.ok(!snapshots.has(snapshotId), `the head is whole again: ${codes.join('; ')}`);
  await restoresTo(keeper, snapshotId, wanted, victim.folder.fresh('restored'));
  const listed = new Set((await keeper.list()).map(({ snapshotId: id }) => id));
  const lost = [...victim.trees.keys()].filter((id) => snapshots.has(id) || !listed.has(id));
  for (const id of lost) assert.ok(before.has(id), `snapshot ${id} was whole before`);
  await checkRestores(victim, keeper, damage, new Set(lost));
}

/** The proof: a thousand flips, and hundreds of the other damages. */
export async function run(log: (line: string) => void): Promise<void> {
  const seed = Number(process.env.LIGHTKEEPER_SEED ?? 1);
  const flips = Number(process.env.LIGHTKEEPER_COUNT ?? 1000);
  const victim = await makeVictim(seed);
  const draw = random(seed);
  const others = Math.ceil(flips / 8);
  const kinds: [string, number, () => Damage][] = [
    ['flips of one bit', flips, () => drawFlip(victim, draw)],
    ['cut files', others, () => drawCut(victim, draw)],
    ['missing packs', others, () => drawLoss(victim, draw)],
    ['lost or damaged indexes', others, () => drawIndexLoss(draw)],
    ['a flip and a damaged index', others, () => both(drawFlip(victim, draw), drawIndexLoss(draw))],
    ['a missing pack and a damaged index', others, () => both(drawLoss(victim, draw), drawIndexLoss(draw))],
  ];
  const failures: string[] = [];
  const bytes = [...victim.files.values()].reduce((sum, { length }) => sum + length, 0);
  log(`seed ${seed}: ${VERSIONS} snapshots in ${victim.parts.size} packs, ${bytes} bytes`);
  try {
    for (const [what, count, next] of kinds) {
      const started = performance.now();
      const before = failures.length;
      const cases = Array.from({ length: count }, (_, i) => ({ damage: next(), repair: i % 2 === 0 }));
      await inParallel(2, cases, async ({ damage, repair }) => {
        await runDamage(victim, damage, { repair }).catch((error: unknown) => failures.push(String(error)));
      });
      const seconds = ((performance.now() - started) / 1000).toFixed(0);
      log(`${count} ${what}: ${failures.length - before} failures, ${seconds} s`);
    }
  } finally {
    victim.folder.drop();
  }
  for (const failure of failures.slice(0, FAILURES_SHOWN)) log(failure);
  assert.equal(failures.length, 0, `${failures.length} failures`);
}
