import { randomBytes } from 'node:crypto';
import { lstatSync, realpathSync } from 'node:fs';
import { lstat, mkdir, readdir, readFile } from 'node:fs/promises';
import { create } from '@bufbuild/protobuf';
import { ioError, LightkeeperError, normalise, systemCode } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { type BytePath, bytesText, pathFromBytes, pathText } from '../../core/path.ts';
import { idOf } from '../../core/snapshot.ts';
import { type InPlace, InPlaceSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { effect, removeFile, removeTree, syncDir } from '../../host/disk.ts';
import { checkReserve } from '../../host/disk-reserve.ts';
import { type DownEvidence, whyNotDown, whyNotDownSince } from '../instance/liveness.ts';
import type { Store } from '../store/store.ts';
import { OWN_FOLDER } from '../watch/names.ts';
import { isWithin, type Scan, scan } from '../watch/scan.ts';
import { workspacesIn } from '../watch/workspaces.ts';
import {
  hasJournal,
  type Journal,
  placesOf,
  type RootFacts,
  removeJournal,
  rootFacts,
  writeJournal,
} from './journal.ts';
import { alone, isMovable, rollBack, rollForward, rollPending } from './journal-recovery.ts';
import { count, type RestoreBase, writing } from './plan.ts';
import { type Restored, restoreToDirectory } from './to-directory.ts';
import { type Totals, writeTree } from './tree-writer.ts';

/** Names of one kind that are told. */
const NAMES_TOLD_MAX = 1000;

/** What a restore in place is asked. */
export interface InPlaceOrder extends RestoreBase {
  readonly evidence: DownEvidence;
  /** Absolute. */
  readonly dir: Uint8Array;
  /** Names at its top that stay, beside those that always do. */
  readonly exclude: readonly string[];
}

/** What a restore in place did. */
export interface InPlaceRestored extends Restored {
  /** Undefined where the directory was not there. */
  readonly inPlace: InPlace | undefined;
}

/**
 * Puts a snapshot in place of what a directory holds, without ever renaming the directory itself. However it ends,
 * the directory holds the old state or the new one whole, or a journal by which the next start makes it so.
 */
export async function restoreInPlace(store: Store, order: InPlaceOrder): Promise<InPlaceRestored> {
  const real = realDirectory(order, store.root);
  if (real === undefined) return { ...(await restoreAbsent(store, order)), inPlace: undefined };
  const endRead = store.beginRead();
  try {
    const totals = await count(store, { snapshot: order.snapshot, paths: [] });
    const movable = await movableNames(order, real, store.root);
    const { mode, uid, gid, mtimeNs } = lstatSync(real, { bigint: true });
    const root = { mode: Number(mode & 0o7777n), uid: Number(uid), gid: Number(gid), mtimeNs };
    const parts = { real, totals, movable, root };
    if (order.dryRun) return await tellPlan(store, order, parts);
    const options = scanOptions(store, order);
    const alive = await whyNotDown(real, order.evidence, options);
    if (alive !== undefined) throw notDown(store, order, alive);
    return await alone(real, () => new Replacement(store, order, parts).run());
  } finally {
    endRead();
  }
}

/** Where there is no directory nothing can be overwritten, and no instance can be at work. */
function restoreAbsent(store: Store, order: InPlaceOrder): Promise<Restored> {
  return restoreToDirectory(store, { ...order, to: order.dir, paths: [] });
}

function scanOptions(store: Store, { exclude, signal }: InPlaceOrder) {
  return { exclude, store: store.root, ...(signal === undefined ? {} : { signal }) };
}

function refused(order: InPlaceOrder, state: string, hint: string): LightkeeperError {
  return new LightkeeperError('REFUSED', `Cannot restore in place to "${bytesText(order.dir)}": ${state}`, {
    hint,
  });
}

/** A word as a shell takes it. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function notDown(store: Store, order: InPlaceOrder, state: string): LightkeeperError {
  const words = [
    'lightkeeper restore --in-place',
    quoted(bytesText(order.dir)),
    `--snapshot ${idOf(order.snapshot)} --store`,
    quoted(store.root),
    ...(order.evidence.case === 'instanceUrl'
      ? ['--instance-url', quoted(order.evidence.value)]
      : ['--instance-stopped']),
  ];
  return refused(
    order,
    state,
    'stop the instance (docker compose stop lightrag, or systemctl stop lightrag), then: ' +
      `${words.join(' ')}, then start it again (docker compose start lightrag, or systemctl start lightrag)`,
  );
}

/** The directory without symlinks; undefined if it is not there. Refuses the store and what lies in it. */
function realDirectory(order: InPlaceOrder, store: string): Buffer | undefined {
  const dir = Buffer.from(order.dir);
  let real: Buffer;
  try {
    real = realpathSync(dir, { encoding: 'buffer' });
  } catch (error) {
    // A symlink that leads nowhere is refused by who makes the directory.
    if (systemCode(error) === 'ENOENT') return undefined;
    throw ioError('restore in place to', bytesText(dir), error);
  }
  if (!lstatSync(real).isDirectory())
    throw refused(order, 'it is not a directory', 'name the working directory with --in-place');
  if (isWithin(real, store))
    throw refused(order, 'it is the store, or a part of it', 'name the working directory with --in-place');
  return real;
}

/** Which names at the top may move; refuses a directory below whose names lies what must not move with them. */
async function movableNames(
  order: InPlaceOrder,
  real: Buffer,
  store: string,
): Promise<(name: BytePath) => boolean> {
  const movable = isMovable(order.exclude);
  const below = (path: BytePath): string[] => {
    const prefix = `${pathFromBytes(real)}/`.replace(/^\/\/$/, '/');
    return path.startsWith(prefix) ? path.slice(prefix.length).split('/') : [];
  };
  const [storeTop, ...further] = below(realpathSync(store, { encoding: 'buffer' }).toString('latin1'));
  if (storeTop !== undefined && further.length > 0 && movable(storeTop)) {
    const hint = 'move the store to another disk, or restore to another directory with --to';
    throw refused(order, `the store lies in its folder "${pathText(storeTop)}"`, hint);
  }
  for (const mount of await mountPoints()) {
    const [top] = below(mount);
    if (top === undefined || top === storeTop || (top !== OWN_FOLDER && !movable(top))) continue;
    const state = `another disk is mounted in it, at "${pathText(mount)}"`;
    throw refused(order, state, 'unmount it, or leave it as it is with --exclude');
  }
  return (name) => name !== storeTop && movable(name);
}

async function mountPoints(): Promise<BytePath[]> {
  const text = await readFile('/proc/self/mountinfo', 'latin1').catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return '';
    throw ioError('read', '/proc/self/mountinfo', error);
  });
  return text.split('\n').flatMap((line) => {
    const point = line.split(' ')[4];
    if (point === undefined) return [];
    return [
      point.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8))),
    ];
  });
}

