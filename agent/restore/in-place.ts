import { randomBytes } from 'node:crypto';
import { lstatSync, realpathSync } from 'node:fs';
import { lstat, mkdir, readdir, readFile } from 'node:fs/promises';
import { create } from '@bufbuild/protobuf';
import { ioError, LightkeeperError, normalise, systemCode } from '../../core/errors.ts';
import { finding, warning } from '../../core/finding.ts';
import { type BytePath, bytesText, pathFromBytes, pathText } from '../../core/path.ts';
import { shellQuote } from '../../core/shell.ts';
import { idOf, type StoredSnapshot } from '../../core/snapshot.ts';
import { type InPlace, InPlaceSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Finding, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { effect, removeFile, removeTree, syncDir } from '../../host/disk.ts';
import { checkReserve } from '../../host/disk-reserve.ts';
import { type DownEvidence, whyNotDown, whyNotDownSince } from '../instance/liveness.ts';
import type { InstanceSettings } from '../instance/probe.ts';
import { whyInstanceServes, whyServing } from '../instance/serving.ts';
import type { Store } from '../store/store.ts';
import { OWN_FOLDER } from '../watch/names.ts';
import { isWithin, type Scan, scan } from '../watch/scan.ts';
import { workspacesIn } from '../watch/workspaces.ts';
import {
  hasJournal,
  type Journal,
  type RootMetadata,
  removeJournal,
  restorePaths,
  rootMetadata,
  writeJournal,
} from './journal.ts';
import {
  type MovableNames,
  movableNames,
  recoverUnderLock,
  rollBack,
  rollForward,
  withDirectoryLock,
} from './journal-recovery.ts';
import type { Owner } from './owner-setter.ts';
import { countTotals, type RestoreBase, writeOrder } from './plan.ts';
import { type Restored, restoreToDirectory } from './to-directory.ts';
import { type Totals, writeTree } from './tree-writer.ts';

/** Most names of one kind in the result. */
const NAMES_REPORTED_MAX = 1000;

/** Order for a restore in place. */
export interface InPlaceOrder extends RestoreBase {
  readonly evidence: DownEvidence;
  /** Absolute path of the directory. */
  readonly dir: Uint8Array;
  /** Patterns of names at its top that stay, beside those that always stay. */
  readonly exclude: readonly string[];
  /** Instances of the directory, as agents query them. */
  readonly instances: readonly InstanceSettings[];
  /** Flags that the same command needs when it is run again. */
  readonly otherFlags: readonly string[];
}

/** Result of a restore in place. */
export interface InPlaceRestored extends Restored {
  /** Names that were moved; undefined if the directory did not exist. */
  readonly inPlace: InPlace | undefined;
}

/**
 * Replaces the content of a directory by a snapshot. The directory itself is never renamed.
 *
 * However it ends, the directory holds the whole old or new state, or a journal by which the next start restores one.
 */
export async function restoreInPlace(store: Store, order: InPlaceOrder): Promise<InPlaceRestored> {
  const real = realDirectory(order, store.root);
  if (real === undefined) return { ...(await restoreAbsent(store, order)), inPlace: undefined };
  const endRead = store.beginRead();
  try {
    const totals = await countTotals(store, { snapshot: order.snapshot, paths: [] });
    const movable = await movableFilter(order, real, store.root);
    const { mode, uid, gid, mtimeNs } = lstatSync(real, { bigint: true });
    const root = { mode: Number(mode & 0o7777n), uid: Number(uid), gid: Number(gid), mtimeNs };
    const preparation = { real, totals, movable, root };
    if (order.dryRun) return await reportPlan(store, order, preparation);
    const options = scanOptions(store, order);
    const alive = (await whyAnyServes(order)) ?? (await whyNotDown(real, order.evidence, options));
    if (alive !== undefined) throw notDownError(store, order, alive);
    return await withDirectoryLock(real, () => new Replacement(store, order, preparation).run());
  } finally {
    endRead();
  }
}

// Without a directory there is nothing that could have changed or is held, but a server that still runs would write
// its own state over the restored files.
/** Restores to a directory that does not exist. */
async function restoreAbsent(store: Store, order: InPlaceOrder): Promise<Restored> {
  const { evidence, dryRun } = order;
  const url = evidence.case === 'instanceUrl' ? evidence.value : '';
  const alive = dryRun ? undefined : ((await whyAnyServes(order)) ?? (await whyServing(url)));
  if (alive !== undefined) throw notDownError(store, order, alive);
  return await restoreToDirectory(store, { ...order, to: order.dir, paths: [] });
}

/** Returns a sign that an instance that an agent queries runs, as a sentence; undefined if there is none. */
async function whyAnyServes({ instances, dir }: InPlaceOrder): Promise<string | undefined> {
  for (const instance of instances) {
    const serves = await whyInstanceServes(instance, dir);
    if (serves !== undefined) return serves;
  }
  return undefined;
}

function scanOptions(store: Store, { exclude, signal }: InPlaceOrder) {
  return { exclude, store: store.root, ...(signal === undefined ? {} : { signal }) };
}

function refusedError(order: InPlaceOrder, state: string, hint: string): LightkeeperError {
  return new LightkeeperError('REFUSED', `Cannot restore in place to "${bytesText(order.dir)}": ${state}`, {
    hint,
  });
}

function notDownError(store: Store, order: InPlaceOrder, state: string): LightkeeperError {
  const words = [
    'lightkeeper restore --in-place',
    shellQuote(bytesText(order.dir)),
    `--snapshot ${idOf(order.snapshot)} --store`,
    shellQuote(store.root),
    ...order.otherFlags,
    ...(order.evidence.case === 'instanceUrl'
      ? ['--instance-url', shellQuote(order.evidence.value)]
      : ['--instance-stopped']),
  ];
  return refusedError(
    order,
    state,
    'stop the instance (docker compose stop lightrag, or systemctl stop lightrag), then: ' +
      `${words.join(' ')}, then start it again (docker compose start lightrag, or systemctl start lightrag)`,
  );
}

/** Returns the real path; undefined if there is none. Refuses the store and folders in it. */
function realDirectory(order: InPlaceOrder, store: string): Buffer | undefined {
  const dir = Buffer.from(order.dir);
  let real: Buffer;
  try {
    // Without `native`, Node takes the bytes for UTF-8.
    real = realpathSync.native(dir, { encoding: 'buffer' });
  } catch (error) {
    // A dangling symlink is refused when the directory is created.
    if (systemCode(error) === 'ENOENT') return undefined;
    throw ioError('restore in place to', dir, error);
  }
  if (!lstatSync(real).isDirectory())
    throw refusedError(order, 'it is not a directory', 'name the working directory with --in-place');
  if (isWithin(real, store))
    throw refusedError(
      order,
      'it is the store, or a part of it',
      'name the working directory with --in-place',
    );
  return real;
}

/** Returns tests for names that may move. Refuses a directory with the store or a mount below such a name. */
async function movableFilter(order: InPlaceOrder, real: Buffer, store: string): Promise<MovableNames> {
  const movable = movableNames(order.exclude);
  const below = (path: BytePath): string[] => {
    const prefix = `${pathFromBytes(real)}/`.replace(/^\/\/$/, '/');
    return path.startsWith(prefix) ? path.slice(prefix.length).split('/') : [];
  };
  const [storeTop, ...further] = below(realpathSync.native(store, { encoding: 'buffer' }).toString('latin1'));
  if (storeTop !== undefined && further.length > 0 && movable.out(storeTop)) {
    const hint = 'move the store to another disk, or restore to another directory with --to';
    throw refusedError(order, `the store lies in its folder "${pathText(storeTop)}"`, hint);
  }
  for (const mount of await readMountPoints()) {
    const [top] = below(mount);
    if (top === undefined || top === storeTop || (top !== OWN_FOLDER && !movable.out(top))) continue;
    const state = `another disk is mounted in it, at "${pathText(mount)}"`;
    throw refusedError(order, state, 'unmount it, or leave it as it is with --exclude');
  }
  return {
    in: (name) => name !== storeTop && movable.in(name),
    out: (name) => name !== storeTop && movable.out(name),
  };
}

async function readMountPoints(): Promise<BytePath[]> {
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

/** Facts that are gathered before anything changes. */
interface Preparation {
  readonly real: Buffer;
  readonly totals: Totals;
  readonly movable: MovableNames;
  /** Metadata of the directory before anything was created in it. */
  readonly root: RootMetadata;
}

async function checkSpace(order: InPlaceOrder, { real, totals }: Preparation, there: Scan): Promise<void> {
  await checkReserve({
    doing: `restore in place to "${bytesText(order.dir)}"`,
    place: real,
    bytes: totals.bytes,
    largestBytes: there.largestBytes,
    reserveBytes: order.reserveBytes,
  });
}

async function sortedNames(folder: Buffer): Promise<BytePath[]> {
  try {
    return (await readdir(folder, { encoding: 'buffer' })).map(pathFromBytes).sort();
  } catch (error) {
    throw ioError('read', folder, error);
  }
}

/** Names at the top of a directory, by what happens to them. */
interface MovePlan {
  readonly out: readonly BytePath[];
  readonly in: readonly BytePath[];
  readonly kept: readonly BytePath[];
  /** Names of the snapshot that are not restored, as they may not move. */
  readonly skipped: readonly BytePath[];
}

function planMoves(
  real: Buffer,
  coming: readonly BytePath[],
  there: readonly BytePath[],
  movable: Preparation['movable'],
): MovePlan {
  const own = new Set(coming);
  // A workspace that the snapshot does not have is a graph of its own.
  const others = new Set(workspacesIn(real).filter((name) => !own.has(name)));
  const moves = (name: BytePath) => movable.out(name) && !others.has(name);
  return {
    out: there.filter(moves),
    in: coming.filter(movable.in),
    kept: there.filter((name) => name !== OWN_FOLDER && !moves(name)),
    skipped: coming.filter((name) => !movable.in(name)),
  };
}

function inPlaceResult({ out, in: coming, kept }: MovePlan, oldState: string): InPlace {
  const stays = new Set(coming);
  const removed = out.filter((name) => !stays.has(name));
  const replaced = out.length - removed.length;
  return create(InPlaceSchema, {
    replaced,
    added: coming.length - replaced,
    removed: removed.length,
    kept: kept.length,
    removedNames: removed.slice(0, NAMES_REPORTED_MAX).map(pathText),
    keptNames: kept.slice(0, NAMES_REPORTED_MAX).map(pathText),
    oldState,
  });
}

async function reportPlan(
  store: Store,
  order: InPlaceOrder,
  preparation: Preparation,
): Promise<InPlaceRestored> {
  const { real, totals, movable } = preparation;
  if (await hasJournal(real)) {
    const state = 'an interrupted restore in place has not been finished';
    throw refusedError(
      order,
      state,
      'run it without --dry-run, or start lightkeeper up: both recover it first',
    );
  }
  await checkSpace(order, preparation, await scan(real, scanOptions(store, order)));
  const coming = new Set<BytePath>();
  for await (const { path } of store.files(order.snapshot.manifest.files))
    coming.add(pathFromBytes(path).split('/')[0] ?? '');
  const plan = planMoves(real, [...coming], await sortedNames(real), movable);
  return { ...totals, findings: skippedNames(plan), inPlace: inPlaceResult(plan, '') };
}

class Replacement {
  readonly #store: Store;
  readonly #order: InPlaceOrder;
  readonly #preparation: Preparation;
  readonly #id = randomBytes(4).toString('hex');

  constructor(store: Store, order: InPlaceOrder, preparation: Preparation) {
    this.#store = store;
    this.#order = order;
    this.#preparation = preparation;
  }

  async run(): Promise<InPlaceRestored> {
    const { real, movable } = this.#preparation;
    const pending = await recoverUnderLock(real);
    const before = await scan(real, scanOptions(this.#store, this.#order));
    const { stage, old } = restorePaths(real, this.#id);
    await this.#createStage(stage);
    let plan: MovePlan;
    let journal: Journal;
    let written: Restored;
    try {
      await checkSpace(this.#order, this.#preparation, before);
      const present = pending.length === 0 ? this.#preparation.root : before.root;
      written = await this.#fillStage(stage, present);
      await this.#checkStillDown(before);
      const staged = await sortedNames(stage);
      plan = planMoves(real, staged, await sortedNames(real), movable);
      journal = this.#newJournal(plan, present);
      await writeJournal(real, journal);
    } catch (error) {
      // Nothing has moved, so a journal that may not be durable is removed.
      if (await hasJournal(real)) await removeJournal(real);
      await removeFile('inplace:abandon', restorePaths(real).draft);
      await removeTree('inplace:abandon', stage);
      throw error;
    }
    const moved = await rollForward(real, journal).catch((error: unknown) => this.#undoMoves(journal, error));
    const findings = [...pending, ...written.findings, ...skippedNames(plan), ...moved];
    return {
      ...written,
      findings,
      inPlace: inPlaceResult(plan, plan.out.length === 0 ? '' : bytesText(old)),
    };
  }

  async #createStage(stage: Buffer): Promise<void> {
    const { real } = this.#preparation;
    const { own } = restorePaths(real);
    if ((await lstat(own)).dev !== (await lstat(real)).dev) {
      const state = `"${bytesText(own)}" is on another disk`;
      throw refusedError(this.#order, state, 'unmount it: the stage must be on the same disk');
    }
    // Without a journal, a stage is left of an attempt that ended before anything moved.
    await removeTree('inplace:stage:clear', stage);
    await effect({ label: 'inplace:stage', op: 'mkdir', path: stage }, () => mkdir(stage, 0o700)).catch(
      (error: unknown) => {
        throw ioError('create', stage, error);
      },
    );
    await syncDir('inplace:stage', own);
  }

  async #fillStage(stage: Buffer, present: RootMetadata): Promise<Restored> {
    const owner = presentOwner(this.#order.snapshot, present);
    const order = { ...writeOrder(this.#order, this.#preparation.totals, stage), owner };
    const { findings, ...written } = await writeTree(this.#store, order);
    await syncDir('inplace:stage:sync', stage);
    const changed = Object.keys(owner).length > 0 ? [ownerFinding(this.#order, present)] : [];
    return { ...written, findings: [...findings, ...changed] };
  }

  // Staging may have taken long enough for the instance to be started again.
  /** Refuses to go on if the instance may run again. */
  async #checkStillDown(before: Scan): Promise<void> {
    const options = scanOptions(this.#store, this.#order);
    const alive =
      (await whyAnyServes(this.#order)) ??
      (await whyNotDownSince(this.#preparation.real, before, this.#order.evidence, options));
    if (alive !== undefined) throw notDownError(this.#store, this.#order, alive);
    this.#order.signal?.throwIfAborted();
  }

  #newJournal(plan: MovePlan, before: RootMetadata): Journal {
    const { snapshot } = this.#order;
    return {
      id: this.#id,
      snapshotId: idOf(snapshot),
      out: plan.out,
      in: plan.in,
      before: rootMetadata(before),
      after: { ...rootMetadata(snapshot.manifest.root ?? before), ...presentOwner(snapshot, before) },
    };
  }

  async #undoMoves(journal: Journal, error: unknown): Promise<never> {
    const { real } = this.#preparation;
    const name = bytesText(this.#order.dir);
    const { message, hint } = normalise(error);
    const fail = (state: string, remedy: string) =>
      new LightkeeperError('IO', `Cannot finish the restore of "${name}" in place: ${state}`, {
        hint: remedy,
        cause: error,
      });
    if (!(await hasJournal(real)))
      throw fail(`it holds the whole snapshot, but it may not be synced: ${message}`, hint);
    await rollBack(real, journal).catch((undoing: unknown) => {
      throw fail(
        `${message}; undoing it failed: ${normalise(undoing).message}`,
        'fix the cause, then run it again or start lightkeeper up: the restore is finished or undone first',
      );
    });
    throw fail(`${message}; it has been undone, and the directory holds its old state`, hint);
  }
}

// The user of the instance's container may have changed since, and the server must be able to write the files.
/** Returns what the directory's owner and group are now, where they differ from those at the capture. */
function presentOwner({ manifest: { root } }: StoredSnapshot, { uid, gid }: RootMetadata): Owner {
  if (root === undefined || process.getuid?.() !== 0) return {};
  return { ...(root.uid === uid ? {} : { uid }), ...(root.gid === gid ? {} : { gid }) };
}

function ownerFinding({ dir, snapshot }: InPlaceOrder, present: RootMetadata): Finding {
  const { uid = 0, gid = 0 } = snapshot.manifest.root ?? {};
  return finding('owner_changed', Severity_Value.INFO, bytesText(dir), {
    message:
      `the directory belonged to ${uid}:${gid} when the snapshot was taken, and belongs to ` +
      `${present.uid}:${present.gid} now: the restored files belong to its present owner`,
    hint: `give them back with chown -R ${uid}:${gid} if the server runs as that user`,
  });
}

function skippedNames({ skipped }: MovePlan): Finding[] {
  const [first] = skipped;
  if (first === undefined) return [];
  return [
    warning('excluded_kept', pathText(first), {
      message: 'it is in the snapshot, but captures exclude it: the directory keeps its own',
      hint: 'restore it to another directory with --to and --path',
      count: skipped.length,
    }),
  ];
}
