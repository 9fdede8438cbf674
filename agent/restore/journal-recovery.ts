import { constants } from 'node:fs';
import { chmod, lchown, lstat, mkdir, open, readdir, readlink, rmdir } from 'node:fs/promises';
import { ioCode, ioError, LightkeeperError, normalise, systemCode } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { type BytePath, bytesText, pathFromBytes, pathMatcher, pathText } from '../../core/path.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { effect, exists, makeDir, parentFolder, removeTree, renameFile, syncDir } from '../../host/disk.ts';
import { lockFolder } from '../../host/folder-lock.ts';
import { withTextPath } from '../../host/text-path.ts';
import { whyHeld } from '../instance/liveness.ts';
import { below, isTemporary, isTransient, OWN_FOLDER } from '../watch/names.ts';
import { scan } from '../watch/scan.ts';
import {
  hasJournal,
  type Journal,
  type RootMetadata,
  readJournal,
  removeJournal,
  restorePaths,
  unrecoverable,
} from './journal.ts';
import { isOwnerDenied } from './owner-setter.ts';
import { utimesText } from './tree-writer.ts';

/** Matches folders of replaced states, and of files that were in the way of a recovery. */
const OLD_STATE = /^old-([0-9a-f]{8})(?:-found)?$/;

// POSIX ends a lock when the process opens and closes the file a second time.
/** Folders that this process has locked, by device and inode. */
const lockedFolders = new Set<string>();

// The lock ends with the process, and holds for every store and container.
/** Runs a call while no other restore in place works on the directory. */
export async function withDirectoryLock<T>(dir: Uint8Array, run: () => Promise<T>): Promise<T> {
  const { own } = restorePaths(dir);
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
  if (lockedFolders.has(identity)) throw inUse();
  lockedFolders.add(identity);
  try {
    return await withTextPath(own, async (path) => {
      const lock = await lockFolder(`${path}/lock`, (cause) => Promise.resolve(inUse(cause)));
      return await runLocked(dir, run).finally(() => lock.close());
    });
  } finally {
    lockedFolders.delete(identity);
  }
}

/** Refuses a path that is a symlink, where a folder of our own is needed. */
async function refuseSymlink(path: Buffer): Promise<void> {
  const target = await readlink(path, { encoding: 'buffer' }).catch(() => undefined);
  if (target === undefined) return;
  throw new LightkeeperError('REFUSED', `Cannot use "${bytesText(path)}": it is a symlink`, {
    hint: `name ${bytesText(target)}`,
  });
}

async function runLocked<T>(dir: Uint8Array, run: () => Promise<T>): Promise<T> {
  const { own } = restorePaths(dir);
  const lock = below(own, 'lock');
  // A user who may list the directory must be able to see whether a journal is there.
  await matchOwner(dir, own, 0o711);
  for (const name of await readdir(lock)) await matchOwner(dir, below(lock, name));
  await matchOwner(dir, lock);
  return await run();
}

// The agent of the directory's owner goes on with what root has made.
/** Gives a path the owner of the directory, and the mode if one is given. */
async function matchOwner(dir: Uint8Array, path: Buffer, mode?: number): Promise<void> {
  const { uid, gid } = await lstat(Buffer.from(dir));
  const stat = await lstat(path);
  const foreign = process.getuid?.() === 0 && (stat.uid !== uid || stat.gid !== gid);
  const change = (run: () => Promise<void>) => effect({ label: 'inplace:own', op: 'other', path }, run);
  try {
    if (foreign) await change(() => lchown(path, uid, gid)).catch(throwUnlessDenied);
    if (mode !== undefined && (stat.mode & 0o7777) !== mode && stat.uid === process.getuid?.())
      await change(() => chmod(path, mode));
  } catch (error) {
    throw ioError('set the owner of', path, error);
  }
}

// Root may lack the right to change owners. The files are then root's, which only other users notice.
function throwUnlessDenied(error: unknown): void {
  if (!isOwnerDenied(error)) throw error;
}

// Must run before the directory is read.
/** Finishes or undoes an interrupted restore in place. Returns findings that say which; none if there was none. */
export async function recoverJournal(dir: Uint8Array): Promise<Finding[]> {
  return (await hasJournal(dir)) ? await withDirectoryLock(dir, () => recoverUnderLock(dir)) : [];
}

/** Does the work of `recoverJournal` under the lock of the directory. */
export async function recoverUnderLock(dir: Uint8Array): Promise<Finding[]> {
  const journal = await readJournal(dir);
  if (journal === undefined) return [];
  const held = await whyHeld(dir, await scan(dir));
  if (held !== undefined) {
    throw new LightkeeperError(
      'REFUSED',
      `Cannot finish the interrupted restore of "${bytesText(dir)}" in place: ${held}`,
      { hint: 'stop the instance: it has read a mix of the old state and the new one' },
    );
  }
  const missingNew = firstMissingNew(journal, await locateNames(dir, journal));
  if (missingNew === undefined) {
    const findings = await rollForward(dir, journal);
    return [
      warning('restore_rolled_forward', bytesText(dir), {
        message: `an interrupted restore in place has been finished: the directory holds the whole snapshot ${journal.snapshotId}`,
        hint: 'start the instance',
      }),
      ...findings,
    ];
  }
  const missingOld = firstMissingOld(journal, await locateNames(dir, journal));
  if (missingOld !== undefined) {
    const both = `"${pathText(missingNew)}" of the new state is missing, and "${pathText(missingOld)}" of the old one`;
    throw unrecoverable(dir, both);
  }
  const findings = await rollBack(dir, journal);
  return [
    warning('restore_rolled_back', bytesText(dir), {
      message: `an interrupted restore in place has been undone, as "${pathText(missingNew)}" was no longer staged: the directory holds its old state`,
      hint: 'restore again',
    }),
    ...findings,
  ];
}

