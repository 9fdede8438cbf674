import { lstat, mkdtemp, readdir, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import { errorFinding } from '../../core/finding.ts';
import { type NodeRef, readNodeRefs } from '../../core/list.ts';
import { parseFileList } from '../../core/manifest.ts';
import { pathFromBytes } from '../../core/path.ts';
import { hex, sameBytes, UNIT_ID_BYTES } from '../../core/unit.ts';
import type { FileEntry, ListRoot } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { type StoreConfig, UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { makeDir, removeTree } from '../../host/disk.ts';
import { DirectoryPackStore, isLeftover } from '../pack/directory-pack-store.ts';
import { type DecodedFrame, decodeVerified, FrameCache } from '../pack/frame.ts';
import type { PackReference } from '../pack/pack-store.ts';
import { WorkerPool } from '../workers/worker-pool.ts';
import { StoreChanges } from './changes.ts';
import { newConfig, readConfig, writeConfig } from './config.ts';
import { StoreHealth } from './health.ts';
import { reconcile, stampShards } from './index/reconcile.ts';
import { breakSeal, sealIndex } from './index/seal.ts';
import { StoreIndex } from './index/store-index.ts';
import type { UnitLocation } from './index/unit-locations.ts';
import { Ownership } from './owner.ts';
import { finishLeftovers } from './receive/leftover-packs.ts';
import { Reception } from './receive/reception.ts';

/** Size of the cache of decoded frames, in bytes. */
const FRAME_CACHE_BYTES = 12 * 1024 * 1024;
const INDEX_FOLDER = 'index';

/** Options of `Store.open`. */
export interface OpenOptions {
  /** Creates the store if there is none. */
  readonly create?: boolean;
  /** Opens the store without a lock and without changes, with a temporary index. */
  readonly readOnly?: boolean;
}

/** An open store: its packs, their index and, unless it is read-only, its ownership. */
export class Store {
  readonly root: string;
  readonly config: StoreConfig;
  readonly packs: DirectoryPackStore;
  readonly health = new StoreHealth();
  /** Packs that were received from peers. */
  readonly reception = new Reception();
  readonly changes = new StoreChanges();
  /** Threads for all jobs on this store. */
  readonly workers: WorkerPool;
  readonly readOnly: boolean;
  #index: StoreIndex;
  readonly #indexPath: string;
  readonly #owner: Ownership | undefined;
  readonly #frames = new FrameCache(FRAME_CACHE_BYTES);
  #readers = new Set<Promise<void>>();
  #writing: Promise<void> = Promise.resolve();

  private constructor(parts: {
    root: string;
    config: StoreConfig;
    packs: DirectoryPackStore;
    index: StoreIndex;
    indexPath: string;
    owner: Ownership | undefined;
  }) {
    this.root = parts.root;
    this.config = parts.config;
    this.packs = parts.packs;
    this.workers = new WorkerPool(parts.config.chunkerSeed);
    this.#index = parts.index;
    this.#indexPath = parts.indexPath;
    this.#owner = parts.owner;
    this.readOnly = parts.owner === undefined;
  }

  /**
   * Opens the store at `root`. NOT_FOUND if there is none, IN_USE if another process has it open, TOO_NEW or TOO_OLD
   * for another format, DAMAGED if its config cannot be read.
   */
  static async open(root: string, options: OpenOptions = {}): Promise<Store> {
    const read = await readConfig(root);
    if (read === undefined && options.create !== true) {
      throw new LightkeeperError('NOT_FOUND', `Cannot open the store "${root}": there is none`, {
        hint: (await isStateFolder(root))
          ? `it is a state folder: name it with --state, or the store in it with --store ${join(root, 'store')}`
          : 'check --store; a snapshot or "up" creates a new store',
      });
    }
    if (read === undefined) await refuseForeignFolder(root);
    if (options.readOnly !== true) await makeDir('store:create', root);
    const owner = options.readOnly === true ? undefined : await Ownership.take(root);
    try {
      // Another process may have created the store before this one owned it.
      return await Store.#openOwned(root, owner, read ?? (await readConfig(root)));
    } catch (error) {
      await owner?.release();
      throw error;
    }
  }

  static async #openOwned(
    root: string,
    owner: Ownership | undefined,
    read: Awaited<ReturnType<typeof readConfig>>,
  ): Promise<Store> {
    const config = read?.config ?? newConfig();
    if (read === undefined) await writeConfig(root, config);
    const packs = new DirectoryPackStore(root);
    if (owner !== undefined) {
      if (read !== undefined && read.bad.length === 0 && read.missing.length > 0)
        await writeConfig(root, config);
      await makeDir('store:tmp:create', join(root, 'tmp'));
      await clearTemporary(join(root, 'tmp'));
      await makeDir('store:packs:create', join(root, 'packs'));
    }
    const adopted = owner === undefined ? [] : await finishLeftovers(packs, config.storeId);
    const indexPath = owner === undefined ? await temporaryIndex() : join(root, INDEX_FOLDER);
    if (owner !== undefined) await breakSeal(indexPath);
    const index = await openIndex(indexPath, config.storeId, owner !== undefined);
    const store = new Store({ root, config, packs, index, indexPath, owner });
    store.reception.adopt(adopted);
    try {
      await reconcile(store).catch(async (error: unknown) => {
        if (!index.damaged || owner === undefined) throw error;
        await store.rebuildIndex();
      });
      store.health.findings.push(...configFindings(read?.bad ?? []));
    } catch (error) {
      await store.index.close();
      await packs.close();
      throw error;
    }
    return store;
  }

  get index(): StoreIndex {
    return this.#index;
  }

  /** Publishes the socket on which this process serves AgentService. */
  async listenOn(socket: string): Promise<void> {
    await this.#owner?.listenOn(socket);
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#readers, this.#writing]);
    await this.workers.close();
    await this.reception.release();
    try {
      if (!this.readOnly) await stampShards(this);
    } finally {
      await this.#index.close();
      await this.packs.close();
      if (this.readOnly) await removeTree('store:index:temporary', this.#indexPath);
      else if (this.#index.damaged) await removeTree('store:index:clear', this.#indexPath);
      else await sealIndex(this.#indexPath);
      await this.#owner?.release();
    }
  }

  /** Removes the index and rebuilds it from the packs. */
  async rebuildIndex(): Promise<void> {
    await this.#index.close();
    this.health.markStale();
    try {
      await removeTree('store:index:clear', this.#indexPath);
    } finally {
      this.#index = await openIndex(this.#indexPath, this.config.storeId, true);
    }
    this.health.reset();
    this.health.filterFindings(({ code }) => code === 'config_damaged');
    this.dropFrames();
    await reconcile(this);
  }

  /** Registers a reader, whose packs are not removed. Returns the function that ends it. */
  beginRead(): () => void {
    let end: () => void = () => {};
    const reader = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#readers.add(reader);
    return () => {
      this.#readers.delete(reader);
      end();
    };
  }

  /** Waits until the present readers have ended. Returns false if that takes longer than `timeoutMs`. */
  async readersGone(timeoutMs: number): Promise<boolean> {
    const ended = Promise.all(this.#readers).then(() => true);
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), timeoutMs);
    });
    const haveEnded = await Promise.race([ended, timeout]);
    clearTimeout(timer);
    return haveEnded;
  }

  /** Runs one change of the store at a time, in the order of the calls. */
  async exclusively<T>(run: () => Promise<T>): Promise<T> {
    if (this.readOnly) {
      throw new LightkeeperError('REFUSED', `Cannot change the store "${this.root}": it is open read-only`, {
        hint: 'make the store writable, or name another one',
      });
    }
    const before = this.#writing;
    let done: () => void = () => {};
    this.#writing = new Promise((resolve) => {
      done = resolve;
    });
    await before;
    try {
      if (this.#index.damaged) await this.rebuildIndex();
      else if (this.health.isStale) await this.#catchUp();
      return await run();
    } finally {
      done();
      this.changes.announce();
    }
  }

  async #catchUp(): Promise<void> {
    try {
      await reconcile(this);
    } catch (error) {
      this.health.markStale();
      throw error;
    }
  }

  /** Reports whether all units of a graph's newest snapshot are known to be stored. */
  // They are if no unit was ever found missing, or if all of them were looked up since.
  async isComplete(graphId: string, digest: Uint8Array): Promise<boolean> {
    if (!(await this.#index.local.isIncomplete())) return true;
    return (await this.#index.local.completeDigest(graphId))?.equals(digest) === true;
  }

  /** Marks the index as damaged after a needed unit was not in it, unless packs are known to be missing. */
  async suspectIndex(): Promise<void> {
    if (this.readOnly || this.health.lostPacks().length > 0 || this.health.unsoundShards > 0) return;
    if (!(await this.#index.local.isIncomplete())) this.#index.markDamaged();
  }

  /** Returns the place of a unit in a whole pack; undefined if there is none. */
  locate(id: Uint8Array): UnitLocation | undefined {
    const location = this.#index.locateSync(id);
    return location === undefined || !this.health.isWhole(location.pack) ? undefined : location;
  }

  /** Returns a reference with which threads read a pack. DAMAGED if the pack is not in the index. */
  async packReference(pack: number): Promise<PackReference> {
    const record = await this.#index.pack(pack);
    if (record === undefined)
      throw new LightkeeperError('DAMAGED', 'Cannot read a unit: its pack is not known');
    return this.packs.reference(hex(record.packId));
  }

  /** Returns the bytes of a unit, which must not be written to. DAMAGED if no pack contains it. */
  async readUnit(id: Uint8Array, kind: UnitKind_Value): Promise<Buffer> {
    // A condemned pack can be read: its file is removed only after its readers have ended.
    const location = this.#index.locateSync(id);
    if (location === undefined) {
      await this.suspectIndex();
      throw missingUnit(id);
    }
    if (location.kind !== kind) throw missingUnit(id);
    const frame = await this.#frame(location);
    const start = frame.starts[location.place];
    const length = frame.parsed.header.unitLengths[location.place];
    const found = frame.parsed.header.unitIds
      .subarray(location.place * UNIT_ID_BYTES)
      .subarray(0, UNIT_ID_BYTES);
    if (start === undefined || length === undefined || !sameBytes(found, id)) throw missingUnit(id);
    return frame.bytes.subarray(start, start + length);
  }

  async #frame(location: UnitLocation): Promise<DecodedFrame> {
    const key = `${location.pack}:${location.frameOffset}`;
    const known = this.#frames.get(key);
    if (known !== undefined) return known;
    const record = await this.#index.pack(location.pack);
    if (record === undefined)
      throw new LightkeeperError('DAMAGED', 'Cannot read a unit: its pack is not known');
    const { frameOffset, frameLength } = location;
    const bytes = await this.packs
      .get(hex(record.packId), frameOffset, frameLength)
      .catch((error: unknown) => {
        throw error instanceof LightkeeperError && error.code === 'NOT_FOUND'
          ? new LightkeeperError('DAMAGED', error.message, { hint: error.hint, cause: error })
          : error;
      });
    const frame = decodeVerified(bytes);
    this.#frames.put(key, frame);
    return frame;
  }

  /** Clears the cache of decoded frames. To be called when packs are removed. */
  // Their numbers may be given to other packs.
  dropFrames(): void {
    this.#frames.clear();
  }

  /** Yields the units of a file in order, one list piece at a time. */
  async *units(root: ListRoot | undefined): AsyncIterable<readonly NodeRef[]> {
    if (root === undefined) return;
    yield* this.#walk(root.entries, root.depth);
  }

  async *#walk(entries: Uint8Array, depth: number): AsyncIterable<readonly NodeRef[]> {
    const refs = readNodeRefs(entries);
    if (depth === 0) {
      yield refs;
      return;
    }
    for (const { id } of refs) {
      const piece = await this.readUnit(id, UnitKind_Value.LIST);
      if (piece.length === 0)
        throw new LightkeeperError('DAMAGED', 'Cannot read a list: a piece of it is empty');
      yield* this.#walk(piece, depth - 1);
    }
  }

  /** Yields the files of a snapshot in the order of their paths. */
  async *files(root: ListRoot | undefined): AsyncIterable<FileEntry> {
    if (root === undefined) return;
    let last = '';
    for await (const refs of this.#walk(root.entries, Math.max(0, root.depth - 1))) {
      for (const { id } of refs) {
        for (const file of parseFileList(await this.readUnit(id, UnitKind_Value.FILES), last)) {
          last = pathFromBytes(file.path);
          yield file;
        }
      }
    }
  }
}

/** Returns the error of a unit that no pack contains. */
export function missingUnit(id: Uint8Array): LightkeeperError {
  return new LightkeeperError('DAMAGED', `Cannot read unit ${hex(id).slice(0, 16)}…: no pack contains it`, {
    hint: 'run lightkeeper verify to see which snapshots need it, then lightkeeper repair',
  });
}

/** Removes what a killed process left in the folder of unpublished packs, except received ones. */
async function clearTemporary(folder: string): Promise<void> {
  for (const name of await readdir(folder))
    if (!isLeftover(name)) await removeTree('store:tmp:clear', join(folder, name));
}

/** Creates a folder for the index of a store that is open read-only. */
async function temporaryIndex(): Promise<string> {
  return await mkdtemp(join(tmpdir(), 'lightkeeper-index-')).catch((error: unknown) => {
    throw new LightkeeperError('IO', `Cannot create an index in "${tmpdir()}": ${String(error)}`, {
      hint: 'set TMPDIR to a folder that this user can write to',
      cause: error,
    });
  });
}

async function openIndex(path: string, storeId: Uint8Array, mayRebuild: boolean): Promise<StoreIndex> {
  try {
    return await StoreIndex.open(path, storeId);
  } catch (error) {
    if (!mayRebuild || !(error instanceof LightkeeperError) || error.code !== 'DAMAGED') throw error;
    await removeTree('store:index:clear', path);
    return await StoreIndex.open(path, storeId).catch((second: unknown) => {
      // A new index cannot be damaged, so the cause is the disk.
      const isDamaged = second instanceof LightkeeperError && second.code === 'DAMAGED';
      const cause = isDamaged && second.cause instanceof Error ? second.cause.cause : second;
      throw ioError('open', path, cause);
    });
  }
}

function configFindings(bad: readonly string[]): Finding[] {
  return bad.map((name) =>
    errorFinding('config_damaged', name, {
      message: 'one copy of the store config is missing or damaged; the other copy is used',
      hint: 'run lightkeeper repair',
    }),
  );
}

/** Reports whether a folder is the state folder of an agent, with a store in it. */
async function isStateFolder(folder: string): Promise<boolean> {
  // A damaged config there is not what was asked for.
  return (await readConfig(join(folder, 'store')).catch(() => undefined)) !== undefined;
}

/** Throws if a store cannot be created at `root`: it is no folder, or it holds other files. */
async function refuseForeignFolder(root: string): Promise<void> {
  let names: string[];
  try {
    const link = (await lstat(root)).isSymbolicLink();
    const found = await stat(root).catch((error: unknown) => {
      if (link && systemCode(error) === 'ENOENT') return undefined;
      throw error;
    });
    if (found?.isDirectory() !== true) {
      const state = found === undefined ? 'it is a symlink to a missing target' : 'it is not a folder';
      throw new LightkeeperError('INVALID_ARGUMENT', `Cannot create a store in "${root}": ${state}`, {
        hint: 'name another path with --store',
      });
    }
    names = await readdir(root);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return;
    throw ioError('open', root, error);
  }
  // Another process has created the store since its config was looked for.
  if (names.includes('config') || names.includes('config.copy')) return;
  if (names.includes('packs')) {
    throw new LightkeeperError(
      'DAMAGED',
      `Cannot open the store "${root}": both copies of its config are missing`,
      {
        hint: 'run lightkeeper repair: it restores the config from the packs',
      },
    );
  }
  const foreign = names.filter(
    (name) => !['owner', 'tmp', 'index', 'lost+found'].includes(name) && !name.startsWith('.new-'),
  );
  if (foreign.length > 0) {
    throw new LightkeeperError('REFUSED', `Cannot create a store in "${root}": it holds other files`, {
      hint: 'name an empty or absent folder with --store',
    });
  }
}
