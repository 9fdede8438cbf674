import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { ioError } from '../core/errors.ts';
import { effect } from './disk.ts';

const run = promisify(execFile);
const TIMEOUT_MS = 600_000;

/** Whether this machine has a `sync` that can be asked for one filesystem; Node has no call for that. */
export async function canSyncFilesystem(): Promise<boolean> {
  // On /proc there is nothing to write, so the question costs nothing.
  return await run('sync', ['-f', '/proc/self/status'], { timeout: TIMEOUT_MS }).then(
    () => true,
    () => false,
  );
}

/** Waits until everything written to the filesystem of `path` is on the disk. */
export async function syncFilesystem(label: string, path: Buffer): Promise<void> {
  await effect({ label, op: 'sync', path }, async () => {
    // The argument of a process is a string here; the folder's own name may be none, "." always is.
    await run('sync', ['-f', '.'], { timeout: TIMEOUT_MS, cwd: path.toString() }).catch((error: unknown) => {
      throw ioError('sync', path.toString(), error);
    });
  });
}