/** Names in the three folders of a restore in place. */
interface NameLocations {
  readonly staged: ReadonlySet<BytePath>;
  readonly placed: ReadonlySet<BytePath>;
  readonly old: ReadonlySet<BytePath>;
}

async function locateNames(dir: Uint8Array, { id }: Journal): Promise<NameLocations> {
  const { stage, old } = restorePaths(dir, id);
  return {
    staged: await namesIn(dir, stage),
    placed: await namesIn(dir, Buffer.from(dir)),
    old: await namesIn(dir, old),
  };
}

async function namesIn(dir: Uint8Array, folder: Buffer): Promise<ReadonlySet<BytePath>> {
  try {
    const inside = Buffer.compare(folder, dir) !== 0;
    if (inside && !(await lstat(folder)).isDirectory())
      throw unrecoverable(dir, 'one of its folders is not a folder');
    const names = await readdir(folder, { encoding: 'buffer' });
    return new Set(names.map(pathFromBytes));
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return new Set();
    throw ioError('read', folder, error);
  }
}

/** Whether what is in a name's place is the new entry: an old one leaves its place before the new one comes. */
function isMovedIn(
  name: BytePath,
  out: ReadonlySet<BytePath>,
  { staged, placed, old }: NameLocations,
): boolean {
  return !staged.has(name) && placed.has(name) && (!out.has(name) || old.has(name));
}

function firstMissingNew(journal: Journal, seen: NameLocations): BytePath | undefined {
  const out = new Set(journal.out);
  return journal.in.find((name) => !seen.staged.has(name) && !isMovedIn(name, out, seen));
}

function firstMissingOld(journal: Journal, { placed, old }: NameLocations): BytePath | undefined {
  return journal.out.find((name) => !old.has(name) && !placed.has(name));
}

/** Makes the moves of a journal that have not been made, and removes the journal. */
export async function rollForward(dir: Uint8Array, journal: Journal): Promise<Finding[]> {
  const { stage, old } = restorePaths(dir, journal.id);
  const seen = await locateNames(dir, journal);
  const out = new Set(journal.out);
  await makeFolder('inplace:old', old);
  for (const path of [old, stage, restorePaths(dir).journal])
    if (await exists(path)) await matchOwner(dir, path);
  for (const name of journal.out) {
    if (!seen.old.has(name) && seen.placed.has(name))
      await moveEntry('inplace:move-out', below(dir, name), below(old, name));
  }
  await syncDir('inplace:sync-out', old);
  await syncDir('inplace:sync-out', Buffer.from(dir));
  const findings: Finding[] = [];
  for (const name of journal.in) {
    if (!seen.staged.has(name)) continue;
    const taken = seen.placed.has(name) && (!out.has(name) || seen.old.has(name));
    if (taken) findings.push(await setAside(dir, journal, name));
    await moveEntry('inplace:move-in', below(stage, name), below(dir, name));
  }
  // The new names are synced first: a name that is in neither folder would be lost with the power.
  await syncDir('inplace:sync-in', Buffer.from(dir));
  if (await exists(stage)) await syncDir('inplace:sync-in', stage);
  findings.push(...(await setRootMetadata(dir, journal.after)));
  await removeJournal(dir);
  return [...findings, ...(await removeLeftovers(dir, journal.id))];
}

/** Undoes the moves of a journal that have been made, and removes the journal. */
export async function rollBack(dir: Uint8Array, journal: Journal): Promise<Finding[]> {
  const { stage, old } = restorePaths(dir, journal.id);
  const seen = await locateNames(dir, journal);
  const out = new Set(journal.out);
  await makeFolder('inplace:undo-stage', stage);
  await makeFolder('inplace:undo-old', old);
  const back = new Set(journal.in.filter((name) => isMovedIn(name, out, seen)));
  for (const name of back) await moveEntry('inplace:undo-in', below(dir, name), below(stage, name));
  await syncDir('inplace:undo-sync', stage);
  await syncDir('inplace:undo-sync', Buffer.from(dir));
  const findings: Finding[] = [];
  for (const name of journal.out) {
    if (!seen.old.has(name)) continue;
    if (seen.placed.has(name) && !back.has(name)) findings.push(await setAside(dir, journal, name));
    await moveEntry('inplace:undo-out', below(old, name), below(dir, name));
  }
  await syncDir('inplace:undo-sync', Buffer.from(dir));
  await syncDir('inplace:undo-sync', old);
  findings.push(...(await setRootMetadata(dir, journal.before)));
  await removeJournal(dir);
  return [...findings, ...(await removeLeftovers(dir, ''))];
}

