import { lstatSync, readdirSync, readlinkSync, realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import { errorFinding, finding, warning } from '../../core/finding.ts';
import {
  type BytePath,
  bytesText,
  NAME_BYTES_MAX,
  PATH_BYTES_MAX,
  pathMatcher,
  pathText,
} from '../../core/path.ts';
import { type Finding, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { isLeftBehind } from './flush.ts';
import { below, INCOMPLETE_MARK, isTemporary, isTransient, OWN_FOLDER, storableTime } from './names.ts';

import { TempWriters, type WriterState } from './temp-writers.ts';

/** Names scanned between two turns of the event loop. */
const ENTRIES_A_TURN = 500;

/** One name in a directory with its status. */
export interface Entry {
  readonly path: BytePath;
  readonly type: 'file' | 'dir' | 'symlink';
  /** Bytes of a file; 0 for other types. */
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  /** Device and inode of a file with several names; empty for others. */
  readonly links: string;
  /** Target of a symlink; empty for other types. */
  readonly target: BytePath;
}

/** One of LightRAG's temporary or lock files. */
export interface TransientEntry extends Entry {
  /** State of the process that writes a temporary file; undefined for a lock file. */
  readonly writer: WriterState | undefined;
}

/** The names of a directory at one time. */
export interface Scan {
  /** The directory itself. */
  readonly root: Entry;
  /** Names below it, sorted by path. */
  readonly entries: readonly Entry[];
  readonly findings: readonly Finding[];
  /** LightRAG's temporary and lock files, which are not captured. */
  readonly transient: readonly TransientEntry[];
  /** Newest change time in nanoseconds, that of LightRAG's temporary and lock files included. */
  readonly newestNs: bigint;
  /** Size of all files. */
  readonly rawBytes: number;
  /** Size of the largest file. */
  readonly largestBytes: number;
  /** Duration of the scan in milliseconds. */
  readonly tookMs: number;
}

/** Returns the finding of a name that cannot be read. */
export function unreadableFinding(path: BytePath, code: string): Finding {
  return errorFinding('unreadable', pathText(path), {
    message: `it cannot be read (${code}) and is not in the snapshot`,
    hint:
      code === 'EIO'
        ? 'the disk reports errors: check the kernel log'
        : 'give the agent the right to read it, or exclude it',
  });
}

/** Options of a scan. */
export interface ScanOptions {
  /** Patterns of names to leave out, in addition to those that always are. */
  readonly exclude?: readonly string[];
  /** Direct subfolders to leave out, as they are graphs of their own. */
  readonly workspaces?: ReadonlySet<BytePath> | undefined;
  /** Path of the store, which may lie inside the directory. */
  readonly store?: string;
  /** What is known of the writers of temporary files; by default only what the machine shows now. */
  readonly writers?: TempWriters | undefined;
  readonly signal?: AbortSignal;
}

class Scanner {
  readonly entries: Entry[] = [];
  readonly findings: Finding[] = [];
  readonly transient: TransientEntry[] = [];
  newestNs = 0n;
  readonly #dir: Uint8Array;
  readonly #exclude: ((path: BytePath) => boolean)[];
  readonly #workspaces: ReadonlySet<BytePath>;
  readonly #writers: TempWriters;
  readonly #store: { dev: bigint; ino: bigint } | undefined;

  constructor(dir: Uint8Array, options: ScanOptions) {
    this.#dir = dir;
    this.#exclude = (options.exclude ?? []).map(pathMatcher);
    this.#workspaces = options.workspaces ?? new Set();
    this.#writers = options.writers ?? new TempWriters();
    this.#store = options.store === undefined ? undefined : identityOf(options.store);
  }

  /** Scans the names in a folder. Returns the folders among them. */
  scanFolder(folder: BytePath): BytePath[] {
    const folders: BytePath[] = [];
    let names: Buffer[];
    try {
      names = readdirSync(below(this.#dir, folder), { encoding: 'buffer' });
    } catch (error) {
      this.#unreadable(folder, error);
      return folders;
    }
    for (const name of names) {
      const path = folder === '' ? name.toString('latin1') : `${folder}/${name.toString('latin1')}`;
      if (this.#scanName(path, name.length)) folders.push(path);
    }
    return folders;
  }

  #unreadable(path: BytePath, error: unknown): void {
    const code = systemCode(error);
    // It is gone since it was listed. The second scan finds the difference.
    if (path !== '' && (code === 'ENOENT' || code === 'ENOTDIR')) return;
    if (path === '') throw ioError('read', bytesText(this.#dir), error);
    if (code === 'ENAMETOOLONG') {
      this.#tooLong(path);
      return;
    }
    this.findings.push(unreadableFinding(path, code ?? 'unknown'));
  }

  #tooLong(path: BytePath): void {
    this.findings.push(
      errorFinding('path_too_long', pathText(path), {
        message: 'its path is too long; it and all names below it are not in the snapshot',
        hint: 'use shorter names, or protect a deeper folder on its own',
      }),
    );
  }

  /** Scans one name. Returns whether it is a folder to scan. */
  #scanName(path: BytePath, nameBytes: number): boolean {
    let stat: ReturnType<typeof statOf>;
    try {
      stat = statOf(below(this.#dir, path));
    } catch (error) {
      this.#unreadable(path, error);
      return false;
    }
    const isStore = this.#store !== undefined && stat.ino === this.#store.ino && stat.dev === this.#store.dev;
    if (isStore) {
      this.findings.push(
        warning('store_inside', pathText(path), {
          message: 'the store lies inside the directory that it protects; it is left out',
          hint: 'put the store on another disk: a loss of the directory would take the points with it',
        }),
      );
      return false;
    }
    if (path === OWN_FOLDER || this.#workspaces.has(path)) return false;
    // Excluded names do not count as changes, as a log may grow all the time. Temporary files do, whatever is excluded:
    // they mean a flush.
    const isOfFlush = isTransient(path);
    if (!isOfFlush && this.#exclude.some((matches) => matches(path))) return false;
    if (stat.ctimeNs > this.newestNs) this.newestNs = stat.ctimeNs;
    if (isOfFlush) {
      this.#addTransient(path, stat);
      return false;
    }
    if (path === INCOMPLETE_MARK) {
      this.findings.push(
        warning('restore_incomplete', path, {
          message: 'a restore to this directory was interrupted: files may be missing or cut',
          hint: 'restore again to another directory; remove this file if the directory is complete',
        }),
      );
      return false;
    }
    if (path.length > PATH_BYTES_MAX || nameBytes > NAME_BYTES_MAX) {
      this.#tooLong(path);
      return false;
    }
    return this.#addEntry(path, stat);
  }

  #addTransient(path: BytePath, stat: ReturnType<typeof statOf>): void {
    const writer = isTemporary(path) ? this.#writers.stateOf(path) : undefined;
    const entry = { ...entryOf(path, 'file', stat, ''), writer };
    this.transient.push(entry);
    if (writer === undefined || !isLeftBehind(entry)) return;
    this.findings.push(
      finding('stale_temp', Severity_Value.INFO, pathText(path), {
        message: 'a writer left it behind when it ended during a flush; it is not in the snapshot',
        hint: 'remove it while the instance is stopped',
      }),
    );
  }

  #addEntry(path: BytePath, stat: ReturnType<typeof statOf>): boolean {
    const type = stat.isFile()
      ? 'file'
      : stat.isDirectory()
        ? 'dir'
        : stat.isSymbolicLink()
          ? 'symlink'
          : undefined;
    if (type === undefined) {
      const what = stat.isFIFO() ? 'a FIFO' : stat.isSocket() ? 'a socket' : 'a device';
      this.findings.push(
        warning('special_file', pathText(path), {
          message: `it is ${what} and is not in the snapshot`,
          hint: 'exclude it to silence this',
        }),
      );
      return false;
    }
    let target = '';
    if (type === 'symlink') {
      try {
        target = readlinkSync(below(this.#dir, path), { encoding: 'buffer' }).toString('latin1');
      } catch (error) {
        this.#unreadable(path, error);
        return false;
      }
    }
    if (stat.mtimeNs !== storableTime(stat.mtimeNs)) {
      this.findings.push(
        warning('time_out_of_range', pathText(path), {
          message: 'its time is before 1677 or after 2262; the nearest time in that range is stored',
          hint: 'set its time with touch',
        }),
      );
    }
    this.entries.push(entryOf(path, type, stat, target));
    return type === 'dir';
  }
}

function entryOf(
  path: BytePath,
  type: Entry['type'],
  stat: ReturnType<typeof statOf>,
  target: BytePath,
): Entry {
  return {
    path,
    type,
    size: type === 'file' ? Number(stat.size) : 0,
    mode: Number(stat.mode & 0o7777n),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtimeNs: stat.mtimeNs,
    ctimeNs: stat.ctimeNs,
    links: type === 'file' && stat.nlink > 1n ? `${stat.dev}:${stat.ino}` : '',
    target,
  };
}

function statOf(path: Buffer) {
  return lstatSync(path, { bigint: true });
}

function identityOf(path: string): { dev: bigint; ino: bigint } | undefined {
  try {
    const { dev, ino } = lstatSync(realpathSync(path), { bigint: true });
    return { dev, ino };
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw ioError('read', path, error);
  }
}

/** Returns the status of a directory to protect. Throws if it is not a directory, is missing or is in the store. */
export function checkDirectory(dir: Uint8Array, store?: string): ReturnType<typeof statOf> {
  const name = bytesText(dir);
  let real: Buffer;
  let stat: ReturnType<typeof statOf>;
  try {
    // Without `native`, Node takes the bytes for UTF-8.
    real = realpathSync.native(Buffer.from(dir), { encoding: 'buffer' });
    stat = statOf(real);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') {
      throw new LightkeeperError('NOT_FOUND', `Cannot read the directory "${name}": it is not there`, {
        hint: 'check --dir',
        cause: error,
      });
    }
    throw ioError('read', name, error);
  }
  const refuse = (state: string, hint: string) =>
    new LightkeeperError('INVALID_ARGUMENT', `Cannot protect "${name}": ${state}`, { hint });
  if (!stat.isDirectory()) throw refuse('it is not a directory', 'name the working directory with --dir');
  if (store !== undefined && isWithin(real, store))
    throw refuse('it is the store, or a part of it', 'name another folder with --store');
  return stat;
}

/** Reports whether a path without symlinks is a folder or lies below it. */
export function isWithin(real: Buffer, folder: string): boolean {
  const own = identityOf(folder);
  if (own === undefined) return false;
  for (let path = real.toString('latin1'); ; path = dirname(path)) {
    const { dev, ino } = statOf(Buffer.from(path, 'latin1'));
    if (dev === own.dev && ino === own.ino) return true;
    if (path === dirname(path)) return false;
  }
}

/**
 * Scans all names below a directory. Names that vanish meanwhile are left out; names that cannot be stored become
 * findings. Throws what `checkDirectory` throws.
 */
export async function scan(dir: Uint8Array, options: ScanOptions = {}): Promise<Scan> {
  const started = performance.now();
  const rootStat = checkDirectory(dir, options.store);
  const scanner = new Scanner(dir, options);
  scanner.newestNs = rootStat.ctimeNs;
  let scanned = 0;
  for (const stack: BytePath[] = ['']; stack.length > 0; ) {
    options.signal?.throwIfAborted();
    const before = scanner.entries.length;
    for (const folder of scanner.scanFolder(stack.pop() as BytePath)) stack.push(folder);
    scanned += scanner.entries.length - before + 1;
    if (scanned >= ENTRIES_A_TURN) {
      scanned = 0;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  const entries = scanner.entries.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  let rawBytes = 0;
  let largestBytes = 0;
  for (const { size } of entries) {
    rawBytes += size;
    if (size > largestBytes) largestBytes = size;
  }
  const { findings, transient, newestNs } = scanner;
  const root = entryOf('', 'dir', rootStat, '');
  const tookMs = performance.now() - started;
  return { root, entries, findings, transient, newestNs, rawBytes, largestBytes, tookMs };
}

/** Returns the first name that differs between two scans; undefined if none does. */
export function firstDifference(a: Scan, b: Scan): BytePath | undefined {
  for (let i = 0; i < Math.max(a.entries.length, b.entries.length); i++) {
    const before = a.entries[i];
    const after = b.entries[i];
    if (before === undefined || after === undefined) return (before ?? after)?.path;
    if (!sameEntry(before, after)) return [before.path, after.path].sort()[0];
  }
  return undefined;
}

/** A name that differs between two scans; undefined where it is absent. */
export interface Difference {
  readonly before: Entry | undefined;
  readonly after: Entry | undefined;
}

/** Returns all names that differ between two scans. */
export function differences(a: Scan, b: Scan): Difference[] {
  const known = new Map(a.entries.map((entry) => [entry.path, entry]));
  const found: Difference[] = [];
  for (const after of b.entries) {
    const before = known.get(after.path);
    known.delete(after.path);
    if (before === undefined || !sameEntry(before, after)) found.push({ before, after });
  }
  return [...found, ...[...known.values()].map((before) => ({ before, after: undefined }))];
}

/** Reports whether two entries are equal in all that a capture stores or compares. */
export function sameEntry(a: Entry, b: Entry): boolean {
  return (
    a.path === b.path &&
    a.type === b.type &&
    a.size === b.size &&
    a.mtimeNs === b.mtimeNs &&
    a.ctimeNs === b.ctimeNs &&
    a.mode === b.mode &&
    a.uid === b.uid &&
    a.gid === b.gid &&
    a.target === b.target &&
    a.links === b.links
  );
}
