import { randomBytes } from 'node:crypto';
import { constants, statSync } from 'node:fs';
import { copyFile, type FileHandle, link, lstat, open, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import {
  createFile,
  effect,
  makeDir,
  removeFile,
  renameFile,
  syncDir,
  syncFile,
  writeAt,
} from '../../host/disk.ts';
import type { PackHead, PackReference, PackSink, PrunablePackStore } from './pack-store.ts';

const PACK_NAME = /^[0-9a-f]{64}\.pack$/;
/** Begin of the names of received packs that are not published. */
const RECEIVED_PREFIX = 'received-';
/** Most packs whose files stay open for readers. */
const OPEN_FILES_MAX = 32;

/** Links a file to a second name, or copies it where the filesystem has no hard links. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EMLINK', 'ENOSYS'].includes(systemCode(error) ?? ''))
      throw error;
    await copyFile(from, to, constants.COPYFILE_EXCL);
    const copy = await open(to, 'r');
    await copy.sync().finally(() => copy.close());
  }
}

/** Reports whether a name in the folder of unpublished packs is that of a received one. */
export function isLeftover(name: string): boolean {
  return name.startsWith(RECEIVED_PREFIX) && name.endsWith('.pack');
}

async function readAll(
  file: FileHandle,
  path: string,
  { offset, length }: { offset: number; length: number },
): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done).catch((error) => {
      throw ioError('read', path, error);
    });
    if (bytesRead === 0) {
      throw new LightkeeperError(
        'DAMAGED',
        `Cannot read pack "${basename(path, '.pack')}": it is truncated`,
        {
          hint: 'run lightkeeper verify, then lightkeeper repair',
        },
      );
    }
    done += bytesRead;
  }
  return bytes;
}

async function sameFile(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([a, b].map((path) => lstat(path).catch(() => undefined)));
  return one !== undefined && one.ino === other?.ino && one.dev === other.dev;
}

/** A pack store in a directory: `ROOT/packs/ab/<id>.pack`. A new pack is written to `ROOT/tmp` first. */
export class DirectoryPackStore implements PrunablePackStore {
  readonly #root: string;
  readonly #files = new Map<string, Promise<FileHandle>>();
  readonly #shards = new Set<string>();

  constructor(root: string) {
    this.#root = root;
  }

