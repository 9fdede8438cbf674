import { writeSync } from 'node:fs';
import {
  constants,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readlink,
  rename,
  rm,
  unlink,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ioError, LightkeeperError, systemCode } from '../core/errors.ts';

/**
 * Every change that Lightkeeper makes to a disk goes through this file, under a label such as
 * `store:pack:rename`. A test can stop the process at each label, let exactly one of them fail, or record
 * what would have survived a power loss.
 */
export interface Effect {
  readonly label: string;
  readonly op: 'create' | 'write' | 'sync' | 'rename' | 'link' | 'syncDir' | 'remove' | 'mkdir' | 'other';
  readonly path: string | Buffer;
  /** The new name, for `rename` and `link`. */
  readonly to?: string;
  /** For `write`. */
  readonly position?: number;
  readonly bytes?: Uint8Array;
}

/** Sees each effect just before and just after it happens; what it throws is what the caller gets. */
export type EffectWatcher = (phase: 'before' | 'after', effect: Effect) => void;

let watcher: EffectWatcher | undefined = faultFromEnvironment(process.env.LIGHTKEEPER_FAULT);

/** Puts a watcher in place of the present one, for tests in process; answers what undoes it. */
export function watchEffects(next: EffectWatcher): () => void {
  const previous = watcher;
  watcher = next;
  return () => {
    watcher = previous;
  };
}

/**
 * `kill:before:LABEL:N` or `kill:after:LABEL:N`: the process kills itself at the N-th effect of that label;
 * `fail:CODE:LABEL:N`: that effect and all later ones of the label fail with that code. `*` is any label;
 * `trace:FILE-DESCRIPTOR` is not a fault: the label of each effect is written there, a line each, before it
 * happens.
 */
function faultFromEnvironment(spec: string | undefined): EffectWatcher | undefined {
  if (spec === undefined || spec === '') return undefined;
  const [kind = '', second = '', ...rest] = spec.split(':');
  if (kind === 'trace') {
    return (phase, { label }) => {
      if (phase === 'before') writeSync(Number(second), `${label}\n`);
    };
  }
  const nth = Number(rest.pop() ?? '1');
  const label = rest.join(':');
  let seen = 0;
  return (phase, effect) => {
    if (label !== '*' && effect.label !== label) return;
    if (kind === 'kill' && phase === second && ++seen === nth) {
      process.kill(process.pid, 'SIGKILL');
      // A signal to oneself is delivered when the system call returns, to the whole process.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10_000);
    }
    if (kind === 'fail' && phase === 'before' && ++seen >= nth) {
      throw Object.assign(new Error(`${second}: injected at ${effect.label}`), { code: second });
    }
  };
}

/** Runs one labelled effect of any kind; the ones below are made with it. */
export async function effect<T>(what: Effect, run: () => Promise<T>): Promise<T> {
  watcher?.('before', what);
  const result = await run();
  watcher?.('after', what);
  return result;
}

/** As `effect`, for calls that block. */
export function effectSync<T>(what: Effect, run: () => T): T {
  watcher?.('before', what);
  const result = run();
  watcher?.('after', what);
  return result;
}

/** Creates a file that must not exist yet. */
export async function createFile(label: string, path: string | Buffer): Promise<FileHandle> {
  try {
    return await effect({ label, op: 'create', path }, () => open(path, 'wx', 0o600));
  } catch (error) {
    throw ioError('create', path.toString(), error);
  }
}

/** Writes all of `bytes` at `position`. */
export async function writeAt(
  label: string,
  path: string | Buffer,
  file: FileHandle,
  bytes: Uint8Array,
  position: number,
): Promise<void> {
  try {
    await effect({ label, op: 'write', path, position, bytes }, async () => {
      let done = 0;
      while (done < bytes.length) {
        const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
        if (bytesWritten === 0) throw new Error('the disk took no bytes');
        done += bytesWritten;
      }
    });
  } catch (error) {
    throw ioError('write', path.toString(), error);
  }
}

/** Waits until a file's bytes are on the disk. */
export async function syncFile(label: string, path: string | Buffer, file: FileHandle): Promise<void> {
  try {
    await effect({ label, op: 'sync', path }, () => file.sync());
  } catch (error) {
    throw ioError('sync', path.toString(), error);
  }
}

/** Waits until the names in a folder are on the disk. */
export async function syncDir(label: string, path: string | Buffer): Promise<void> {
  try {
    await effect({ label, op: 'syncDir', path }, async () => {
      const dir = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
      try {
        await dir.sync();
      } finally {
        await dir.close();
      }
    });
  } catch (error) {
    throw ioError('sync', path.toString(), error);
  }
}

/** Renames without waiting for the folder: the caller syncs it. */
export async function renameFile(label: string, from: string | Buffer, to: string | Buffer): Promise<void> {
  try {
    await effect({ label, op: 'rename', path: from, to: to.toString() }, () => rename(from, to));
  } catch (error) {
    throw ioError('rename', from.toString(), error);
  }
}

/** Removes a file; that it is gone already is not an error. */
export async function removeFile(label: string, path: string | Buffer): Promise<void> {
  try {
    await effect({ label, op: 'remove', path }, () => unlink(path));
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw ioError('remove', path.toString(), error);
  }
}

/** Removes a folder with all in it; only ever used on our own caches and temporary files. */
export async function removeTree(label: string, path: string | Buffer): Promise<void> {
  try {
    await effect({ label, op: 'remove', path }, () => rm(path, { recursive: true, force: true }));
  } catch (error) {
    throw ioError('remove', path.toString(), error);
  }
}

/** Makes a folder, with those above it, durable up to the first that was there. */
export async function makeDir(label: string, path: string): Promise<void> {
  try {
    const first = await effect({ label, op: 'mkdir', path }, () =>
      mkdir(path, { recursive: true, mode: 0o700 }),
    );
    if (first === undefined) return;
    for (let made = path; ; made = dirname(made)) {
      await syncDir(label, dirname(made));
      if (made === first || made === dirname(made)) return;
    }
  } catch (error) {
    throw ioError('create', path, await whyNot(path, error));
  }
}

/** Node says ENOENT for whatever keeps it from making folders; the system says more when asked for one. */
async function whyNot(path: string, error: unknown): Promise<unknown> {
  if (systemCode(error) !== 'ENOENT') return error;
  const parent = dirname(path);
  if (parent !== path && !(await exists(parent))) return await whyNot(parent, error);
  return await mkdir(path).then(
    () => error,
    (own: unknown) => own,
  );
}

/** Publishes a small file durably in place of what was there: temporary, write, sync, rename, sync folder. */
export async function replaceFile(label: string, path: string, bytes: Uint8Array): Promise<void> {
  const temporary = join(dirname(path), `.new-${process.pid}-${Date.now().toString(36)}`);
  const file = await createFile(label, temporary);
  try {
    await writeAt(label, temporary, file, bytes, 0);
    await syncFile(label, temporary, file);
  } finally {
    await file.close();
  }
  await renameFile(label, temporary, path);
  await syncDir(label, dirname(path));
}

/** Whether a name is there, a dangling symlink included. */
export async function exists(path: string | Buffer): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return false;
    throw ioError('look at', path.toString(), error);
  }
}

/** Refuses a path that is a symlink where a folder of ours is meant. */
export async function refuseSymlink(path: string): Promise<void> {
  const target = await readlink(path).catch(() => undefined);
  if (target !== undefined) {
    throw new LightkeeperError('REFUSED', `Cannot use "${path}": it is a symlink`, {
      hint: `name ${target}`,
    });
  }
}
