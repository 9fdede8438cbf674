import { constants } from 'node:fs';
import { type FileHandle, lchown, link, lutimes, mkdir, open, symlink } from 'node:fs/promises';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { type BytePath, bytesText, pathFromBytes, pathText } from '../../core/path.ts';
import { hex } from '../../core/unit.ts';
import type { FileEntry, Manifest } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { FileType_Value, type Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { effect } from '../../host/disk.ts';
import { canSyncFilesystem, syncFilesystem } from '../../host/sync-filesystem.ts';
import type { PackReference } from '../pack/pack-store.ts';
import type { UnitLocation } from '../store/index/unit-locations.ts';
import type { Store } from '../store/store.ts';
import { below } from '../watch/names.ts';
import type { Slot, WorkerGroup } from '../workers/worker-group.ts';
import type { RestoreTargets } from '../workers/write-task.ts';
import { type Owner, OwnerSetter } from './owner-setter.ts';

/** Units that are located together and written frame by frame. */
const WINDOW_UNITS = 8192;

/** Most files that are open for writing at once. */
const OPEN_FILES_MAX = 128;
/** Units per query of the index. */
const LOCATE_BATCH = 1024;

/** Files and bytes of a restore. */
export interface Totals {
  readonly files: number;
  readonly bytes: number;
}

/** Order for `writeTree`. */
export interface WriteOrder {
  readonly manifest: Manifest;
  /** Folder that exists and that nothing else writes to. */
  readonly base: Buffer;
  readonly wants: (path: BytePath) => boolean;
  readonly totals: Totals;
  readonly owner?: Owner;
  readonly signal?: AbortSignal;
  readonly onProgress?: (phase: string, doneBytes: number, totalBytes: number) => void;
}

/** Result of `writeTree`. */
export interface Written extends Totals {
  readonly findings: readonly Finding[];
}

/**
 * Writes the files of a snapshot below a folder.
 *
 * Every byte is read back and hashed, and all is synced when this returns. The caller sets the metadata of the
 * folder itself.
 */
export async function writeTree(store: Store, order: WriteOrder): Promise<Written> {
  return await new TreeWriter(store, order).run();
}

interface OpenFile {
  readonly handle: FileHandle;
  readonly entry: FileEntry;
  /** Writes that are planned and not done. */
  pending: number;
  /** Whether all writes of the file are planned. */
  isEnumerated: boolean;
}

/** One unit to write, and where. */
interface UnitWrite {
  readonly id: Buffer;
  readonly file: OpenFile;
  readonly position: number;
}

class TreeWriter {
  readonly #store: Store;
  readonly #order: WriteOrder;
  readonly #owners: OwnerSetter;
  readonly #base: Buffer;
  readonly #workers: WorkerGroup;
  readonly #findings: Finding[] = [];
  readonly #references = new Map<number, PackReference>();
  #window: UnitWrite[] = [];
  readonly #open = new Set<OpenFile>();
  readonly #running = new Set<Promise<void>>();
  #failure: { error: unknown } | undefined;
  #bytes = 0;
  #files = 0;
  /** Whether the filesystem is synced once at the end, instead of each file. */
  #syncAtEnd = false;
  readonly #folders: FileEntry[] = [];
  readonly #links: FileEntry[] = [];

  constructor(store: Store, order: WriteOrder) {
    this.#store = store;
    this.#order = order;
    this.#owners = new OwnerSetter(order.owner);
    this.#base = order.base;
    this.#workers = store.workers.open(order.totals.bytes, { gentle: false });
  }

  async run(): Promise<Written> {
    try {
      this.#syncAtEnd = this.#order.totals.files > OPEN_FILES_MAX && (await canSyncFilesystem());
      await this.#write();
      await this.#finish();
      return { files: this.#files, bytes: this.#bytes, findings: this.#findings };
    } catch (error) {
      await Promise.all(this.#running);
      for (const { handle } of this.#open) await handle.close();
      throw error;
    } finally {
      await this.#workers.close();
    }
  }

  async #write(): Promise<void> {
    const { manifest, wants } = this.#order;
    const made = new Set<BytePath>();
    for await (const entry of this.#store.files(manifest.files)) {
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

  // A pattern may match a file and not the folders above it.
  /** Creates the folders above a path. */
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
    const file: OpenFile = { handle, entry, pending: 0, isEnumerated: false };
    this.#open.add(file);
    this.#files += 1;
    let position = 0;
    for await (const refs of this.#store.units(entry.content)) {
      // A false list must not make the restore endless.
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
    file.isEnumerated = true;
    if (file.pending === 0) this.#runInBackground(this.#completeFile(file));
    if (this.#open.size >= OPEN_FILES_MAX) {
      await this.#dispatch();
      await this.#drain(OPEN_FILES_MAX / 2);
    }
  }

  // Each frame is decoded once.
  /** Starts the writes of the units in the window. */
  async #dispatch(): Promise<void> {
    const units = this.#window;
    this.#window = [];
    const frames = new Map<
      string,
      { location: UnitLocation; wanted: { place: number; unit: UnitWrite }[] }
    >();
    for (let from = 0; from < units.length; from += LOCATE_BATCH) {
      const batch = units.slice(from, from + LOCATE_BATCH);
      const locations = await this.#store.index.locate(batch.map(({ id }) => id));
      for (const [i, unit] of batch.entries()) {
        const location = locations[i];
        if (location === undefined) throw await this.#missingUnit(unit);
        const key = `${location.pack}:${location.frameOffset}`;
        const frame = frames.get(key) ?? { location, wanted: [] };
        frames.set(key, frame);
        frame.wanted.push({ place: location.place, unit });
      }
    }
    for (const { location, wanted: places } of frames.values()) {
      if (this.#failure !== undefined) throw this.#failure.error;
      this.#order.signal?.throwIfAborted();
      const slot = await this.#workers.takeSlot();
      this.#runInBackground(this.#writeFrame(location, places, slot).finally(() => slot.release()));
    }
  }

  async #writeFrame(
    location: UnitLocation,
    places: { place: number; unit: UnitWrite }[],
    slot: Slot,
  ): Promise<void> {
    const { bytes } = await slot.run({
      op: 'write-units',
      reference: await this.#reference(location.pack),
      offset: location.frameOffset,
      length: location.frameLength,
      targets: targets(places),
    });
    this.#bytes += bytes;
    this.#order.onProgress?.('writing', this.#bytes, this.#order.totals.bytes);
    // Decided before the first await: other writes go on while a file is completed.
    const complete: OpenFile[] = [];
    for (const { unit } of places) {
      unit.file.pending -= 1;
      if (unit.file.isEnumerated && unit.file.pending === 0) complete.push(unit.file);
    }
    for (const file of complete) await this.#completeFile(file);
  }

  /** Runs work in the background. The first failure ends the restore. */
  #runInBackground(work: Promise<void>): void {
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

  async #missingUnit({ id, file }: UnitWrite): Promise<LightkeeperError> {
    await this.#store.suspectIndex();
    const name = bytesText(file.entry.path);
    return new LightkeeperError(
      'DAMAGED',
      `Cannot restore "${name}": no pack has unit ${hex(id).slice(0, 16)}…`,
      {
        hint: 'run lightkeeper verify to see what is concerned, then lightkeeper repair; other points may be whole',
      },
    );
  }

  async #reference(pack: number): Promise<PackReference> {
    const known = this.#references.get(pack);
    if (known !== undefined) return known;
    const reference = await this.#store.packReference(pack);
    this.#references.set(pack, reference);
    return reference;
  }

  /** Sets the metadata of a written file, syncs and closes it. */
  async #completeFile(file: OpenFile): Promise<void> {
    const { handle, entry } = file;
    // The owner comes first: a change of owner clears set-user-id bits.
    const mode = await this.#setOwner(entry);
    await handle.chmod(mode);
    const seconds = utimesText(entry);
    await handle.utimes(seconds, seconds);
    if (!this.#syncAtEnd) {
      await effect({ label: 'restore:sync', op: 'sync', path: '' }, () => handle.sync());
    }
    await handle.close();
    this.#open.delete(file);
  }

  async #setOwner(entry: FileEntry): Promise<number> {
    const path = pathFromBytes(entry.path);
    return await this.#owners.set(path, entry, (uid, gid) => lchown(below(this.#base, path), uid, gid));
  }

  async #finish(): Promise<void> {
    // Hard links first: as long as there is no symlink below the folder, no link can lead out of it.
    const symlinks = this.#links.filter(({ type }) => type === FileType_Value.SYMLINK);
    const hardLinks = this.#links.filter(({ type }) => type !== FileType_Value.SYMLINK);
    for (const entry of [...hardLinks, ...symlinks]) await this.#createLink(entry);
    for (const entry of this.#folders.reverse()) await completeFolder(this.#base, entry, this.#owners);
    this.#findings.push(...this.#owners.findings());
    if (this.#syncAtEnd) await syncFilesystem('restore:sync-all', this.#base);
  }

  async #createLink(entry: FileEntry): Promise<void> {
    const path = pathFromBytes(entry.path);
    const target = below(this.#base, path);
    try {
      if (entry.type === FileType_Value.SYMLINK) {
        await effect({ label: 'restore:symlink', op: 'create', path: target }, () =>
          symlink(Buffer.from(entry.target), target),
        );
        await this.#setOwner(entry);
        const seconds = utimesText(entry);
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
            message: `its bytes are those of "${bytesText(entry.target)}", which was not asked for`,
            hint: 'ask for both with --path',
          }),
        );
        return;
      }
      throw this.#collision('link', path, error);
    }
  }
}

