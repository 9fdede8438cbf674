import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { random } from '../../demo/random.ts';
import { difference, type Fact, readTree, type Tree } from '../support/tree.ts';
import { raw, someBytes } from './random-tree.ts';
import {
  callsInProcess,
  type Policy,
  restoresTo,
  type Said,
  type Scratch,
  type StoreCalls,
  saidOf,
  scratch,
} from './store-calls.ts';
import { checkPositions, checkRebuilt, checkSaid } from './store-checks.ts';

/** Names as they come from people, from programs and from other systems: one character a byte. */
const NAMES = [
  'a',
  'b',
  'A',
  'a b',
  '\xc3\xbc',
  '\xff\xfe',
  'line\nfeed',
  '-rf',
  '.hidden',
  '\\x41',
  'a\\b',
  '%00',
  ' ',
  '\x01\x7f',
  '\xed\xa0\x80',
  'config',
  'x'.repeat(255),
];

const MODES = [0o644, 0o600, 0o000, 0o444, 0o755, 0o4755, 0o2755, 0o1777];
/** Seconds; before 1970 and after 2038 too. */
const TIMES = [
  0, 1, 1_000_000_000.123456, 1_700_000_000.999999, 2_147_483_653.5, 4_000_000_000, -1.5, -999_999_999,
];
const SIZES = [0, 1, 100, 8191, 8192, 8193, 16_384, 65_536, 65_537, 200_000];

/** One change of the directory; `of` and `to` say which names, by place among those that are there. */
type Change =
  | { readonly do: 'write'; readonly at: readonly number[]; readonly size: number; readonly content: number }
  | { readonly do: 'mkdir'; readonly at: readonly number[] }
  | { readonly do: 'symlink'; readonly at: readonly number[]; readonly target: number }
  | { readonly do: 'link' | 'rename'; readonly of: number; readonly at: readonly number[] }
  | {
      readonly do: 'append' | 'edit' | 'edit quietly' | 'truncate';
      readonly of: number;
      readonly content: number;
    }
  | { readonly do: 'delete' | 'to directory' | 'to file'; readonly of: number }
  | { readonly do: 'swap'; readonly of: number; readonly to: number }
  | { readonly do: 'chmod' | 'touch' | 'chown'; readonly of: number; readonly value: number };

/** What happens to the store between two snapshots. */
type Meanwhile = (typeof EVENTS)[number];
const EVENTS = [
  'nothing',
  'index lost',
  'prune',
  'delete',
  'pin',
  'tag',
  'repair',
  'verify',
  'again',
] as const;

/** Changes, a snapshot, and something else. */
interface Step {
  readonly changes: readonly Change[];
  readonly meanwhile: Meanwhile;
  readonly policy: Policy;
}

const place = fc.array(fc.nat(NAMES.length - 1), { minLength: 1, maxLength: 4 });
const which = fc.nat(30);
const content = fc.nat(1000);
const size = fc.constantFrom(...SIZES);

const change: fc.Arbitrary<Change> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('write' as const), at: place, size, content }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('mkdir' as const), at: place }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('symlink' as const), at: place, target: content }) },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constantFrom('link' as const, 'rename' as const), of: which, at: place }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom('append' as const, 'edit' as const, 'edit quietly' as const, 'truncate' as const),
      of: which,
      content,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('delete' as const, 'to directory' as const, 'to file' as const),
      of: which,
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('swap' as const), of: which, to: which }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('chmod' as const, 'touch' as const, 'chown' as const),
      of: which,
      value: content,
    }),
  },
);

const event: fc.Arbitrary<Meanwhile> = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Meanwhile>('nothing') },
  { weight: 4, arbitrary: fc.constant<Meanwhile>('prune') },
  { weight: 6, arbitrary: fc.constantFrom<Meanwhile>(...EVENTS) },
);

const policy: fc.Arbitrary<Policy> = fc.oneof(
  fc.record({ last: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ hourly: fc.integer({ min: 1, max: 2 }) }),
  fc.record({ withinMs: fc.integer({ min: 1, max: 300 }) }),
);

const steps = fc.array(fc.record({ changes: fc.array(change, { maxLength: 8 }), meanwhile: event, policy }), {
  minLength: 1,
  maxLength: 7,
});

// ----- the directory -----

