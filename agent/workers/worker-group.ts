import { must } from '../../core/assert.ts';
import type { OnNextBlock } from './chunker.ts';
import type { Task, TaskResult } from './task-runner.ts';
import type { Worker } from './worker.ts';

/** Block buffers of one thread: while the units of some are looked up, another one is cut. */
export const SLOTS_PER_THREAD = 3;

/** A block buffer of one worker, used by one caller at a time. */
export interface Slot {
  /** Number of the block buffer in its worker. */
  readonly number: number;
  /** Runs a task on the slot's worker. */
  run<T extends Task>(task: T, onNextBlock?: OnNextBlock): Promise<TaskResult<T>>;
  /** Frees the slot for the next caller. */
  release(): void;
}

interface FreeSlot {
  readonly worker: Worker;
  readonly number: number;
}

/** The workers of one capture, restore, verification or grading. */
export class WorkerGroup {
  readonly #workers: readonly Worker[];
  readonly #free: FreeSlot[] = [];
  readonly #waiting: ((slot: Slot) => void)[] = [];
  readonly #close: () => Promise<void>;

  /** Each worker has `slots` block buffers. `close` releases the workers. */
  constructor(workers: readonly Worker[], { slots, close }: { slots: number; close: () => Promise<void> }) {
    this.#workers = workers;
    this.#close = close;
    for (let number = 0; number < slots; number++)
      for (const worker of workers) this.#free.push({ worker, number });
  }

  /** Waits for a free slot. */
  async takeSlot(): Promise<Slot> {
    const free = this.#free.shift();
    if (free !== undefined) return this.#grant(free);
    return await new Promise((resolve) => this.#waiting.push(resolve));
  }

  #grant(free: FreeSlot): Slot {
    return {
      number: free.number,
      run: (task, onNextBlock) => free.worker.run(task, onNextBlock),
      release: () => {
        const next = this.#waiting.shift();
        if (next === undefined) this.#free.push(free);
        else next(this.#grant(free));
      },
    };
  }

  /** Runs one task on the worker of the next free slot. */
  async run<T extends Task>(task: T): Promise<TaskResult<T>> {
    const slot = await this.takeSlot();
    try {
      return await slot.run(task);
    } finally {
      slot.release();
    }
  }

  /** Runs `each` for every item, at most as many at once as there are slots. Throws the first failure. */
  async forEach<T>(items: AsyncIterable<T> | Iterable<T>, each: (item: T) => Promise<void>): Promise<void> {
    const running = new Set<Promise<void>>();
    const limit = this.#workers.length * SLOTS_PER_THREAD;
    let failure: { error: unknown } | undefined;
    for await (const item of items) {
      if (failure !== undefined) break;
      const promise: Promise<void> = each(item)
        .catch((error: unknown) => {
          failure ??= { error };
        })
        .finally(() => running.delete(promise));
      running.add(promise);
      if (running.size >= limit) await Promise.race(running);
    }
    await Promise.all(running);
    if (failure !== undefined) throw must(failure, 'a failure').error;
  }

  /** Encodes and writes the frames that are open in any worker. */
  async flush(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.run({ op: 'flush-frames' })));
  }

  /** Waits until the last frames are written, and releases the workers. */
  async close(): Promise<void> {
    await this.#close();
  }
}