interface Parts {
  readonly real: Buffer;
  readonly totals: Totals;
  readonly movable: (name: BytePath) => boolean;
  /** What the directory itself was given, before anything was made in it. */
  readonly root: RootFacts;
}

async function checkSpace(order: InPlaceOrder, { real, totals }: Parts, there: Scan): Promise<void> {
  await checkReserve({
    doing: `restore in place to "${bytesText(order.dir)}"`,
    place: real.toString(),
    bytes: totals.bytes,
    largestBytes: there.largestBytes,
    reserveBytes: order.reserveBytes,
  });
}

async function namesIn(folder: Buffer): Promise<BytePath[]> {
  try {
    return (await readdir(folder, { encoding: 'buffer' })).map(pathFromBytes).sort();
  } catch (error) {
    throw ioError('read', bytesText(folder), error);
  }
}

/** What happens to the names at the top of a directory. */
interface Plan {
  readonly out: readonly BytePath[];
  readonly in: readonly BytePath[];
  readonly kept: readonly BytePath[];
  /** The snapshot has them, and they stay as they are. */
  readonly skipped: readonly BytePath[];
}

function planOf(
  real: Buffer,
  coming: readonly BytePath[],
  there: readonly BytePath[],
  movable: Parts['movable'],
): Plan {
  const own = new Set(coming);
  // A workspace that the snapshot does not have is a graph of its own.
  const others = new Set(workspacesIn(real).filter((name) => !own.has(name)));
  const moves = (name: BytePath) => movable(name) && !others.has(name);
  return {
    out: there.filter(moves),
    in: coming.filter(movable),
    kept: there.filter((name) => name !== OWN_FOLDER && !moves(name)),
    skipped: coming.filter((name) => !movable(name)),
  };
}

function told({ out, in: coming, kept }: Plan, oldState: string): InPlace {
  const stays = new Set(coming);
  const removed = out.filter((name) => !stays.has(name));
  const replaced = out.length - removed.length;
  return create(InPlaceSchema, {
    replaced,
    added: coming.length - replaced,
    removed: removed.length,
    kept: kept.length,
    removedNames: removed.slice(0, NAMES_TOLD_MAX).map(pathText),
    keptNames: kept.slice(0, NAMES_TOLD_MAX).map(pathText),
    oldState,
  });
}

async function tellPlan(store: Store, order: InPlaceOrder, parts: Parts): Promise<InPlaceRestored> {
  const { real, totals, movable } = parts;
  if (await hasJournal(real)) {
    const state = 'an interrupted restore in place has not been finished';
    throw refused(order, state, 'run it without --dry-run, or start lightkeeper up: either settles it first');
  }
  await checkSpace(order, parts, await scan(real, scanOptions(store, order)));
  const coming = new Set<BytePath>();
  for await (const { path } of store.files(order.snapshot.manifest.files))
    coming.add(pathFromBytes(path).split('/')[0] ?? '');
  const plan = planOf(real, [...coming], await namesIn(real), movable);
  return { ...totals, findings: skippedNames(plan), inPlace: told(plan, '') };
}

