import { constants } from 'node:fs';
import { chmod, lchown, lstat, mkdir, open, readdir, rmdir } from 'node:fs/promises';
import { ioCode, ioError, LightkeeperError, normalise, systemCode } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { type BytePath, bytesText, pathFromBytes, pathMatcher, pathText } from '../../core/path.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { effect, exists, makeDir, refuseSymlink, removeTree, renameFile, syncDir } from '../../host/disk.ts';
import { lockFolder } from '../../host/folder-lock.ts';
import { whyHeld } from '../instance/liveness.ts';
import { below, isNever, OWN_FOLDER } from '../watch/names.ts';
import { scan } from '../watch/scan.ts';
import {
  damaged,
  hasJournal,
  type Journal,
  placesOf,
  type RootFacts,
  readJournal,
  removeJournal,
} from './journal.ts';
import { secondsOf } from './tree-writer.ts';

/** Folders of replaced states, and of what was in the way of a recovery. */
const OLD = /^old-([0-9a-f]{8})(?:-found)?$/;

/** Folders that this process has locked: a second attempt would end the first lock, as POSIX has it. */
const locked = new Set<string>();

/** Runs alone on a directory: the lock ends with the process, and holds for every store and container. */
export async function alone<T>(dir: Uint8Array, run: () => Promise<T>): Promise<T> {
  const own = placesOf(dir).own.toString();
  await refuseSymlink(own);
  await makeDir('inplace:folder', own);
  const inUse = (cause?: unknown) =>
    new LightkeeperError(
      'IN_USE',
      `Cannot use "${bytesText(dir)}": another restore in place is at work on it`,
      {
        hint: 'wait until that has ended',
        ...(cause === undefined ? {} : { cause }),
      },
    );
  const { dev, ino } = await lstat(own, { bigint: true });
  const identity = `${dev}:${ino}`;
  if (locked.has(identity)) throw inUse();
  locked.add(identity);
  try {
    return await withLock(dir, own, inUse, run);
  } finally {
    locked.delete(identity);
  }
}

async function withLock<T>(
  dir: Uint8Array,
  own: string,
  inUse: (cause: unknown) => LightkeeperError,
  run: () => Promise<T>,
): Promise<T> {
  const lock = await lockFolder(`${own}/lock`, (cause) => Promise.resolve(inUse(cause)));
  try {
    // Who may look into the directory must be able to ask whether a journal is there.
    await giveAway(dir, own, 0o711);
    for (const one of await readdir(`${own}/lock`)) await giveAway(dir, `${own}/lock/${one}`);
    await giveAway(dir, `${own}/lock`);
    return await run();
  } finally {
    await lock.close();
  }
}

/** What root has made belongs to the directory's owner, whose agent goes on with it. */
async function giveAway(dir: Uint8Array, path: string | Buffer, mode?: number): Promise<void> {
  const { uid, gid } = await lstat(Buffer.from(dir));
  const stat = await lstat(path);
  const foreign = process.getuid?.() === 0 && (stat.uid !== uid || stat.gid !== gid);
  const change = (run: () => Promise<void>) => effect({ label: 'inplace:own', op: 'other', path }, run);
  try {
    if (foreign) await change(() => lchown(path, uid, gid));
    if (mode !== undefined && (stat.mode & 0o7777) !== mode && stat.uid === process.getuid?.())
      await change(() => chmod(path, mode));
  } catch (error) {
    throw ioError('give away', path.toString(), error);
  }
}

/**
 * Finishes or undoes the restore in place that a crash has cut off, and tells which; undefined if there is none.
 * Whoever is about to read the directory calls this first.
 */
export async function recoverJournal(dir: Uint8Array): Promise<Finding[]> {
  return (await hasJournal(dir)) ? await alone(dir, () => rollPending(dir)) : [];
}

