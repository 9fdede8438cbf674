import { randomBytes } from 'node:crypto';
import { lstat, mkdir, readdir, rename } from 'node:fs/promises';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { bytesText } from '../../core/path.ts';
import { idOf } from '../../core/snapshot.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import {
  createFile,
  effect,
  makeDir,
  parentFolder,
  removeFile,
  removeTree,
  syncDir,
  writeAt,
} from '../../host/disk.ts';
import { checkReserve } from '../../host/disk-reserve.ts';
import type { Store } from '../store/store.ts';
import { below, INCOMPLETE_MARK } from '../watch/names.ts';
import { OwnerSetter } from './owner-setter.ts';
import { countTotals, type RestoreBase, writeOrder } from './plan.ts';
import { completeFolder, type Totals, writeTree } from './tree-writer.ts';

/** Order for a restore to another directory. */
export interface RestoreOrder extends RestoreBase {
  /** Absolute path of a directory that is absent or empty. */
  readonly to: Uint8Array;
  /** Patterns of the files to restore; empty restores all. */
  readonly paths: readonly string[];
}

/** Result of a restore. */
export interface Restored extends Totals {
  readonly findings: readonly Finding[];
}

/** Writes a snapshot to a directory that is absent or empty. An absent one appears whole or not at all. */
export async function restoreToDirectory(store: Store, order: RestoreOrder): Promise<Restored> {
  const endRead = store.beginRead();
  try {
    const exists = await checkTarget(order.to);
    const totals = await countTotals(store, order);
    await checkReserve({
      doing: `restore to "${bytesText(order.to)}"`,
      place: Buffer.from(order.to),
      bytes: totals.bytes,
      reserveBytes: order.reserveBytes,
    });
    if (order.dryRun) return { ...totals, findings: [] };
    return exists ? await fillDirectory(store, order, totals) : await createDirectory(store, order, totals);
  } finally {
    endRead();
  }
}

/** Returns whether the directory exists. Refuses one that is not empty. */
async function checkTarget(to: Uint8Array): Promise<boolean> {
  const name = bytesText(to);
  try {
    if (!(await lstat(Buffer.from(to))).isDirectory()) {
      throw new LightkeeperError('REFUSED', `Cannot restore to "${name}": it is not a directory`, {
        hint: 'name a directory that is absent or empty with --to',
      });
    }
    const names = await readdir(Buffer.from(to));
    if (names.length === 0) return true;
    const hint = names.includes(INCOMPLETE_MARK)
      ? 'an earlier restore to it was interrupted: remove what is in it, then restore again'
      : 'name a directory that is absent or empty with --to';
    throw new LightkeeperError('REFUSED', `Cannot restore to "${name}": it is not empty`, { hint });
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false;
    throw ioError('restore to', name, error);
  }
}

// A directory that exists may be a mount point, so it is not replaced.
/** Fills an empty directory, with a mark in it until the restore has ended. */
async function fillDirectory(store: Store, order: RestoreOrder, totals: Totals): Promise<Restored> {
  const to = Buffer.from(order.to);
  const mark = below(to, INCOMPLETE_MARK);
  const file = await createFile('restore:mark', mark);
  await writeAt('restore:mark', mark, file, Buffer.from('A restore to this directory has not ended.\n'), 0);
  await file.close();
  // What a failure leaves stays for inspection.
  const written = await writeTree(store, writeOrder(order, totals, to, order.paths));
  await removeFile('restore:unmark', mark);
  await syncDir('restore:publish', to);
  return written;
}

/** Writes the snapshot to a folder beside the target, then renames that. */
async function createDirectory(store: Store, order: RestoreOrder, totals: Totals): Promise<Restored> {
  const to = Buffer.from(order.to);
  const parent = Buffer.from(parentFolder(to));
  const name = `.lightkeeper-${idOf(order.snapshot).slice(0, 8)}-${randomBytes(4).toString('hex')}`;
  const stage = below(parent, name);
  try {
    await makeDir('restore:parent', parent);
    await effect({ label: 'restore:stage', op: 'mkdir', path: stage }, () => mkdir(stage, 0o700));
    const written = await writeTree(store, writeOrder(order, totals, stage, order.paths));
    const { root } = order.snapshot.manifest;
    const owners = new OwnerSetter();
    if (root !== undefined) await completeFolder(stage, root, owners);
    await publishFolder(stage, to);
    const leftovers = leftoverFindings(name, await readdir(parent));
    const denied = written.findings.some(({ code }) => code === 'owner_not_set') ? [] : owners.findings();
    return { ...written, findings: [...written.findings, ...denied, ...leftovers] };
  } catch (error) {
    await removeTree('restore:abandon', stage);
    throw error;
  }
}

/** Returns a finding for each folder that an earlier restore of the snapshot left behind. */
function leftoverFindings(ours: string, names: readonly string[]): Finding[] {
  const prefix = ours.slice(0, ours.lastIndexOf('-') + 1);
  return names
    .filter((name) => name.startsWith(prefix) && name !== ours)
    .map((name) =>
      warning('restore_leftover', name, {
        message: 'an interrupted restore of this snapshot left it behind',
        hint: 'remove it',
      }),
    );
}

async function publishFolder(from: Buffer, to: Buffer): Promise<void> {
  await effect({ label: 'restore:rename', op: 'rename', path: from, to }, () => rename(from, to)).catch(
    (error) => {
      throw ioError('restore to', to, error);
    },
  );
  await syncDir('restore:publish', parentFolder(to));
}
