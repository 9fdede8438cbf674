import { LightkeeperError } from '../../core/errors.ts';
import type { PackHead, PackReference, PackSink, PrunablePackStore } from './pack-store.ts';

/** A pack store in memory, for tests and for work that ends with the process. Threads share its packs. */
export class MemoryPackStore implements PrunablePackStore {
  readonly #packs = new Map<string, SharedArrayBuffer>();
  readonly #quarantined = new Map<string, SharedArrayBuffer>();
  /** Changes of each shard since the store was made. */
  readonly #changes = new Map<string, number>();

  create(_label: string): Promise<PackSink> {
    const parts: Uint8Array[] = [];
    const append = (_: string, bytes: Uint8Array) => {
      parts.push(Uint8Array.from(bytes));
      return Promise.resolve();
    };
    const publish = (_: string, packId: string) => {
      const bytes = Buffer.concat(parts);
      const existing = this.#packs.get(packId);
      // A pack of that name holds the same bytes or is damaged: either way the new one replaces it.
      const memory = new SharedArrayBuffer(bytes.length);
      new Uint8Array(memory).set(bytes);
      this.#packs.set(packId, memory);
      this.#countChange(packId);
      return Promise.resolve(existing?.byteLength !== bytes.length);
    };
    const read = (offset: number, length: number) => {
      const bytes = Buffer.concat(parts).subarray(offset, offset + length);
      if (bytes.length === length) return Promise.resolve(Buffer.from(bytes));
      return Promise.reject(new LightkeeperError('DAMAGED', 'Cannot read a new pack: it is truncated'));
    };
    const discard = () => {
      parts.length = 0;
      return Promise.resolve();
    };
    // Nothing outlives this process, so what is left is dropped.
    return Promise.resolve({ append, publish, read, release: discard, discard });
  }

  get(packId: string, offset: number, length: number): Promise<Buffer> {
    const memory = this.#packs.get(packId);
    if (memory === undefined) {
      return Promise.reject(
        new LightkeeperError('NOT_FOUND', `Cannot read pack "${packId}": it is missing`, {
          hint: 'run lightkeeper repair',
        }),
      );
    }
    if (offset + length > memory.byteLength) {
      return Promise.reject(
        new LightkeeperError('DAMAGED', `Cannot read pack "${packId}": it is truncated`, {
          hint: 'run lightkeeper verify, then lightkeeper repair',
        }),
      );
    }
    return Promise.resolve(Buffer.from(Uint8Array.from(new Uint8Array(memory, offset, length))));
  }

  head(packId: string): Promise<PackHead | undefined> {
    const memory = this.#packs.get(packId);
    return Promise.resolve(memory === undefined ? undefined : { size: memory.byteLength });
  }

  reference(packId: string): PackReference {
    return { memory: this.#packs.get(packId) ?? new SharedArrayBuffer(0) };
  }

  async *list(shard = ''): AsyncIterable<{ packId: string; size: number }> {
    for (const packId of [...this.#packs.keys()].sort()) {
      const size = this.#packs.get(packId)?.byteLength;
      if (size !== undefined && packId.startsWith(shard)) yield { packId, size };
    }
  }

  shardStamp(shard: string): Promise<string | undefined> {
    return Promise.resolve(String(this.#changes.get(shard) ?? 'none'));
  }

  delete(packIds: readonly string[]): Promise<void> {
    for (const packId of packIds) {
      this.#packs.delete(packId);
      this.#countChange(packId);
    }
    return Promise.resolve();
  }

  quarantine(packId: string): Promise<string> {
    const memory = this.#packs.get(packId);
    if (memory !== undefined) this.#quarantined.set(packId, memory);
    return Promise.resolve(`quarantine of ${packId}`);
  }

  async evict(packId: string): Promise<void> {
    await this.delete([packId]);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #countChange(packId: string): void {
    const shard = packId.slice(0, 2);
    this.#changes.set(shard, (this.#changes.get(shard) ?? 0) + 1);
  }
}
