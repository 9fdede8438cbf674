import { lstatSync, readdirSync, readlinkSync, realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import { errorFinding, warning } from '../../core/finding.ts';
import {
  type BytePath,
  bytesText,
  NAME_BYTES_MAX,
  PATH_BYTES_MAX,
  pathMatcher,
  pathText,
} from '../../core/path.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../../host/clock.ts';
import { below, INCOMPLETE_MARK, isTemp, keptTime, NEVER, OWN_FOLDER, TEMP_YOUNG_MS } from './names.ts';

/** Names that are looked at between two turns of the event loop. */
const ENTRIES_A_TURN = 500;

/** What a stat scan saw of one name. */
export interface Entry {
  readonly path: BytePath;
  readonly type: 'file' | 'dir' | 'symlink';
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  /** Device and inode, for files with more than one name; else empty. */
  readonly links: string;
  /** Of a symlink. */
  readonly target: BytePath;
}

/** One look at a whole directory. */
export interface Scan {
  /** The directory itself. */
  readonly root: Entry;
  /** In order of the paths. */
  readonly entries: readonly Entry[];
  readonly findings: readonly Finding[];
  /** LightRAG's temporary and lock files. */
  readonly beside: readonly Entry[];
  /** The newest change time of anything looked at, LightRAG's temporary files and locks included. */
  readonly newestNs: bigint;
  readonly rawBytes: number;
  readonly largestBytes: number;
  /** The scan took this long. */
  readonly tookMs: number;
}

/** The finding of a name that cannot be read. */
export function unreadable(path: BytePath, code: string): Finding {
  return errorFinding('unreadable', pathText(path), {
    message: `it cannot be read (${code}) and is not in the snapshot`,
    hint:
      code === 'EIO'
        ? 'the disk reports errors: look at the kernel log'
        : 'give the agent the right to read it, or exclude it',
  });
}

/** What a scan is told. */
export interface ScanOptions {
  /** Patterns of names that are left out beside those that always are. */
  readonly exclude?: readonly string[];
  /** Direct subfolders that are left out: they are guarded by themselves. */
  readonly leaveOut?: ReadonlySet<BytePath> | undefined;
  /** The store, which may lie inside the directory. */
  readonly store?: string;
  readonly signal?: AbortSignal;
}

class Scanner {
  readonly entries: Entry[] = [];
  readonly findings: Finding[] = [];
  readonly beside: Entry[] = [];
  newestNs = 0n;
  readonly #dir: Uint8Array;
  readonly #exclude: ((path: BytePath) => boolean)[];
  readonly #leaveOut: ReadonlySet<BytePath>;
  readonly #store: { dev: bigint; ino: bigint } | undefined;

  constructor(dir: Uint8Array, options: ScanOptions) {
    this.#dir = dir;
    this.#exclude = (options.exclude ?? []).map(pathMatcher);
    this.#leaveOut = options.leaveOut ?? new Set();
    this.#store = options.store === undefined ? undefined : identity(options.store);
  }

  /** Names below `folder`, each looked at; answers the folders among them. */
  look(folder: BytePath): BytePath[] {
    const folders: BytePath[] = [];
    let names: Buffer[];
    try {
      names = readdirSync(below(this.#dir, folder), { encoding: 'buffer' });
    } catch (error) {
      this.#cannot(folder, error);
      return folders;
    }
    for (const name of names) {
      const path = folder === '' ? name.toString('latin1') : `${folder}/${name.toString('latin1')}`;
      if (this.#lookAt(path, name.length)) folders.push(path);
    }
    return folders;
  }

  #cannot(path: BytePath, error: unknown): void {
    const code = systemCode(error);
    // Gone since it was listed: the second scan will say so.
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      if (path !== '') return;
    }
    if (path === '') throw ioError('read', bytesText(this.#dir), error);
    if (code === 'ENAMETOOLONG') {
      this.#tooLong(path);
      return;
    }
    this.findings.push(unreadable(path, code ?? 'unknown'));
  }

  #tooLong(path: BytePath): void {
    this.findings.push(
      errorFinding('path_too_long', pathText(path), {
        message: 'its path is too long to be kept; nor is what is below it',
        hint: 'use shorter names, or protect a folder further down by itself',
      }),
    );
  }

  /** Answers whether the name is a folder to look into. */
  #lookAt(path: BytePath, nameBytes: number): boolean {
    let stat: ReturnType<typeof statOf>;
    try {
      stat = statOf(below(this.#dir, path));
    } catch (error) {
      this.#cannot(path, error);
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
    // A log that somebody left out may grow for ever; a temporary file that grows is a flush under way.
    if (path === OWN_FOLDER || this.#leaveOut.has(path)) return false;
    if (this.#exclude.some((matches) => matches(path))) return false;
    if (stat.ctimeNs > this.newestNs) this.newestNs = stat.ctimeNs;
    if (NEVER.test(path)) {
      if (isTemp(path)) this.#temp(path, stat.ctimeNs);
      this.beside.push(entryOf(path, 'file', stat, ''));
      return false;
    }
    if (path === INCOMPLETE_MARK) {
      this.findings.push(
        warning('restore_incomplete', path, {
          message: 'a restore to this directory was interrupted: files may be missing or cut',
          hint: 'restore again to another directory; remove this file if all is well',
        }),
      );
      return false;
    }
    if (path.length > PATH_BYTES_MAX || nameBytes > NAME_BYTES_MAX) {
      this.#tooLong(path);
      return false;
    }
    return this.#keep(path, stat);
  }

  #temp(path: BytePath, ctimeNs: bigint): void {
    if (now() - Number(ctimeNs / 1_000_000n) < TEMP_YOUNG_MS) return;
    this.findings.push(
      warning('stale_temp', pathText(path), {
        message: 'a writer that ended in the middle of a flush has left it behind; it is not kept',
        hint: 'remove it while the instance is stopped',
      }),
    );
  }

  #keep(path: BytePath, stat: ReturnType<typeof statOf>): boolean {
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
          message: `it is ${what} and is not kept`,
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
        this.#cannot(path, error);
        return false;
      }
    }
    if (stat.mtimeNs !== keptTime(stat.mtimeNs)) {
      this.findings.push(
        warning('time_out_of_range', pathText(path), {
          message: 'its time is before 1677 or after 2262; the nearest that can be kept is kept',
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

function identity(path: string): { dev: bigint; ino: bigint } | undefined {
  try {
    const { dev, ino } = lstatSync(realpathSync(path), { bigint: true });
    return { dev, ino };
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw ioError('look at', path, error);
  }
}

/** What the directory itself is; refuses one that is not there, is none, is the store or lies inside it. */
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

/** Whether a path without symlinks is a folder or lies below it. */
export function isWithin(real: Buffer, folder: string): boolean {
  const own = identity(folder);
  if (own === undefined) return false;
  for (let path = real.toString('latin1'); ; path = dirname(path)) {
    const { dev, ino } = statOf(Buffer.from(path, 'latin1'));
    if (dev === own.dev && ino === own.ino) return true;
    if (path === dirname(path)) return false;
  }
}

/**
 * Looks at every name below a directory. Names that vanish meanwhile are left out, those that cannot be kept
 * become findings. Refuses what `checkDirectory` refuses.
 */
export async function scan(dir: Uint8Array, options: ScanOptions = {}): Promise<Scan> {
  const started = performance.now();
  const rootStat = checkDirectory(dir, options.store);
  const scanner = new Scanner(dir, options);
  scanner.newestNs = rootStat.ctimeNs;
  let turn = 0;
  for (const stack: BytePath[] = ['']; stack.length > 0; ) {
    options.signal?.throwIfAborted();
    const before = scanner.entries.length;
    for (const folder of scanner.look(stack.pop() as BytePath)) stack.push(folder);
    turn += scanner.entries.length - before + 1;
    if (turn >= ENTRIES_A_TURN) {
      turn = 0;
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
  const { findings, beside, newestNs } = scanner;
  const root = entryOf('', 'dir', rootStat, '');
  const tookMs = performance.now() - started;
  return { root, entries, findings, beside, newestNs, rawBytes, largestBytes, tookMs };
}

/** The first difference between two looks at one directory, or undefined. */
export function firstDifference(a: Scan, b: Scan): BytePath | undefined {
  for (let i = 0; i < Math.max(a.entries.length, b.entries.length); i++) {
    const before = a.entries[i];
    const after = b.entries[i];
    if (before === undefined || after === undefined) return (before ?? after)?.path;
    if (!sameEntry(before, after)) return [before.path, after.path].sort()[0];
  }
  return undefined;
}

/** Whether nothing about a name has changed that a capture would see. */
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