/** The same, for who is alone on the directory already. */
export async function rollPending(dir: Uint8Array): Promise<Finding[]> {
  const journal = await readJournal(dir);
  if (journal === undefined) return [];
  const held = await whyHeld(dir, await scan(dir));
  if (held !== undefined) {
    throw new LightkeeperError(
      'REFUSED',
      `Cannot finish the interrupted restore of "${bytesText(dir)}" in place: ${held}`,
      { hint: 'stop the instance: what it has read is neither the old state nor the new one' },
    );
  }
  const lacking = lackingNew(journal, await look(dir, journal));
  if (lacking === undefined) {
    const findings = await rollForward(dir, journal);
    const what = `the directory holds snapshot ${journal.snapshotId} whole`;
    return [
      warning('restore_rolled_forward', bytesText(dir), {
        message: `an interrupted restore in place has been finished: ${what}`,
        hint: 'start the instance',
      }),
      ...findings,
    ];
  }
  const lost = lackingOld(journal, await look(dir, journal));
  if (lost !== undefined) {
    const both = `"${pathText(lacking)}" of the new state is gone, and "${pathText(lost)}" of the old one`;
    throw damaged(dir, both);
  }
  const findings = await rollBack(dir, journal);
  return [
    warning('restore_rolled_back', bytesText(dir), {
      message: `an interrupted restore in place has been undone, as "${pathText(lacking)}" was staged no longer: the directory holds what it held before`,
      hint: 'restore again',
    }),
    ...findings,
  ];
}

/** Which names are where. */
interface Seen {
  readonly staged: ReadonlySet<BytePath>;
  readonly placed: ReadonlySet<BytePath>;
  readonly old: ReadonlySet<BytePath>;
}

async function look(dir: Uint8Array, { id }: Journal): Promise<Seen> {
  const { stage, old } = placesOf(dir, id);
  return {
    staged: await namesIn(dir, stage),
    placed: await namesIn(dir, Buffer.from(dir)),
    old: await namesIn(dir, old),
  };
}

async function namesIn(dir: Uint8Array, folder: Buffer): Promise<ReadonlySet<BytePath>> {
  try {
    const inside = Buffer.compare(folder, dir) !== 0;
    if (inside && !(await lstat(folder)).isDirectory()) throw damaged(dir, 'one of its folders is none');
    const names = await readdir(folder, { encoding: 'buffer' });
    return new Set(names.map(pathFromBytes));
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return new Set();
    throw ioError('read', folder.toString(), error);
  }
}

/** Whether what is in a name's place is the new entry: an old one leaves its place before the new one comes. */
function arrived(name: BytePath, out: ReadonlySet<BytePath>, { staged, placed, old }: Seen): boolean {
  return !staged.has(name) && placed.has(name) && (!out.has(name) || old.has(name));
}

function lackingNew(journal: Journal, seen: Seen): BytePath | undefined {
  const out = new Set(journal.out);
  return journal.in.find((name) => !seen.staged.has(name) && !arrived(name, out, seen));
}

function lackingOld(journal: Journal, { placed, old }: Seen): BytePath | undefined {
  return journal.out.find((name) => !old.has(name) && !placed.has(name));
}

/** Moves what a journal names, as far as it has not been moved, and removes the journal. */
export async function rollForward(dir: Uint8Array, journal: Journal): Promise<Finding[]> {
  const { stage, old } = placesOf(dir, journal.id);
  const seen = await look(dir, journal);
  const out = new Set(journal.out);
  await makeFolder('inplace:old', old);
  for (const path of [old, stage, placesOf(dir).journal]) if (await exists(path)) await giveAway(dir, path);
  for (const name of journal.out) {
    if (!seen.old.has(name) && seen.placed.has(name))
      await move('inplace:move-out', below(dir, name), below(old, name));
  }
  await syncDir('inplace:sync-out', old);
  await syncDir('inplace:sync-out', Buffer.from(dir));
  const findings: Finding[] = [];
  for (const name of journal.in) {
    if (!seen.staged.has(name)) continue;
    const taken = seen.placed.has(name) && (!out.has(name) || seen.old.has(name));
    if (taken) findings.push(await setAside(dir, journal, name));
    await move('inplace:move-in', below(stage, name), below(dir, name));
  }
  // The new names first: a name that is nowhere for a moment would be lost with the power.
  await syncDir('inplace:sync-in', Buffer.from(dir));
  if (await exists(stage)) await syncDir('inplace:sync-in', stage);
  findings.push(...(await giveRoot(dir, journal.after)));
  await removeJournal(dir);
  return [...findings, ...(await clear(dir, journal.id))];
}

