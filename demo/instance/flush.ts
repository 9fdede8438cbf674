import { setTimeout as sleep } from 'node:timers/promises';
import { writePieces } from '../files.ts';
import { FILE_NAMES, type FileName } from '../generate.ts';
import type { Memory } from './memory.ts';
import type { InstanceOptions } from './options.ts';

/** About what Python's writer hands to the system at once. */
const BLOCK_BYTES = 8192;

/** Overwrites files with what is in memory, and knows which of them are behind it. */
export class Flush {
  readonly #dir: string;
  readonly #memory: Memory;
  readonly #options: InstanceOptions;
  /** How often each file's content has changed in memory, and how much of that is on disk. */
  readonly #changes = new Map<FileName, number>();
  readonly #written = new Map<FileName, number>();
  /** A file has one writer at a time: a query may want the cache during an ingest. */
  readonly #writers = new Map<FileName, Promise<void>>();

  constructor(dir: string, memory: Memory, options: InstanceOptions) {
    this.#dir = dir;
    this.#memory = memory;
    this.#options = options;
  }

  /** Notes that files are behind what is in memory. */
  changed(...names: readonly FileName[]): void {
    for (const name of names) this.#changes.set(name, (this.#changes.get(name) ?? 0) + 1);
  }

  /** Whether a file is behind what is in memory. */
  isBehind(name: FileName): boolean {
    return (this.#changes.get(name) ?? 0) !== (this.#written.get(name) ?? 0);
  }

  /** Writes files one after another, with a pause between two. */
  async write(names: readonly FileName[]): Promise<void> {
    for (const [index, name] of names.entries()) {
      if (index > 0) await this.pause();
      await this.#writeInTurn(name);
    }
  }

  /** Writes everything, kv first and the graph last. */
  async writeAll(): Promise<void> {
    await this.write(FILE_NAMES);
  }

  /** What passes between two files. */
  async pause(): Promise<void> {
    const { pauseMs } = this.#options;
    if (pauseMs > 0) await sleep(pauseMs);
  }

  async #writeInTurn(name: FileName): Promise<void> {
    const before = this.#writers.get(name);
    const writer = (async () => {
      // Whoever wanted that write was told of its failure.
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