class Replacement {
  readonly #store: Store;
  readonly #order: InPlaceOrder;
  readonly #parts: Parts;
  readonly #id = randomBytes(4).toString('hex');

  constructor(store: Store, order: InPlaceOrder, parts: Parts) {
    this.#store = store;
    this.#order = order;
    this.#parts = parts;
  }

  async run(): Promise<InPlaceRestored> {
    const { real, movable } = this.#parts;
    const pending = await rollPending(real);
    const before = await scan(real, scanOptions(this.#store, this.#order));
    const { stage, old } = placesOf(real, this.#id);
    await this.#beginStage(stage);
    let plan: Plan;
    let journal: Journal;
    let written: Restored;
    try {
      await checkSpace(this.#order, this.#parts, before);
      written = await this.#fillStage(stage);
      await this.#checkAgain(before);
      const staged = await namesIn(stage);
      plan = planOf(real, staged, await namesIn(real), movable);
      journal = this.#journal(plan, pending.length === 0 ? this.#parts.root : before.root);
      await writeJournal(real, journal);
    } catch (error) {
      // A journal that could not be made durable is none: nothing has moved.
      if (await hasJournal(real)) await removeJournal(real);
      await removeFile('inplace:abandon', placesOf(real).draft);
      await removeTree('inplace:abandon', stage);
      throw error;
    }
    const rolled = await rollForward(real, journal).catch((error: unknown) => this.#undo(journal, error));
    const findings = [...pending, ...written.findings, ...skippedNames(plan), ...rolled];
    return { ...written, findings, inPlace: told(plan, plan.out.length === 0 ? '' : bytesText(old)) };
  }

  async #beginStage(stage: Buffer): Promise<void> {
    const { real } = this.#parts;
    const { own } = placesOf(real);
    if ((await lstat(own)).dev !== (await lstat(real)).dev) {
      const state = `"${bytesText(own)}" is on another disk`;
      throw refused(this.#order, state, 'unmount it: what is staged must be on the same disk');
    }
    // Without a journal it is what an attempt left that ended before anything moved.
    await removeTree('inplace:stage:clear', stage);
    await effect({ label: 'inplace:stage', op: 'mkdir', path: stage }, () => mkdir(stage, 0o700)).catch(
      (error: unknown) => {
        throw ioError('create', bytesText(stage), error);
      },
    );
    await syncDir('inplace:stage', own);
  }

  async #fillStage(stage: Buffer): Promise<Restored> {
    const written = await writeTree(this.#store, writing(this.#order, this.#parts.totals, stage));
    await syncDir('inplace:stage:sync', stage);
    return written;
  }

  /** Staging may have taken long enough for somebody to start the instance again. */
  async #checkAgain(before: Scan): Promise<void> {
    const options = scanOptions(this.#store, this.#order);
    const alive = await whyNotDownSince(this.#parts.real, before, this.#order.evidence, options);
    if (alive !== undefined) throw notDown(this.#store, this.#order, alive);
    this.#order.signal?.throwIfAborted();
  }

  #journal(plan: Plan, before: RootFacts): Journal {
    const { snapshot } = this.#order;
    return {
      id: this.#id,
      snapshotId: idOf(snapshot),
      out: plan.out,
      in: plan.in,
      before: rootFacts(before),
      after: rootFacts(snapshot.manifest.root ?? before),
    };
  }

  async #undo(journal: Journal, error: unknown): Promise<never> {
    const { real } = this.#parts;
    const name = bytesText(this.#order.dir);
    const { message, hint } = normalise(error);
    const fail = (state: string, mend: string) =>
      new LightkeeperError('IO', `Cannot finish the restore of "${name}" in place: ${state}`, {
        hint: mend,
        cause: error,
      });
    if (!(await hasJournal(real)))
      throw fail(`it holds the snapshot whole, but perhaps not yet on the disk: ${message}`, hint);
    await rollBack(real, journal).catch((undoing: unknown) => {
      throw fail(
        `${message}; nor could it be undone: ${normalise(undoing).message}`,
        'mend what failed, then run it again or start lightkeeper up: it is finished or undone first',
      );
    });
    throw fail(`${message}; it has been undone, and the directory holds what it held before`, hint);
  }
}

function skippedNames({ skipped }: Plan): Finding[] {
  const [first] = skipped;
  if (first === undefined) return [];
  return [
    warning('excluded_kept', pathText(first), {
      message: 'the snapshot has it, and it stays as it is in the directory: it is left out of captures',
      hint: 'restore it to another directory with --to and --path',
      count: skipped.length,
    }),
  ];
}