/** Moves back what a journal names, as far as it has been moved, and removes the journal. */
export async function rollBack(dir: Uint8Array, journal: Journal): Promise<Finding[]> {
  const { stage, old } = placesOf(dir, journal.id);
  const seen = await look(dir, journal);
  const out = new Set(journal.out);
  await makeFolder('inplace:undo-stage', stage);
  await makeFolder('inplace:undo-old', old);
  const back = new Set(journal.in.filter((name) => arrived(name, out, seen)));
  for (const name of back) await move('inplace:undo-in', below(dir, name), below(stage, name));
  await syncDir('inplace:undo-sync', stage);
  await syncDir('inplace:undo-sync', Buffer.from(dir));
  const findings: Finding[] = [];
  for (const name of journal.out) {
    if (!seen.old.has(name)) continue;
    if (seen.placed.has(name) && !back.has(name)) findings.push(await setAside(dir, journal, name));
    await move('inplace:undo-out', below(old, name), below(dir, name));
  }
  await syncDir('inplace:undo-sync', Buffer.from(dir));
  await syncDir('inplace:undo-sync', old);
  findings.push(...(await giveRoot(dir, journal.before)));
  await removeJournal(dir);
  return [...findings, ...(await clear(dir, ''))];
}

/** What somebody wrote into a directory between two states is in the way, and is not ours to remove. */
async function setAside(dir: Uint8Array, { id }: Journal, name: BytePath): Promise<Finding> {
  const { found } = placesOf(dir, id);
  await makeFolder('inplace:found', found);
  await move('inplace:set-aside', below(dir, name), below(found, name));
  return warning('restore_set_aside', pathText(name), {
    message: `something wrote it while the directory was between two states; it is now in ${bytesText(found)}`,
    hint: 'look at what started the instance too early',
  });
}

async function move(label: string, from: Buffer, to: Buffer): Promise<void> {
  try {
    await renameFile(label, from, to);
  } catch (error) {
    // A folder changes its parent: its owner needs the right to write to it for that.
    const stat = ioCode(error) === 'EACCES' ? await lstat(from) : undefined;
    if (stat === undefined || !stat.isDirectory() || (stat.mode & 0o200) !== 0) throw error;
    const setMode = (path: Buffer, mode: number) =>
      effect({ label: `${label}:mode`, op: 'other', path }, () => chmod(path, mode & 0o7777));
    await setMode(from, stat.mode | 0o200);
    const moved = await renameFile(label, from, to).then(
      () => true,
      () => false,
    );
    await setMode(moved ? to : from, stat.mode);
    if (!moved) throw error;
  }
}

/** Makes a folder if it is not there, durably. */
async function makeFolder(label: string, path: Buffer): Promise<void> {
  try {
    await effect({ label, op: 'mkdir', path }, () => mkdir(path, 0o700));
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return;
    throw ioError('create', path.toString(), error);
  }
  await syncDir(label, Buffer.from(path.subarray(0, path.lastIndexOf('/'))));
}

