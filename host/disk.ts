import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel';
import { writeSync } from 'node:fs';
import { constants, type FileHandle, lstat, mkdir, open, rename, rm, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ioError, systemCode } from '../core/errors.ts';

// Every change that Lightkeeper makes to a disk goes through this file. A test can stop the process at a
// label, make a label fail, or record what would survive a power loss.
/** A change to a disk, with a label such as `store:pack:rename`. */
export interface Effect {
  readonly label: string;
  readonly op: 'create' | 'write' | 'sync' | 'rename' | 'link' | 'syncDir' | 'remove' | 'mkdir' | 'other';
  readonly path: string | Buffer;
  /** New name, for `rename` and `link`. */
  readonly to?: string | Buffer;
  /** Offset in the file, for `write`. */
  readonly position?: number;
  readonly bytes?: Uint8Array;
}

/** Observes each effect before and after it happens. What it throws, the effect throws. */
export type EffectWatcher = (phase: 'before' | 'after', effect: Effect) => void;

/** One phase of an effect, as the channel carries it. */
interface Announcement {
  readonly phase: 'before' | 'after';
  readonly effect: Effect;
  // A channel does not pass on what a subscriber throws.
  /** What a watcher has thrown; undefined if none has. */
  failure: { readonly error: unknown } | undefined;
}

const CHANNEL = 'lightkeeper:disk-effect';
const announcements = channel(CHANNEL);

/** Calls a watcher for all effects of this thread. Returns a function that ends this. */
export function watchEffects(watcher: EffectWatcher): () => void {
  const receive = (message: unknown) => {
    const announcement = message as Announcement;
    try {
      watcher(announcement.phase, announcement.effect);
    } catch (error) {
      announcement.failure ??= { error };
    }
  };
  subscribe(CHANNEL, receive);
  return () => {
    unsubscribe(CHANNEL, receive);
  };
}

function announce(phase: 'before' | 'after', effect: Effect): void {
  if (!announcements.hasSubscribers) return;
  const announcement: Announcement = { phase, effect, failure: undefined };
  announcements.publish(announcement);
  if (announcement.failure !== undefined) throw announcement.failure.error;
}

/**
 * Returns the watcher that a specification asks for:
 *
 * - `kill:before:LABEL:N`, `kill:after:LABEL:N`: the process kills itself at the N-th effect of the label.
 * - `fail:CODE:LABEL:N`: the N-th effect of the label and all later ones fail with the code.
 * - `trace:FILE-DESCRIPTOR`: each label is written there before its effect, one per line.
 *
 * `*` is any label.
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
      // The signal is delivered when the system call returns, to the whole process.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10_000);
    }
    if (kind === 'fail' && phase === 'before' && ++seen >= nth) {
      throw Object.assign(new Error(`${second}: injected at ${effect.label}`), { code: second });
    }
  };
}

// Worker threads load this file too, and each has its own channels.
const fault = faultFromEnvironment(process.env.LIGHTKEEPER_FAULT);
if (fault !== undefined) watchEffects(fault);

/** Runs one labelled effect of any kind. */
export async function effect<T>(what: Effect, run: () => Promise<T>): Promise<T> {
  announce('before', what);
  const result = await run();
  announce('after', what);
  return result;
}

/** Runs one labelled effect that blocks. */
export function effectSync<T>(what: Effect, run: () => T): T {
  announce('before', what);
  const result = run();
  announce('after', what);
  return result;
}

/** Returns the folder that holds the last name of a path. */
export function parentFolder(path: string | Buffer): string | Buffer {
  // One character per byte: a name need not be UTF-8.
  return typeof path === 'string' ? dirname(path) : Buffer.from(dirname(path.toString('latin1')), 'latin1');
}

/** Reports whether two paths are the same bytes. */
function isSamePath(a: string | Buffer, b: string | Buffer): boolean {
  return Buffer.from(a).equals(Buffer.from(b));
}

/** Creates a file, to write and to read; fails if it exists. */
export async function createFile(label: string, path: string | Buffer): Promise<FileHandle> {
  try {
    return await effect({ label, op: 'create', path }, () => open(path, 'wx+', 0o600));
  } catch (error) {
    throw ioError('create', path, error);
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
    throw ioError('write', path, error);
  }
}

/** Syncs the bytes of a file to the disk. */
export async function syncFile(label: string, path: string | Buffer, file: FileHandle): Promise<void> {
  try {
    await effect({ label, op: 'sync', path }, () => file.sync());
  } catch (error) {
    throw ioError('sync', path, error);
  }
}

/** Syncs the names in a folder to the disk. */
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
    throw ioError('sync', path, error);
  }
}

/** Renames a file. The caller syncs the folder. */
export async function renameFile(label: string, from: string | Buffer, to: string | Buffer): Promise<void> {
  try {
    await effect({ label, op: 'rename', path: from, to }, () => rename(from, to));
  } catch (error) {
    throw ioError('rename', from, error);
  }
}

/** Removes a file, if it exists. */
export async function removeFile(label: string, path: string | Buffer): Promise<void> {
  try {
    await effect({ label, op: 'remove', path }, () => unlink(path));
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw ioError('remove', path, error);
  }
}

// Only for caches and temporary files of Lightkeeper.
/** Removes a folder with its content. */
export async function removeTree(label: string, path: string | Buffer): Promise<void> {
  try {
    await effect({ label, op: 'remove', path }, () => rm(path, { recursive: true, force: true }));
  } catch (error) {
    throw ioError('remove', path, error);
  }
}

/** Creates a folder and its missing parents, and syncs them up to the first that existed. */
export async function makeDir(label: string, path: string | Buffer): Promise<void> {
  try {
    const first = await effect({ label, op: 'mkdir', path }, () =>
      mkdir(path, { recursive: true, mode: 0o700 }),
    );
    if (first === undefined) return;
    for (let made = path; ; made = parentFolder(made)) {
      const parent = parentFolder(made);
      await syncDir(label, parent);
      // Node returns the first that it made as text, also of bytes that are none.
      if (made.toString() === first || isSamePath(made, parent)) return;
    }
  } catch (error) {
    throw ioError('create', path, await mkdirCause(path, error));
  }
}

// Node reports ENOENT for any failure of a recursive mkdir; a plain one reports the cause.
/** Returns the cause of a failed creation of a folder. */
async function mkdirCause(path: string | Buffer, error: unknown): Promise<unknown> {
  if (systemCode(error) !== 'ENOENT') return error;
  const parent = parentFolder(path);
  if (!isSamePath(parent, path) && !(await exists(parent))) return await mkdirCause(parent, error);
  return await mkdir(path).then(
    () => error,
    (own: unknown) => own,
  );
}

/** Replaces a small file durably: temporary file, write, sync, rename, sync folder. */
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

/** Returns whether a name exists, also as a dangling symlink. */
export async function exists(path: string | Buffer): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return false;
    throw ioError('look at', path, error);
  }
}
