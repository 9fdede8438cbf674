import { availableParallelism } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { dropContexts } from '../pack/zstd.ts';
import type { CutSettings } from './cut-task.ts';
import { allocateFrameBuffers, type FrameBuffers } from './frame-buffers.ts';
import { InlineWorker } from './inline-worker.ts';
import type { FrameSink } from './worker.ts';
import { SLOTS_PER_THREAD, WorkerGroup } from './worker-group.ts';
import { WorkerThread } from './worker-thread.ts';

/** Bytes of work below which it runs inline. */
// Starting a thread takes longer.
const INLINE_BYTES = 6 * 1024 * 1024;

/** Bytes of work below which one thread runs it. */
const SINGLE_BYTES = 32 * 1024 * 1024;

/** Most threads of one job. */
const THREADS_MAX = 4;

/** Milliseconds after which an idle thread ends. */
// Starting threads for each of many small captures costs more than the captures do.
const THREAD_IDLE_MS = 10_000;

/** Milliseconds between the end of the last thread and the release of its memory. */
const MEMORY_IDLE_MS = 10_000;

/** How the workers of one job run. */
export interface WorkerOptions {
  /** Whether the workers run at low priority. */
  readonly gentle: boolean;
  /** Whether the tasks depend on one another, so that more than one worker is of no use. */
  readonly sequential?: boolean;
  /** Writes the frames that the workers make. */
  readonly sink?: FrameSink;
}

/** Owns the worker threads of a process: those at work, idle ones, and the memory of ended ones. */
export class WorkerPool {
  readonly #chunkerSeed: bigint;
  /** Idle threads, with the timers that end them. */
  readonly #idle = new Map<WorkerThread, NodeJS.Timeout>();
  /** Frame buffers of ended threads. */
  // The collector does not see their size: they would pile up if each thread had new ones.
  readonly #spare: FrameBuffers[] = [];
  /** Threads that exist, at work or idle. */
  #threads = 0;
  #releasing: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** `chunkerSeed` is that of the store whose files are cut. */
  constructor(chunkerSeed: bigint) {
    this.#chunkerSeed = chunkerSeed;
  }

  /** Returns workers for a job of about `bytes` bytes. */
  open(bytes: number, { gentle, sequential = false, sink = async () => {} }: WorkerOptions): WorkerGroup {
    const settings = { chunkerSeed: this.#chunkerSeed, bulk: bytes >= SINGLE_BYTES, bytes };
    if (bytes < INLINE_BYTES)
      return new WorkerGroup([new InlineWorker(settings, sink)], { slots: 1, close: async () => {} });
    const count = bytes < SINGLE_BYTES || sequential ? 1 : Math.min(THREADS_MAX, availableParallelism());
    const threads = Array.from({ length: Math.max(1, count) }, () => this.#begin(gentle, settings, sink));
    const close = async () => {
      await Promise.all(threads.map((thread) => this.#release(thread)));
    };
    return new WorkerGroup(threads, { slots: SLOTS_PER_THREAD, close });
  }

  /** Ends the idle threads. Threads at work end with their job. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#idle.keys()].map((thread) => this.#end(thread)));
    this.#spare.length = 0;
    clearTimeout(this.#releasing);
  }

  #begin(gentle: boolean, settings: CutSettings, sink: FrameSink): WorkerThread {
    const idle = [...this.#idle.keys()].find((one) => one.setup.gentle === gentle && !one.hasFailed);
    const thread = idle ?? this.#start(gentle);
    clearTimeout(this.#idle.get(thread));
    this.#idle.delete(thread);
    thread.begin(settings, sink);
    return thread;
  }

  #start(gentle: boolean): WorkerThread {
    this.#threads += 1;
    return new WorkerThread({ gentle, frameBuffers: this.#spare.pop() ?? allocateFrameBuffers() });
  }

  async #release(thread: WorkerThread): Promise<void> {
    if (!(await thread.finish()) || this.#isClosed) {
      await this.#end(thread);
      return;
    }
    this.#idle.set(thread, setTimeout(() => void this.#end(thread), THREAD_IDLE_MS).unref());
  }

  async #end(thread: WorkerThread): Promise<void> {
    clearTimeout(this.#idle.get(thread));
    this.#idle.delete(thread);
    await thread.terminate();
    if (this.#spare.length < THREADS_MAX && !this.#isClosed) this.#spare.push(thread.setup.frameBuffers);
    this.#threads -= 1;
    if (this.#threads > 0 || this.#isClosed) return;
    clearTimeout(this.#releasing);
    this.#releasing = setTimeout(() => this.#releaseMemory(), MEMORY_IDLE_MS).unref();
  }

  #releaseMemory(): void {
    if (this.#threads > 0 || this.#spare.length === 0) return;
    this.#spare.length = 0;
    dropContexts();
    // An idle process allocates nothing, so the collector would not run by itself.
    setFlagsFromString('--expose-gc');
    (runInNewContext('gc') as () => void)();
  }
}
