import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { ioError } from '../core/errors.ts';
import { effect } from './disk.ts';
import { withTextPath } from './text-path.ts';

const run = promisify(execFile);
const TIMEOUT_MS = 600_000;

// Node has no call that syncs one filesystem.
/** Returns whether the `sync` of this machine can sync one filesystem. */
export async function canSyncFilesystem(): Promise<boolean> {
  // /proc has nothing to write, so this sync is free.
  return await run('sync', ['-f', '/proc/self/status'], { timeout: TIMEOUT_MS }).then(
    () => true,
    () => false,
  );
}

/** Syncs the filesystem of a folder to the disk. */
export async function syncFilesystem(label: string, folder: Buffer): Promise<void> {
  const sync = (cwd: string) => run('sync', ['-f', '.'], { timeout: TIMEOUT_MS, cwd });
  await effect({ label, op: 'sync', path: folder }, async () => {
    await withTextPath(folder, sync).catch((error: unknown) => {
      throw ioError('sync', folder, error);
    });
  });
}
