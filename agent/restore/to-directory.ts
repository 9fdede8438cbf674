import { randomBytes } from 'node:crypto';
import { lstat, mkdir, readdir, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { bytesText } from '../../core/path.ts';
import { idOf } from '../../core/snapshot.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { createFile, effect, makeDir, removeFile, removeTree, syncDir, writeAt } from '../../host/disk.ts';
import { checkReserve } from '../../host/disk-reserve.ts';
import type { Store } from '../store/store.ts';
import { INCOMPLETE_MARK } from '../watch/names.ts';
import { count, type RestoreBase, writing } from './plan.ts';
import { settleFolder, type Totals, writeTree } from './tree-writer.ts';

/** What a restore to another directory is asked. */
export interface RestoreOrder extends RestoreBase {
  /** Absolute; absent or empty. */
  readonly to: Uint8Array;
  /** Empty: all. */
  readonly paths: readonly string[];
}

/** What a restore did. */
export interface Restored extends Totals {
  readonly findings: readonly Finding[];
}

/** Writes a snapshot to a directory that is absent or empty; the directory appears whole or not at all. */
export async function restoreToDirectory(store: Store, order: RestoreOrder): Promise<Restored> {
  const endRead = store.beginRead();
  try {
    const there = await checkTarget(order.to);
    const totals = await count(store, order);
    await checkReserve({
      doing: `restore to "${bytesText(order.to)}"`,
      place: Buffer.from(order.to).toString(),
      bytes: totals.bytes,
      reserveBytes: order.reserveBytes,
    });
    if (order.dryRun) return { ...totals, findings: [] };
    return there ? await fillEmpty(store, order, totals) : await makeWhole(store, order, totals);
  } finally {
    endRead();
  }
}

/** Answers whether the directory is there (and empty). */
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

/** A directory that was there may be a mount point: it is filled as it is, with a mark in it until that has ended. */
async function fillEmpty(store: Store, order: RestoreOrder, totals: Totals): Promise<Restored> {
  const to = Buffer.from(order.to);
  const path = join(to.toString(), INCOMPLETE_MARK);
  const file = await createFile('restore:mark', path);
  await writeAt('restore:mark', path, file, Buffer.from('A restore to this directory has not ended.\n'), 0);
  await file.close();
  // What a failure leaves stays for a look.
  const written = await writeTree(store, writing(order, totals, to, order.paths));
  await removeFile('restore:unmark', path);
  await syncDir('restore:publish', to.toString());
  return written;
}

async function makeWhole(store: Store, order: RestoreOrder, totals: Totals): Promise<Restored> {
  const to = Buffer.from(order.to);
  const parent = Buffer.from(dirname(to.toString('latin1')), 'latin1');
  const name = `.lightkeeper-${idOf(order.snapshot).slice(0, 8)}-${randomBytes(4).toString('hex')}`;
  const stage = Buffer.from(join(parent.toString('latin1'), name), 'latin1');
  try {
    await makeDir('restore:parent', parent.toString());
    await effect({ label: 'restore:stage', op: 'mkdir', path: stage }, () => mkdir(stage, 0o700));
    const written = await writeTree(store, writing(order, totals, stage, order.paths));
    const { root } = order.snapshot.manifest;
    if (root !== undefined) await settleFolder(stage, root);
    await publishFolder(stage, to);
    const leftovers = leftoversOf(name, await readdir(parent));
    return { ...written, findings: [...written.findings, ...leftovers] };
  } catch (error) {
    await removeTree('restore:abandon', stage);
    throw error;
  }
}

/** Folders that earlier restores of the snapshot left behind. */
function leftoversOf(ours: string, names: readonly string[]): Finding[] {
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
  await effect({ label: 'restore:rename', op: 'rename', path: from, to: to.toString() }, () =>
    rename(from, to),
  ).catch((error) => {
    throw ioError('restore to', to.toString(), error);
  });
  await syncDir('restore:publish', dirname(to.toString()));
}