/** A directory that is changed; what cannot be done on a file system is not done. */
class Playground {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
    mkdirSync(dir);
  }

  #path(name: string): Buffer {
    return raw(join(this.#dir, name));
  }

  /** A new name whose folders are there; undefined if something else is in the way. */
  #newName(at: readonly number[]): string | undefined {
    const parts = at.map((i) => NAMES[i] as string);
    let folder = '';
    for (const part of parts.slice(0, -1)) {
      folder = folder === '' ? part : `${folder}/${part}`;
      const there = lstatSync(this.#path(folder), { throwIfNoEntry: false });
      if (there === undefined) mkdirSync(this.#path(folder));
      else if (!there.isDirectory()) return undefined;
    }
    const name = parts.join('/');
    return lstatSync(this.#path(name), { throwIfNoEntry: false }) === undefined ? name : undefined;
  }

  #pick(of: number, type?: Fact['type']): string | undefined {
    const names = [...readTree(this.#dir)].filter(([, node]) => type === undefined || node.type === type);
    return names[of % Math.max(1, names.length)]?.[0];
  }

  apply(one: Change): void {
    if (one.do === 'write' || one.do === 'mkdir' || one.do === 'symlink') this.#make(one);
    else if ('at' in one) this.#move(one);
    else if (one.do === 'swap') this.#swap(one.of, one.to);
    else if ('value' in one) this.#touch(one);
    else if ('content' in one) this.#edit(one);
    else this.#replace(one);
  }

  #make(one: Extract<Change, { do: 'write' | 'mkdir' | 'symlink' }>): void {
    const name = this.#newName(one.at);
    if (name === undefined) return;
    if (one.do === 'mkdir') mkdirSync(this.#path(name));
    else if (one.do === 'write') writeFileSync(this.#path(name), someBytes(random(one.content), one.size));
    else symlinkSync(raw(NAMES[one.target % NAMES.length] as string), this.#path(name));
  }

  #move(one: Extract<Change, { do: 'link' | 'rename' }>): void {
    const from = this.#pick(one.of, one.do === 'link' ? 'file' : undefined);
    const to = this.#newName(one.at);
    if (from === undefined || to === undefined || to.startsWith(`${from}/`)) return;
    if (one.do === 'link') linkSync(this.#path(from), this.#path(to));
    else renameSync(this.#path(from), this.#path(to));
  }

  #edit({
    do: how,
    of,
    content: key,
  }: Extract<Change, { do: 'append' | 'edit' | 'edit quietly' | 'truncate' }>): void {
    const name = this.#pick(of, 'file');
    if (name === undefined) return;
    const path = this.#path(name);
    const { size: length, mtimeMs } = lstatSync(path);
    const draw = random(key);
    if (how === 'append') appendFileSync(path, someBytes(draw, 1 + draw(20_000)));
    else if (how === 'truncate') truncateSync(path, draw(length + 1));
    else {
      const fd = openSync(path, 'r+');
      writeSync(fd, someBytes(draw, Math.min(length, 1 + draw(500))), 0, undefined, draw(length + 1) >> 1);
      closeSync(fd);
    }
    // A program that puts the time back, as many do that mean well.
    if (how === 'edit quietly') utimesSync(path, mtimeMs / 1000, mtimeMs / 1000);
  }

  #swap(of: number, to: number): void {
    const [a, b] = [this.#pick(of), this.#pick(to)];
    if (a === undefined || b === undefined || a === b || a.startsWith(`${b}/`) || b.startsWith(`${a}/`))
      return;
    renameSync(this.#path(a), this.#path('swapping'));
    renameSync(this.#path(b), this.#path(a));
    renameSync(this.#path('swapping'), this.#path(b));
  }

  #touch({ do: how, of, value }: Extract<Change, { do: 'chmod' | 'touch' | 'chown' }>): void {
    const name = this.#pick(of);
    if (name === undefined) return;
    const path = this.#path(name);
    const time = TIMES[value % TIMES.length] as number;
    if (how === 'touch') lutimesSync(path, time, time);
    else if (lstatSync(path).isSymbolicLink()) return;
    else if (how === 'chmod') chmodSync(path, MODES[value % MODES.length] as number);
    else if (process.getuid?.() === 0) chownSync(path, value, value % 7);
  }

  #replace({ do: how, of }: Extract<Change, { do: 'delete' | 'to directory' | 'to file' }>): void {
    const name = this.#pick(of, how === 'to directory' ? 'file' : how === 'to file' ? 'dir' : undefined);
    if (name === undefined) return;
    rmSync(this.#path(name), { recursive: true });
    if (how === 'to directory') mkdirSync(this.#path(name));
    if (how === 'to file') writeFileSync(this.#path(name), name);
  }
}

// ----- the store beside it -----

/** What the store should hold. */
class Model {
  readonly trees = new Map<string, Tree>();
  readonly gone = new Set<string>();
  readonly #pinned = new Set<string>();
  readonly #said = new Map<string, Said>();
  readonly #keeper: StoreCalls;
  readonly #dir: string;

  constructor(keeper: StoreCalls, dir: string) {
    this.#keeper = keeper;
    this.#dir = dir;
  }

  async snapshot(): Promise<void> {
    const tree = readTree(this.#dir);
    const snapshot = await this.#keeper.snapshot(this.#dir);
    const { snapshotId, unchanged, files } = snapshot;
    const known = this.trees.get(snapshotId);
    assert.equal(unchanged, known !== undefined);
    if (known !== undefined)
      assert.equal(difference(tree, known), undefined, 'the directory had not changed');
    assert.equal(files, [...tree.values()].filter(({ type }) => type === 'file').length);
    this.trees.set(snapshotId, tree);
    if (!unchanged) this.#said.set(snapshotId, saidOf(snapshot));
  }

  #drop(id: string): void {
    this.trees.delete(id);
    this.gone.add(id);
  }

  async meanwhile({ meanwhile: what, policy: keep }: Step): Promise<void> {
    const keeper = this.#keeper;
    if (what === 'index lost') rmSync(join(keeper.store, 'index'), { recursive: true });
    else if (what === 'repair') assert.equal((await keeper.repair()).unhealed, 0);
    else if (what === 'verify') assert.deepEqual(await keeper.verify('structure'), []);
    else if (what === 'again') await this.snapshot();
    else if (what === 'prune') await this.#prune(keep);
    const [oldest] = this.trees.keys();
    if (oldest === undefined || this.trees.size < 2 || this.#pinned.has(oldest)) return;
    if (what === 'pin') {
      await keeper.pin(oldest);
      this.#pinned.add(oldest);
      this.#said.set(oldest, { ...this.#said.get(oldest), pinned: true });
    } else if (what === 'tag') {
      await keeper.tag(oldest, 'release=1');
      this.#said.set(oldest, { ...this.#said.get(oldest), tags: { release: '1' } });
    } else if (what === 'delete') await this.#delete(oldest);
  }

  /** Deletes a snapshot, unless it is the last usable one: an emptied directory makes no usable point. */
  async #delete(id: string): Promise<void> {
    const usable = (await this.#keeper.list()).filter((one) => one.usable);
    if (usable.length === 1 && usable[0]?.snapshotId === id) {
      await assert.rejects(this.#keeper.delete(id), /it is the last usable point/);
      return;
    }
    await this.#keeper.delete(id);
    this.#drop(id);
  }

  /** Which snapshots a policy keeps is tested elsewhere; here it is that the others go and these stay. */
  async #prune(keep: Policy): Promise<void> {
    const before = [...this.trees.keys()];
    const result = await this.#keeper.prune(keep);
    const kept = new Set(result.keep.map(({ snapshotId }) => snapshotId));
    const removed = result.remove.map(({ snapshotId }) => snapshotId);
    assert.deepEqual([...kept, ...removed].sort(), [...before].sort());
    assert.ok(kept.has(before.at(-1) as string), 'the newest stays');
    for (const id of this.#pinned) assert.ok(kept.has(id), 'what is pinned stays');
    if (keep.last !== undefined) for (const id of before.slice(-keep.last)) assert.ok(kept.has(id));
    for (const id of removed) this.#drop(id);
  }

  async check(folder: Scratch): Promise<void> {
    const listed = (await this.#keeper.list()).map(({ snapshotId }) => snapshotId);
    assert.deepEqual(listed.sort(), [...this.trees.keys()].sort(), 'the snapshots that are kept');
    const findings = await this.#keeper.verify();
    assert.deepEqual(
      findings.map(({ code, object, message }) => `${code} ${object}: ${message}`),
      [],
    );
    for (const [id, tree] of this.trees) await restoresTo(this.#keeper, id, tree, folder.fresh('restored'));
    await checkPositions(this.#keeper);
    await checkSaid(this.#keeper, { said: this.#said });
    await checkRebuilt(this.#keeper, this.gone);
  }
}

async function live(folder: Scratch, taken: readonly Step[]): Promise<void> {
  const dir = folder.fresh('dir');
  const keeper = callsInProcess(folder.fresh('store'));
  try {
    const playground = new Playground(dir);
    const model = new Model(keeper, dir);
    for (const step of taken) {
      for (const one of step.changes) playground.apply(one);
      await model.snapshot();
      await model.meanwhile(step);
    }
    await model.check(folder);
  } finally {
    rmSync(dir, { recursive: true, force: true });
    rmSync(keeper.store, { recursive: true, force: true });
  }
}

/** Runs so many lives of a directory and its store; the shortest one that fails is told. */
export async function runLives(seed: number, count: number): Promise<{ snapshots: number; changes: number }> {
  const folder = scratch('roundtrip');
  let snapshots = 0;
  let changes = 0;
  try {
    await fc.assert(
      fc.asyncProperty(steps, async (taken) => {
        snapshots += taken.length;
        for (const step of taken) changes += step.changes.length;
        await live(folder, taken);
      }),
      { seed, numRuns: count },
    );
  } finally {
    folder.drop();
  }
  return { snapshots, changes };
}

/** The proof: hundreds of lives. */
export async function run(log: (line: string) => void): Promise<void> {
  const seed = Number(process.env.LIGHTKEEPER_SEED ?? 1);
  const count = Number(process.env.LIGHTKEEPER_COUNT ?? 400);
  const started = performance.now();
  const { snapshots, changes } = await runLives(seed, count);
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  log(
    `seed ${seed}: ${count} lives of a directory, ${snapshots} snapshots, ${changes} changes, ${seconds} s`,
  );
}