// It was written between two states, and is not ours to remove.
/** Moves a name that is in the way of a recovery to a folder of its own. */
async function setAside(dir: Uint8Array, { id }: Journal, name: BytePath): Promise<Finding> {
  const { found } = restorePaths(dir, id);
  await makeFolder('inplace:found', found);
  await moveEntry('inplace:set-aside', below(dir, name), below(found, name));
  return warning('restore_set_aside', pathText(name), {
    message: `something wrote it while the directory was between two states; it is now in ${bytesText(found)}`,
    hint: 'find out what started the instance too early',
  });
}

async function moveEntry(label: string, from: Buffer, to: Buffer): Promise<void> {
  try {
    await renameFile(label, from, to);
  } catch (error) {
    // A folder gets another parent, which needs the right to write to the folder.
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

/** Creates a folder if it does not exist, and syncs its parent. */
async function makeFolder(label: string, path: Buffer): Promise<void> {
  try {
    await effect({ label, op: 'mkdir', path }, () => mkdir(path, 0o700));
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return;
    throw ioError('create', path, error);
  }
  await syncDir(label, parentFolder(path));
}

/** Sets owner, mode and time of the directory itself. Returns a finding if this user may not. */
async function setRootMetadata(dir: Uint8Array, facts: RootMetadata): Promise<Finding[]> {
  const path = Buffer.from(dir);
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  const seconds = utimesText(facts);
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
          throw ioError('set mode and time of', dir, error);
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

/** Removes the stage, and all old states but one. An empty id removes only empty ones. */
async function removeLeftovers(dir: Uint8Array, keptId: string): Promise<Finding[]> {
  const { own, stage, old } = restorePaths(dir, keptId);
  const kept = keptId !== '';
  const gone = kept ? (await oldStates(dir)).filter((name) => OLD_STATE.exec(name)?.[1] !== keptId) : [];
  // A removal that fails costs space alone.
  const findings: Finding[] = [];
  const removeOrReport = (path: Buffer, removal: Promise<void>) =>
    removal.catch((error: unknown) => {
      findings.push(leftoverFinding(path, error));
    });
  await removeOrReport(stage, removeTree('inplace:stage:drop', stage));
  for (const name of gone)
    await removeOrReport(below(own, name), removeTree('inplace:old:drop', below(own, name)));
  const rest = kept ? [old] : (await oldStates(dir)).map((name) => below(own, name));
  for (const path of rest) await removeOrReport(path, removeIfEmpty(path));
  return findings;
}

async function removeIfEmpty(path: Buffer): Promise<void> {
  try {
    if ((await readdir(path)).length > 0) return;
    await effect({ label: 'inplace:old:empty', op: 'remove', path }, () => rmdir(path));
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw ioError('remove', path, error);
  }
}

function leftoverFinding(path: Buffer, error: unknown): Finding {
  return warning('restore_leftover', bytesText(path), {
    message: `it is no longer needed and could not be removed: ${normalise(error).message}`,
    hint: 'remove it',
  });
}

/** Returns the names of the folders that hold replaced states of a directory. */
export async function oldStates(dir: Uint8Array): Promise<string[]> {
  try {
    return (await readdir(restorePaths(dir).own)).filter((name) => OLD_STATE.test(name));
  } catch (error) {
    // A folder that another user owns is not ours to remove.
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(systemCode(error) ?? '')) return [];
    throw ioError('read', bytesText(restorePaths(dir).own), error);
  }
}

// A state with names that captures leave out stays, as no point has them.
/** Removes replaced states after a usable point has been taken. */
export async function dropOldStates(
  dir: Uint8Array,
  names: readonly string[],
  exclude: readonly string[],
): Promise<void> {
  if (names.length === 0 || (await hasJournal(dir))) return;
  const matchers = exclude.map(pathMatcher);
  await withDirectoryLock(dir, async () => {
    if (await hasJournal(dir)) return;
    for (const name of names) {
      const path = below(restorePaths(dir).own, name);
      const { entries } = await scan(path);
      const unique = entries.some((entry) => matchers.some((matches) => matches(entry.path)));
      if (!unique) await removeTree('inplace:old:drop', path);
    }
  });
}

/** Tests for names at the top of a directory. */
export interface MovableNames {
  /** Reports whether a restore in place may move a name of the snapshot in. */
  readonly in: (name: BytePath) => boolean;
  /** Reports whether a restore in place may move a present name out. */
  readonly out: (name: BytePath) => boolean;
}

// A temporary file is no part of a snapshot. One that is still there when the instance is down was left behind.
/** Returns tests for the names that a restore in place may move. */
export function movableNames(exclude: readonly string[]): MovableNames {
  const matchers = exclude.map(pathMatcher);
  const isOurs = (name: BytePath) => name !== OWN_FOLDER && !matchers.some((matches) => matches(name));
  return {
    in: (name) => isOurs(name) && !isTransient(name),
    out: (name) => isOurs(name) && (!isTransient(name) || isTemporary(name)),
  };
}