  reference(packId: string): PackReference {
    return { file: this.#path(packId) };
  }

  #path(packId: string): string {
    return join(this.#root, 'packs', packId.slice(0, 2), `${packId}.pack`);
  }

  #shardPath(shard: string): string {
    return join(this.#root, 'packs', shard);
  }

  async create(label: string, { received = false } = {}): Promise<PackSink> {
    const name = `${received ? RECEIVED_PREFIX : ''}${randomBytes(12).toString('hex')}.pack`;
    const path = join(this.#root, 'tmp', name);
    return this.#sink(path, await createFile(label, path), 0);
  }

  /** Lists the received packs that no process has published. */
  async leftovers(): Promise<{ name: string; reference: PackReference }[]> {
    const folder = join(this.#root, 'tmp');
    const names = (await this.#names(folder)).filter(isLeftover).sort();
    return names.map((name) => ({ name, reference: { file: join(folder, name) } }));
  }

  /** Goes on with a leftover pack after its first `length` bytes. Cuts off the others. */
  async resume(label: string, name: string, length: number): Promise<PackSink> {
    const path = join(this.#root, 'tmp', name);
    const file = await open(path, 'r+').catch((error: unknown) => {
      throw ioError('open', path, error);
    });
    const sink = this.#sink(path, file, length);
    try {
      await effect({ label, op: 'other', path }, () => file.truncate(length));
    } catch (error) {
      await sink.release();
      throw ioError('cut', path, error);
    }
    return sink;
  }

  #sink(path: string, file: FileHandle, start: number): PackSink {
    let length = start;
    return {
      append: async (effectLabel, bytes) => {
        const at = length;
        length += bytes.length;
        await writeAt(effectLabel, path, file, bytes, at);
      },
      publish: async (effectLabel, packId) => {
        await syncFile(effectLabel, path, file);
        await file.close();
        return await this.#publish(packId, path, length);
      },
      read: (offset, wanted) => readAll(file, path, { offset, length: wanted }),
      release: async () => {
        await file.close().catch(() => {});
      },
      discard: async () => {
        // What cannot be closed or removed now is removed when the store is next opened.
        await file.close().catch(() => {});
        await removeFile('store:pack:discard', path).catch(() => {});
      },
    };
  }

  /** Moves a written file to its name. Returns false if a pack of that name and size existed. */
  async #publish(packId: string, from: string, size: number): Promise<boolean> {
    const shard = packId.slice(0, 2);
    if (!this.#shards.has(shard)) {
      await makeDir('store:shard:create', this.#shardPath(shard));
      this.#shards.add(shard);
    }
    const existing = await this.head(packId);
    // A pack of that name holds the same bytes or is damaged: either way the new one replaces it.
    await this.#closeFile(packId);
    await renameFile('store:pack:rename', from, this.#path(packId));
    await syncDir('store:pack:publish', this.#shardPath(shard));
    return existing?.size !== size;
  }

  async get(packId: string, offset: number, length: number): Promise<Buffer> {
    return await readAll(await this.#handle(packId), this.#path(packId), { offset, length });
  }

  async #handle(packId: string): Promise<FileHandle> {
    let opening = this.#files.get(packId);
    if (opening === undefined) {
      opening = open(this.#path(packId), 'r');
      this.#files.set(packId, opening);
      await this.#closeOldest();
    } else {
      this.#files.delete(packId);
      this.#files.set(packId, opening);
    }
    try {
      return await opening;
    } catch (error) {
      this.#files.delete(packId);
      if (systemCode(error) === 'ENOENT') {
        throw new LightkeeperError('NOT_FOUND', `Cannot read pack "${packId}": it is missing`, {
          hint: 'bring the file back, or run lightkeeper repair',
          cause: error,
        });
      }
      throw ioError('open', this.#path(packId), error);
    }
  }

  async #closeOldest(): Promise<void> {
    for (const [packId] of this.#files) {
      if (this.#files.size <= OPEN_FILES_MAX) return;
      await this.#closeFile(packId);
    }
  }

  async #closeFile(packId: string): Promise<void> {
    const opening = this.#files.get(packId);
    this.#files.delete(packId);
    // The reader that opened the file has received the error.
    const file = await opening?.catch(() => undefined);
    await file?.close();
  }

  async head(packId: string): Promise<PackHead | undefined> {
    try {
      const { size } = await lstat(this.#path(packId));
      return { size };
    } catch (error) {
      if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined;
      throw ioError('inspect', this.#path(packId), error);
    }
  }

  async *list(shard?: string): AsyncIterable<{ packId: string; size: number }> {
    const shards = shard === undefined ? await this.#names(join(this.#root, 'packs')) : [shard];
    for (const name of shards.sort()) {
      if (!/^[0-9a-f]{2}$/.test(name)) continue;
      const files = await this.#names(this.#shardPath(name));
      for (const file of files.sort()) {
        if (!PACK_NAME.test(file) || !file.startsWith(name)) continue;
        const packId = file.slice(0, 64);
        const head = await this.head(packId);
        if (head !== undefined) yield { packId, size: head.size };
      }
    }
  }

  async #names(path: string): Promise<string[]> {
    try {
      return await readdir(path);
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return [];
      throw ioError('list', path, error);
    }
  }

  async shardStamp(shard: string): Promise<string | undefined> {
    try {
      // Opening a store reads 256 stamps; by way of the thread pool they would dominate its duration.
      const found = statSync(this.#shardPath(shard), { bigint: true, throwIfNoEntry: false });
      return found === undefined ? 'none' : `${found.mtimeNs}:${found.ino}`;
    } catch (error) {
      throw ioError('inspect', this.#shardPath(shard), error);
    }
  }

  /** Makes removals from a shard durable. A shard without a folder has none. */
  async #syncShard(label: string, shard: string): Promise<void> {
    const path = this.#shardPath(shard);
    if (statSync(path, { throwIfNoEntry: false }) !== undefined) await syncDir(label, path);
  }

  async delete(packIds: readonly string[]): Promise<void> {
    for (const packId of packIds) {
      await this.#closeFile(packId);
      await removeFile('store:pack:remove', this.#path(packId));
    }
    for (const shard of new Set(packIds.map((packId) => packId.slice(0, 2))))
      await this.#syncShard('store:pack:removed', shard);
  }

  async quarantine(packId: string): Promise<string> {
    const folder = join(this.#root, 'quarantine');
    await makeDir('store:quarantine:create', folder);
    const from = this.#path(packId);
    for (let n = 0; ; n++) {
      const to = join(folder, n === 0 ? `${packId}.pack` : `${packId}.${n}.pack`);
      if (await sameFile(from, to)) return to;
      try {
        await effect({ label: 'store:pack:quarantine', op: 'link', path: from, to }, () =>
          linkOrCopy(from, to),
        );
      } catch (error) {
        if (systemCode(error) === 'EEXIST') continue;
        throw ioError('quarantine', to, error);
      }
      await syncDir('store:quarantine:sync', folder);
      return to;
    }
  }

  async evict(packId: string): Promise<void> {
    await this.#closeFile(packId);
    await removeFile('store:pack:evict', this.#path(packId));
    await this.#syncShard('store:pack:evicted', packId.slice(0, 2));
  }

  async close(): Promise<void> {
    for (const packId of [...this.#files.keys()]) await this.#closeFile(packId);
  }
}
