import { access, constants, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Level } from 'level';
import { ioCode, ioError, type LightkeeperError, systemCode } from '../core/errors.ts';
import { removeTree } from './disk.ts';

// The lock is the one of LevelDB: the kernel releases it when the process ends.
/** Locks a folder that holds nothing else. Returns the lock, which closing releases. */
export async function lockFolder(
  folder: string,
  inUse: (cause: unknown) => Promise<LightkeeperError>,
): Promise<Level> {
  for (let attempt = 1; ; attempt++) {
    const db = new Level(folder, { createIfMissing: true });
    try {
      await db.open();
      return db;
    } catch (error) {
      const cause = error instanceof Error ? error.cause : undefined;
      if (systemCode(cause) === 'LEVEL_LOCKED') throw await inUse(error);
      const denied = await notWritable(folder);
      if (denied !== undefined) throw ioError('lock', folder, denied);
      if (attempt === 2 || ioCode(cause) !== undefined) throw ioError('lock', folder, cause);
      // A process that was killed may have left the content half written; it has no meaning.
      for (const name of await readdir(folder)) {
        if (name !== 'LOCK') await removeTree('store:owner:clear', join(folder, name));
      }
    }
  }
}

/** Returns the system error that forbids writing to the folder or its lock; undefined if writing is allowed. */
export async function notWritable(folder: string): Promise<unknown> {
  for (const path of [folder, join(folder, 'LOCK')]) {
    const denied = await access(path, constants.W_OK).catch((error: unknown) => error);
    if (['EROFS', 'EACCES', 'EPERM'].includes(systemCode(denied) ?? '')) return denied;
  }
  return undefined;
}
