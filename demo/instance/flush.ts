import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { writePieces } from '../files.ts';
import type { FileName } from '../write-order.ts';
import type { Memory } from './memory.ts';
import type { InstanceOptions } from './options.ts';

/** Bytes that Python's writer passes to the system at once. */
const BLOCK_BYTES = 8192;

/** Writes memory to files, and tracks which files are outdated. */
export class Flush {
  readonly #dir: string;
  readonly #memory: Memory;
  readonly #options: InstanceOptions;
  /** Number of changes of each file's content in memory, and how many of them are on disk. */
  readonly #changes = new Map<FileName, number>();
  readonly #written = new Map<FileName, number>();
  /** The writer of each file. */
  // A file has one at a time: a query may write the cache during an ingest.
  readonly #writers = new Map<FileName, Promise<void>>();

  constructor(dir: string, memory: Memory, options: InstanceOptions) {
    this.#dir = dir;
    this.#memory = memory;
    this.#options = options;
  }

  /** Marks files as outdated. */
  changed(...names: readonly FileName[]): void {
    for (const name of names) this.#changes.set(name, (this.#changes.get(name) ?? 0) + 1);
  }

  /** Reports whether a file is outdated. */
  isBehind(name: FileName): boolean {
    return (this.#changes.get(name) ?? 0) !== (this.#written.get(name) ?? 0);
  }

  /** Writes files one after another, with a pause between them. */
  async write(names: readonly FileName[]): Promise<void> {
    for (const [index, name] of names.entries()) {
      if (index > 0) await this.pause();
      await this.#writeInTurn(name);
    }
  }

  /** Removes files that memory no longer has. */
  async remove(names: readonly FileName[]): Promise<void> {
    for (const name of names) await rm(join(this.#dir, name), { force: true });
  }

  /** Waits for the pause between two files. */
  async pause(): Promise<void> {
    const { pauseMs } = this.#options;
    if (pauseMs > 0) await sleep(pauseMs);
  }

  /** Waits while embeddings are computed. */
  async embed(): Promise<void> {
    const { embeddingMs } = this.#options;
    if (embeddingMs > 0) await sleep(embeddingMs);
  }

  async #writeInTurn(name: FileName): Promise<void> {
    const before = this.#writers.get(name);
    const writer = (async () => {
      // The caller of that write has received its failure.
      await before?.catch(() => {});
      await this.#write(name);
    })();
    this.#writers.set(name, writer);
    await writer;
  }

  async #write(name: FileName): Promise<void> {
    const { style, piecePauseMs } = this.#options;
    const changes = this.#changes.get(name) ?? 0;
    const pace = piecePauseMs === 0 ? undefined : () => sleep(piecePauseMs);
    const pieces = this.#memory.text(name);
    await writePieces(this.#dir, name, pieces, { style, pace, blockBytes: BLOCK_BYTES });
    this.#written.set(name, changes);
  }
}