/** Gives the directory itself its owner, mode and time, as far as this user may. */
async function giveRoot(dir: Uint8Array, facts: RootFacts): Promise<Finding[]> {
  const path = Buffer.from(dir);
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  const seconds = secondsOf(facts);
  const steps = [
    () => (process.getuid?.() === 0 ? folder.chown(facts.uid, facts.gid) : Promise.resolve()),
    () => folder.chmod(facts.mode),
    () => folder.utimes(seconds, seconds),
  ];
  const denied = new Set<string>();
  try {
    for (const step of steps) {
      await effect({ label: 'inplace:root', op: 'other', path }, step).catch((error: unknown) => {
        const code = systemCode(error) ?? '';
        if (!['EPERM', 'EACCES', 'EROFS', 'EINVAL', 'ENOTSUP'].includes(code))
          throw ioError('set mode and time of', bytesText(dir), error);
        denied.add(code);
      });
    }
    await effect({ label: 'inplace:root-sync', op: 'sync', path }, () => folder.sync());
  } finally {
    await folder.close();
  }
  if (denied.size === 0) return [];
  return [
    warning('root_metadata_kept', bytesText(dir), {
      message: `its own owner, mode or time could not be set (${[...denied].join(', ')})`,
      hint: 'set them by hand, or run as its owner',
    }),
  ];
}

/** Removes the stage, and of the old states all but the one that is named. */
async function clear(dir: Uint8Array, keptId: string): Promise<Finding[]> {
  const { own, stage, old } = placesOf(dir, keptId);
  const kept = keptId !== '';
  const gone = kept ? (await oldStates(dir)).filter((name) => OLD.exec(name)?.[1] !== keptId) : [];
  // A removal that fails costs space: the directory holds what was said.
  const findings: Finding[] = [];
  const drop = (path: Buffer, removal: Promise<void>) =>
    removal.catch((error: unknown) => {
      findings.push(leftover(path, error));
    });
  await drop(stage, removeTree('inplace:stage:drop', stage));
  for (const name of gone) await drop(below(own, name), removeTree('inplace:old:drop', below(own, name)));
  const rest = kept ? [old] : (await oldStates(dir)).map((name) => below(own, name));
  for (const path of rest) await drop(path, removeIfEmpty(path));
  return findings;
}

async function removeIfEmpty(path: Buffer): Promise<void> {
  try {
    if ((await readdir(path)).length > 0) return;
    await effect({ label: 'inplace:old:empty', op: 'remove', path }, () => rmdir(path));
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw ioError('remove', bytesText(path), error);
  }
}

function leftover(path: Buffer, error: unknown): Finding {
  return warning('restore_leftover', bytesText(path), {
    message: `it is of no use any more and could not be removed: ${normalise(error).message}`,
    hint: 'remove it',
  });
}

/** The folders below `.lightkeeper` that hold replaced states of a directory. */
export async function oldStates(dir: Uint8Array): Promise<string[]> {
  try {
    return (await readdir(placesOf(dir).own)).filter((name) => OLD.test(name));
  } catch (error) {
    // Another user's are not ours to remove.
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(systemCode(error) ?? '')) return [];
    throw ioError('read', bytesText(placesOf(dir).own), error);
  }
}

/**
 * Removes replaced states that a usable point has been taken after. One that holds names which captures leave out
 * stays: no point has them.
 */
export async function dropOldStates(
  dir: Uint8Array,
  names: readonly string[],
  exclude: readonly string[],
): Promise<void> {
  if (names.length === 0 || (await hasJournal(dir))) return;
  const matchers = exclude.map(pathMatcher);
  await alone(dir, async () => {
    if (await hasJournal(dir)) return;
    for (const name of names) {
      const path = below(placesOf(dir).own, name);
      const { entries } = await scan(path);
      const unique = entries.some((entry) => matchers.some((matches) => matches(entry.path)));
      if (!unique) await removeTree('inplace:old:drop', path);
    }
  });
}

/** Whether a name at the top of a directory belongs to its graph, so that a restore in place may move it. */
export function isMovable(exclude: readonly string[]): (name: BytePath) => boolean {
  const matchers = exclude.map(pathMatcher);
  return (name) => name !== OWN_FOLDER && !isNever(name) && !matchers.some((matches) => matches(name));
}
