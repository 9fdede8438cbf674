import type { Level } from 'level';
import { ioCode, ioError, LightkeeperError, systemCode } from '../../../core/errors.ts';
import { effect } from '../../../host/disk.ts';

/** LevelDB with bytes as keys and values. */
export type Db = Level<Buffer, Buffer>;

/** A range of keys to iterate over. */
export interface Range {
  readonly gte?: Buffer;
  readonly lt?: Buffer;
  readonly reverse?: boolean;
  readonly limit?: number;
}

const CHECK_BYTES = 4;
const FNV_BASIS = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

/** Returns the FNV-1a hash of a key and its value. */
// Every step of it is invertible, so it detects any change of a single byte.
function checksum(key: Uint8Array, value: Uint8Array): number {
  let hash = FNV_BASIS;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ (key[i] as number), FNV_PRIME);
  for (let i = 0; i < value.length; i++) hash = Math.imul(hash ^ (value[i] as number), FNV_PRIME);
  return hash >>> 0;
}

/** Reports whether LevelDB failed because its files are damaged, missing or unreadable. */
// A full disk or a missing permission is no damage.
export function isDamage(error: unknown): boolean {
  const code = systemCode(error);
  if (code !== 'LEVEL_IO_ERROR') return code === 'LEVEL_CORRUPTION' || code === 'LEVEL_INVALID_ARGUMENT';
  const io = ioCode(error);
  return io === undefined || io === 'EIO';
}

/** A batch of writes that become durable together, each value with a checksum. */
export class CheckedBatch {
  readonly #batch: Extract<ReturnType<Db['batch']>, { write: unknown }>;

  constructor(db: Db) {
    this.#batch = db.batch() as Extract<ReturnType<Db['batch']>, { write: unknown }>;
  }

  get length(): number {
    return this.#batch.length;
  }

  put(key: Buffer, value: Buffer): this {
    const sealed = Buffer.allocUnsafe(value.length + CHECK_BYTES);
    sealed.set(value);
    sealed.writeUInt32LE(checksum(key, value), value.length);
    this.#batch.put(key, sealed);
    return this;
  }

  del(key: Buffer): this {
    this.#batch.del(key);
    return this;
  }

  async write(options: { sync?: boolean } = {}): Promise<void> {
    await this.#batch.write(options).catch((error: unknown) => {
      throw ioError('write', 'the index', error);
    });
  }
}

/** Writes a batch as a labelled effect. With `sync` it survives a power loss when this returns. */
export async function writeBatch(
  label: string,
  batch: CheckedBatch,
  options: { sync?: boolean } = {},
): Promise<void> {
  await effect({ label, op: 'other', path: 'index' }, () => batch.write(options));
}

/** A LevelDB database with a checksum of each entry, verified at every read. */
// LevelDB has checksums too, but does not verify them when it reads; and an entry that points to another unit would
// lead to the removal of live data.
export class CheckedLevel {
  /** Whether a read found damage. The owner of the store then rebuilds the index. */
  damaged = false;
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  batch(): CheckedBatch {
    return new CheckedBatch(this.#db);
  }

  async close(): Promise<void> {
    await this.#db.close();
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    return this.#verified(key, await this.#db.get(key).catch((error: unknown) => this.#fail(error)));
  }

  async getMany(keys: Buffer[]): Promise<(Buffer | undefined)[]> {
    const values = await this.#db.getMany(keys).catch((error: unknown) => this.#fail(error));
    return values.map((value, i) => this.#verified(keys[i] as Buffer, value));
  }

  getSync(key: Buffer): Buffer | undefined {
    let value: Buffer | undefined;
    try {
      value = this.#db.getSync(key);
    } catch (error) {
      this.#fail(error);
    }
    return this.#verified(key, value);
  }

  async *keys(range: Range): AsyncGenerator<Buffer> {
    for await (const [key] of this.iterator(range)) yield key;
  }

  async keyList(range: Range): Promise<Buffer[]> {
    const found: Buffer[] = [];
    for await (const key of this.keys(range)) found.push(key);
    return found;
  }

  async *values(range: Range): AsyncGenerator<Buffer> {
    for await (const [, value] of this.iterator(range)) yield value;
  }

  async *iterator(range: Range): AsyncGenerator<[key: Buffer, value: Buffer]> {
    const entries = this.#db.iterator({ ...range });
    try {
      for (;;) {
        const entry = await entries.next().catch((error: unknown) => this.#fail(error));
        if (entry === undefined) return;
        const [key, sealed] = entry;
        const value = this.#verified(key, sealed);
        if (value !== undefined) yield [key, value];
      }
    } finally {
      await entries.close();
    }
  }

  /** Verifies a stored value. Returns it without its checksum. */
  #verified(key: Buffer, sealed: Buffer | undefined): Buffer | undefined {
    if (sealed === undefined) return undefined;
    const end = sealed.length - CHECK_BYTES;
    const value = sealed.subarray(0, Math.max(0, end));
    if (end < 0 || sealed.readUInt32LE(end) !== checksum(key, value))
      this.#damage('a checksum does not match');
    return value;
  }

  #fail(error: unknown): never {
    if (!isDamage(error)) throw ioError('read', 'the index', error);
    this.#damage(String(error), error);
  }

  #damage(state: string, cause?: unknown): never {
    this.damaged = true;
    throw new LightkeeperError('DAMAGED', `Cannot read the index: ${state}`, {
      hint: 'run it again: that rebuilds the index from the packs',
      cause,
    });
  }
}