/** Sets owner, mode and times of `base` or a folder below it, and syncs them. */
export async function completeFolder(base: Buffer, entry: FileEntry, owners: OwnerSetter): Promise<void> {
  const target = entry.path.length === 0 ? base : below(base, pathFromBytes(entry.path));
  const folder = await open(target, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const path = pathFromBytes(entry.path);
    await folder.chmod(await owners.set(path, entry, (uid, gid) => folder.chown(uid, gid)));
    const seconds = utimesText(entry);
    await folder.utimes(seconds, seconds);
    await effect({ label: 'restore:sync-folder', op: 'sync', path: target }, () => folder.sync());
  } finally {
    await folder.close();
  }
}

const MICROSECOND_NS = 1000n;
const SECOND_NS = 1_000_000_000n;

/** Returns a time in nanoseconds, cut to a multiple of `unitNs`. */
function cutTime(ns: bigint, unitNs: bigint): bigint {
  const rest = ns % unitNs;
  return ns - (rest < 0n ? rest + unitNs : rest);
}

/** Reports whether a restored file has this modification time, where the snapshot has `storedNs`. */
// A restore sets microseconds, and some filesystems keep whole seconds.
export function isRestoredTime(mtimeNs: bigint, storedNs: bigint): boolean {
  return [MICROSECOND_NS, SECOND_NS].some((unitNs) => mtimeNs === cutTime(storedNs, unitNs));
}

// It is text because Node takes a negative number for "now". Node cuts what follows the microsecond, so half of
// one is added: a binary fraction is often a little short.
/** Formats a time as seconds for Node's `utimes`, to the microsecond. */
export function utimesText({ mtimeNs }: { readonly mtimeNs: bigint }): string {
  const micros = Number(cutTime(mtimeNs, MICROSECOND_NS) / MICROSECOND_NS);
  return String((micros + (micros < 0 ? -0.5 : 0.5)) / 1e6);
}

function targets(wantedPlaces: readonly { place: number; unit: UnitWrite }[]): RestoreTargets {
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
