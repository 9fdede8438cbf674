import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import {
  type FileHandle,
  lchown,
  link,
  lstat,
  lutimes,
  mkdir,
  open,
  readdir,
  rename,
  symlink,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ioError, LightkeeperError, systemCode } from '../core/errors.ts';
import { warning } from '../core/finding.ts';
import { type BytePath, pathFromBytes, pathMatcher, pathText } from '../core/path.ts';
import { hex } from '../core/unit.ts';
import { type FileEntry, FileType_Value, type Finding } from '../gen/lightkeeper/v1/types_pb.ts';
import { createFile, effect, makeDir, removeFile, removeTree, syncDir, writeAt } from '../host/disk.ts';
import { type Lease, Pool } from './pool.ts';
import { checkReserve } from './reserve.ts';
import { below, INCOMPLETE_MARK } from './scan.ts';
import { type Found, idOf } from './select.ts';
import type { UnitLocation } from './store/index.ts';
import type { Store } from './store/store.ts';
import { canSyncFilesystem, syncFilesystem } from './sync.ts';
import type { RestoreTargets } from './work.ts';

/** Units that are looked up and written in one go, sorted by where they are stored. */
const WINDOW_UNITS = 8192;
/** Files that are open for writing at once. */
const OPEN_FILES_MAX = 128;
const LOCATE_BATCH = 1024;

/** What a restore is asked. */
export interface RestoreOrder {
  readonly record: Found;
  /** Absolute; absent or empty. */
  readonly to: Uint8Array;
  readonly paths: readonly string[];
  readonly dryRun: boolean;
  readonly reserveBytes: bigint | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: (phase: string, doneBytes: number, totalBytes: number) => void;
}

/** What a restore did. */
export interface Restored {
  readonly files: number;
  readonly bytes: number;
  readonly findings: readonly Finding[];
}

/** Writes a snapshot to a directory that is absent or empty; the directory appears whole or not at all. */
export async function restore(store: Store, order: RestoreOrder): Promise<Restored> {
  const endRead = store.beginRead();
  try {
    const there = await checkTarget(order.to);
    const totals = await count(store, order);
    await checkReserve({
      doing: `restore to "${pathText(pathFromBytes(order.to))}"`,
      place: Buffer.from(order.to).toString(),
      bytes: totals.bytes,
      reserveBytes: order.reserveBytes,
    });
    if (order.dryRun) return { ...totals, findings: [] };
    return await new Restore(store, order, there, totals).run();
  } finally {
    endRead();
  }
}

function wanted(order: RestoreOrder): (path: BytePath) => boolean {
  if (order.paths.length === 0) return () => true;
  const matchers = order.paths.map(pathMatcher);
  return (path) => matchers.some((matches) => matches(path));
}

/** Answers whether the directory is there (and empty). */
async function checkTarget(to: Uint8Array): Promise<boolean> {
  const name = pathText(pathFromBytes(to));
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

async function count(store: Store, order: RestoreOrder): Promise<{ files: number; bytes: number }> {
  const { totals } = order.record.manifest;
  if (order.paths.length === 0 && totals !== undefined)
    return { files: totals.files, bytes: Number(totals.rawBytes) };
  const wants = wanted(order);
  let files = 0;
  let bytes = 0;
  for await (const file of store.files(order.record.manifest.files)) {
    const regular = file.type === FileType_Value.REGULAR || file.type === FileType_Value.HARD_LINK;
    if (!regular || !wants(pathFromBytes(file.path))) continue;
    files += 1;
    bytes += Number(file.size);
  }
  if (files === 0 && order.paths.length > 0) {
    throw new LightkeeperError('NOT_FOUND', `Cannot restore "${order.paths.join('", "')}": no file matches`, {
      hint: 'look at the names with lightkeeper show',
    });
  }
  return { files, bytes };
}

interface OpenFile {
  readonly handle: FileHandle;
  readonly entry: FileEntry;
  /** Writes that have been asked for and are not done. */
  pending: number;
  /** Nothing more will be asked for. */
  whole: boolean;
}

interface Wanted {
  readonly id: Buffer;
  readonly file: OpenFile;
  readonly position: number;
}

class Restore {
  readonly #store: Store;
  readonly #order: RestoreOrder;
  readonly #there: boolean;
  readonly #totals: { files: number; bytes: number };
  readonly #base: Buffer;
  readonly #pool: Pool;
  readonly #findings: Finding[] = [];
  readonly #packPaths = new Map<number, string>();
  #window: Wanted[] = [];
  readonly #open = new Set<OpenFile>();
  readonly #running = new Set<Promise<void>>();
  #failure: { error: unknown } | undefined;
  #bytes = 0;
  #files = 0;
  /** Many files are synced in one go at the end, where the machine can. */
  #syncAtEnd = false;
  readonly #folders: FileEntry[] = [];
  readonly #links: FileEntry[] = [];

  constructor(store: Store, order: RestoreOrder, there: boolean, totals: { files: number; bytes: number }) {
    this.#store = store;
    this.#order = order;
    this.#there = there;
    this.#totals = totals;
    const to = Buffer.from(order.to);
    const stage = `.lightkeeper-${idOf(order.record).slice(0, 8)}-${randomBytes(4).toString('hex')}`;
    this.#base = there ? to : Buffer.from(join(dirname(to.toString('latin1')), stage), 'latin1');
    this.#pool = new Pool(totals.bytes, { chunkerSeed: store.config.chunkerSeed });
  }

  async run(): Promise<Restored> {
    try {
      await this.#begin();
      await this.#write();
      await this.#finish();
      return { files: this.#files, bytes: this.#bytes, findings: this.#findings };
    } catch (error) {
      await Promise.all(this.#running);
      for (const { handle } of this.#open) await handle.close();
      // What was written so far is ours alone: in a directory that was there before it stays for a look.
      if (!this.#there) await removeTree('restore:abandon', this.#base.toString());
      throw error;
    } finally {
      await this.#pool.close();
    }
  }

  async #begin(): Promise<void> {
    this.#syncAtEnd = this.#totals.files > OPEN_FILES_MAX && (await canSyncFilesystem());
    const parent = dirname(this.#base.toString('latin1'));
    if (!this.#there) {
      await makeDir('restore:parent', Buffer.from(parent, 'latin1').toString());
      await effect({ label: 'restore:stage', op: 'mkdir', path: this.#base }, () => mkdir(this.#base, 0o700));
      return;
    }
    const path = join(this.#base.toString(), INCOMPLETE_MARK);
    const file = await createFile('restore:mark', path);
    await writeAt('restore:mark', path, file, Buffer.from('A restore to this directory has not ended.\n'), 0);
    await file.close();
  }

  async #write(): Promise<void> {
    const wants = wanted(this.#order);
    const made = new Set<BytePath>();
    for await (const entry of this.#store.files(this.#order.record.manifest.files)) {
      this.#order.signal?.throwIfAborted();
      const path = pathFromBytes(entry.path);
      if (!wants(path)) continue;
      await this.#makeParents(path, made);
      if (entry.type === FileType_Value.DIRECTORY) {
        if (!made.has(path)) await this.#mkdir(path);
        made.add(path);
        this.#folders.push(entry);
      } else if (entry.type === FileType_Value.REGULAR) await this.#beginFile(entry);
      else this.#links.push(entry);
    }
    await this.#dispatch();
    await this.#drain(0);
  }

  /** Folders above a file that was asked for by its path need not have been asked for themselves. */
  async #makeParents(path: BytePath, made: Set<BytePath>): Promise<void> {
    for (let slash = path.indexOf('/'); slash > 0; slash = path.indexOf('/', slash + 1)) {
      const parent = path.slice(0, slash);
      if (made.has(parent)) continue;
      made.add(parent);
      await this.#mkdir(parent);
    }
  }

  async #mkdir(path: BytePath): Promise<void> {
    const target = below(this.#base, path);
    await effect({ label: 'restore:mkdir', op: 'mkdir', path: target }, () => mkdir(target, 0o700)).catch(
      (error) => {
        throw this.#collision('directory', path, error);
      },
    );
  }

  #collision(what: string, path: BytePath, error: unknown): LightkeeperError {
    if (systemCode(error) !== 'EEXIST') return ioError('restore', pathText(path), error);
    return new LightkeeperError(
      'REFUSED',
      `Cannot restore the ${what} "${pathText(path)}": another name of the snapshot is the same there`,
      {
        hint: 'restore to a filesystem that tells upper from lower case and keeps names as they are, or part by part with --path',
        cause: error,
      },
    );
  }

  async #beginFile(entry: FileEntry): Promise<void> {
    const path = pathFromBytes(entry.path);
    const target = below(this.#base, path);
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    const create = () => open(target, flags, 0o600);
    const handle = await effect({ label: 'restore:create', op: 'create', path: target }, create).catch(
      (error) => {
        throw this.#collision('file', path, error);
      },
    );
    const file: OpenFile = { handle, entry, pending: 0, whole: false };
    this.#open.add(file);
    this.#files += 1;
    let position = 0;
    for await (const refs of this.#store.units(entry.content)) {
      // A list that lies must not make the restore go on for ever.
      if (position > entry.size || refs.some(({ span }) => span === 0)) break;
      for (const { id, span } of refs) {
        this.#window.push({ id, file, position });
        file.pending += 1;
        position += span;
      }
      if (this.#window.length >= WINDOW_UNITS) await this.#dispatch();
    }
    if (BigInt(position) !== entry.size) {
      const state = 'its units do not add up to its size';
      throw new LightkeeperError('DAMAGED', `Cannot restore "${pathText(path)}": ${state}`);
    }
    file.whole = true;
    if (file.pending === 0) this.#background(this.#settle(file));
    if (this.#open.size >= OPEN_FILES_MAX) {
      await this.#dispatch();
      await this.#drain(OPEN_FILES_MAX / 2);
    }
  }

  /** Has the units of the window written, each frame decoded once; goes on before they are. */
  async #dispatch(): Promise<void> {
    const units = this.#window;
    this.#window = [];
    const frames = new Map<string, { location: UnitLocation; wanted: { place: number; unit: Wanted }[] }>();
    for (let from = 0; from < units.length; from += LOCATE_BATCH) {
      const batch = units.slice(from, from + LOCATE_BATCH);
      const locations = await this.#store.index.locate(batch.map(({ id }) => id));
      for (const [i, unit] of batch.entries()) {
        const location = locations[i];
        if (location === undefined) throw await this.#missing(unit);
        const key = `${location.pack}:${location.frameOffset}`;
        const frame = frames.get(key) ?? { location, wanted: [] };
        frames.set(key, frame);
        frame.wanted.push({ place: location.place, unit });
      }
    }
    for (const { location, wanted: places } of frames.values()) {
      if (this.#failure !== undefined) throw this.#failure.error;
      this.#order.signal?.throwIfAborted();
      const lease = await this.#pool.lease();
      this.#background(this.#writeFrame(location, places, lease).finally(() => lease.release()));
    }
  }

  async #writeFrame(
    location: UnitLocation,
    places: { place: number; unit: Wanted }[],
    lease: Lease,
  ): Promise<void> {
    const { bytes } = await lease.hand.run({
      op: 'restore',
      path: await this.#packPath(location.pack),
      offset: location.frameOffset,
      length: location.frameLength,
      targets: targets(places),
    });
    this.#bytes += bytes;
    this.#order.onProgress?.('writing', this.#bytes, this.#totals.bytes);
    // Which files are complete now is decided at once: while one is settled, others go on.
    const complete: OpenFile[] = [];
    for (const { unit } of places) {
      unit.file.pending -= 1;
      if (unit.file.whole && unit.file.pending === 0) complete.push(unit.file);
    }
    for (const file of complete) await this.#settle(file);
  }

  /** Work that goes on beside; the first that fails ends the restore. */
  #background(work: Promise<void>): void {
    const running: Promise<void> = work
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  /** Waits until at most `open` files are open. */
  async #drain(open: number): Promise<void> {
    while (this.#running.size > 0 && (this.#open.size > open || open === 0))
      await Promise.race(this.#running);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #missing({ id, file }: Wanted): Promise<LightkeeperError> {
    await this.#store.suspectIndex();
    const name = pathText(pathFromBytes(file.entry.path));
    return new LightkeeperError(
      'DAMAGED',
      `Cannot restore "${name}": no pack has unit ${hex(id).slice(0, 16)}…`,
      {
        hint: 'run lightkeeper verify to see what is concerned, then lightkeeper repair; other points may be whole',
      },
    );
  }

  async #packPath(pack: number): Promise<string> {
    const known = this.#packPaths.get(pack);
    if (known !== undefined) return known;
    const record = await this.#store.index.pack(pack);
    if (record === undefined) throw new LightkeeperError('DAMAGED', 'Cannot restore: a pack is not known');
    const path = this.#store.packs.localPath(hex(record.packId));
    this.#packPaths.set(pack, path);
    return path;
  }

  /** Completes a file all of whose bytes are written. */
  async #settle(file: OpenFile): Promise<void> {
    const { handle, entry } = file;
    // The owner first: a change of owner takes set-user-id bits away.
    await this.#own(entry);
    await handle.chmod(entry.mode);
    const seconds = secondsOf(entry);
    await handle.utimes(seconds, seconds);
    if (!this.#syncAtEnd) {
      await effect({ label: 'restore:sync', op: 'sync', path: '' }, () => handle.sync());
    }
    await handle.close();
    this.#open.delete(file);
  }

  async #own(entry: FileEntry): Promise<void> {
    if (process.getuid?.() !== 0) return;
    await lchown(below(this.#base, pathFromBytes(entry.path)), entry.uid, entry.gid);
  }

  async #finish(): Promise<void> {
    // Hard links first: as long as there is no symlink below the folder, no link can lead out of it.
    const symlinks = this.#links.filter(({ type }) => type === FileType_Value.SYMLINK);
    const hardLinks = this.#links.filter(({ type }) => type !== FileType_Value.SYMLINK);
    for (const entry of [...hardLinks, ...symlinks]) await this.#link(entry);
    for (const entry of this.#folders.reverse()) await this.#settleFolder(entry);
    if (this.#syncAtEnd) await syncFilesystem('restore:sync-all', this.#base);
    const { root } = this.#order.record.manifest;
    if (this.#there) {
      await removeFile('restore:unmark', join(this.#base.toString(), INCOMPLETE_MARK));
      await syncDir('restore:publish', this.#base.toString());
      return;
    }
    if (root !== undefined) await this.#settleFolder(root);
    const to = Buffer.from(this.#order.to);
    await publishFolder(this.#base, to);
    this.#leftovers(await readdir(dirname(to.toString())));
  }

  async #link(entry: FileEntry): Promise<void> {
    const path = pathFromBytes(entry.path);
    const target = below(this.#base, path);
    try {
      if (entry.type === FileType_Value.SYMLINK) {
        await effect({ label: 'restore:symlink', op: 'create', path: target }, () =>
          symlink(Buffer.from(entry.target), target),
        );
        await this.#own(entry);
        const seconds = secondsOf(entry);
        await lutimes(target, seconds, seconds);
        return;
      }
      const first = below(this.#base, pathFromBytes(entry.target));
      await effect({ label: 'restore:link', op: 'create', path: target }, () => link(first, target));
      this.#files += 1;
    } catch (error) {
      if (systemCode(error) === 'ENOENT' && entry.type === FileType_Value.HARD_LINK) {
        this.#findings.push(
          warning('hard_link_skipped', pathText(path), {
            message: `its bytes are those of "${pathText(pathFromBytes(entry.target))}", which was not asked for`,
            hint: 'ask for both with --path',
          }),
        );
        return;
      }
      throw this.#collision('link', path, error);
    }
  }

  async #settleFolder(entry: FileEntry): Promise<void> {
    const target = entry.path.length === 0 ? this.#base : below(this.#base, pathFromBytes(entry.path));
    const folder = await open(target, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      if (process.getuid?.() === 0) await folder.chown(entry.uid, entry.gid);
      await folder.chmod(entry.mode);
      const seconds = secondsOf(entry);
      await folder.utimes(seconds, seconds);
      await effect({ label: 'restore:sync-folder', op: 'sync', path: target }, () => folder.sync());
    } finally {
      await folder.close();
    }
  }

  #leftovers(names: readonly string[]): void {
    const ours = basename(this.#base.toString());
    const prefix = ours.slice(0, ours.lastIndexOf('-') + 1);
    for (const name of names) {
      if (!name.startsWith(prefix) || name === ours) continue;
      this.#findings.push(
        warning('restore_leftover', name, {
          message: 'an interrupted restore of this snapshot left it behind',
          hint: 'remove it',
        }),
      );
    }
  }
}

/**
 * A time as Node wants it, to the microsecond; as text, because it takes a negative number for "now". Node cuts
 * what follows the microsecond, so half of one is added: a binary fraction is often a little short.
 */
function secondsOf({ mtimeNs }: FileEntry): string {
  const floor = mtimeNs < 0n && mtimeNs % 1000n !== 0n ? 1n : 0n;
  const micros = Number(mtimeNs / 1000n - floor);
  return String((micros + (micros < 0 ? -0.5 : 0.5)) / 1e6);
}

async function publishFolder(from: Buffer, to: Buffer): Promise<void> {
  await effect({ label: 'restore:rename', op: 'rename', path: from, to: to.toString() }, () =>
    rename(from, to),
  ).catch((error) => {
    throw ioError('restore to', to.toString(), error);
  });
  await syncDir('restore:publish', dirname(to.toString()));
}

function targets(wantedPlaces: readonly { place: number; unit: Wanted }[]): RestoreTargets {
  const places = new Uint32Array(wantedPlaces.length);
  const fds = new Int32Array(wantedPlaces.length);
  const positions = new Float64Array(wantedPlaces.length);
  for (const [i, { place, unit }] of wantedPlaces.entries()) {
    places[i] = place;
    fds[i] = unit.file.handle.fd;
    positions[i] = unit.position;
  }
  return { places, fds, positions };
}
