import { availableParallelism } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { must } from '../../core/assert.ts';
import { type ErrorCode, LightkeeperError } from '../../core/errors.ts';
import { builtFile } from '../../host/built.ts';
import { dropContexts } from '../pack/zstd.ts';
import {
  OUT_BYTES,
  OUT_SLOTS,
  type OutFrame,
  SLOTS,
  type Task,
  type TaskResults,
  Work,
  type WorkSettings,
} from './tasks.ts';
import type { WorkerMessage, WorkerSetup } from './thread.ts';

/** Below this many bytes the work is done in the caller's thread: starting another takes longer. */
const INLINE_BYTES = 6 * 1024 * 1024;
/** Below this many bytes one worker does it. */
const SINGLE_BYTES = 32 * 1024 * 1024;
const WORKERS_MAX = 4;
/** A thread without work is kept for so long: starting one for each of many small captures costs more than they do. */
const REST_MS = 10_000;

type Early = (next: number, nextHint: number) => void;
/** Takes a frame; the worker may use the frame's memory again when the promise resolves. */
export type FrameSink = (frame: OutFrame) => Promise<void>;

/** One that works: a thread, or the caller's own. */
interface Hand {
  run<T extends Task>(task: T, early?: Early): Promise<TaskResults[T['op']]>;
  close(): Promise<void>;
}

interface Call {
  resolve(result: unknown): void;
  reject(error: unknown): void;
  early: Early | undefined;
}

interface Message {
  call: number;
  result?: unknown;
  error?: { code: string; message: string; hint: string };
  early?: { next: number; nextHint: number };
  frame?: { slot: number; length: number; ids: Uint8Array; lengths: number[]; codec: OutFrame['codec'] };
}

/** The memory that a thread shares with this one. */
type Share = Pick<WorkerSetup, 'out' | 'busy'>;

/** Memory of threads that have ended. Left to the collector, which does not see its size, it would pile up. */
const spare: Share[] = [];

/**
 * From 32 MiB on glibc maps memory by itself and gives it back as soon as it is free; the freeing of anything smaller has
 * it keep as much from then on. What is not used of it costs nothing.
 */
const LARGE_BYTES = 33 << 20;

function newShare(): Share {
  return {
    out: new SharedArrayBuffer(Math.max(OUT_SLOTS * OUT_BYTES, LARGE_BYTES)),
    busy: new Int32Array(new SharedArrayBuffer(OUT_SLOTS * 4)),
  };
}

/** Threads without work. */
const resting = new Set<ThreadHand>();
/** Threads that there are. */
let threads = 0;
/** So long after the last thread has ended its memory is given back. */
const IDLE_MS = 10_000;

/** Nothing is allocated while there is nothing to do, so the collector would not come by itself. */
function giveBack(): void {
  if (threads > 0 || spare.length === 0) return;
  spare.length = 0;
  dropContexts();
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

class ThreadHand implements Hand {
  readonly #gentle: boolean;
  readonly #worker: Worker;
  readonly #setup: WorkerSetup;
  readonly #calls = new Map<number, Call>();
  #sink: FrameSink = () => Promise.resolve();
  #next = 1;
  #writing: Promise<void> = Promise.resolve();
  #failure: unknown;
  #rest: NodeJS.Timeout | undefined;

  private constructor(gentle: boolean) {
    this.#gentle = gentle;
    threads += 1;
    this.#setup = { gentle, ...(spare.pop() ?? newShare()) };
    this.#worker = new Worker(builtFile('worker.js'), {
      workerData: this.#setup,
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    });
    this.#worker.on('message', (message: Message) => this.#receive(message));
    this.#worker.on('error', (error) => this.#fail(error));
    this.#worker.on('exit', (code) =>
      this.#fail(new LightkeeperError('INTERNAL', `Cannot go on: a worker ended (${code})`)),
    );
  }

  /** One that rests, or a new one. */
  static begin(settings: WorkSettings, gentle: boolean, sink: FrameSink): ThreadHand {
    const rested = [...resting].find((one) => one.#gentle === gentle);
    const hand = rested ?? new ThreadHand(gentle);
    resting.delete(hand);
    clearTimeout(hand.#rest);
    hand.#sink = sink;
    hand.#worker.ref();
    hand.#post({ settings });
    return hand;
  }

  #post(message: WorkerMessage): void {
    this.#worker.postMessage(message);
  }

  run<T extends Task>(task: T, early?: Early): Promise<TaskResults[T['op']]> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const call = this.#next++;
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve: resolve as Call['resolve'], reject, early });
      this.#post({ call, task });
    });
  }

  #receive(message: Message): void {
    if (message.frame !== undefined) {
      this.#write(message.frame);
      return;
    }
    const call = this.#calls.get(message.call);
    if (call === undefined) return;
    if (message.early !== undefined) {
      call.early?.(message.early.next, message.early.nextHint);
      return;
    }
    this.#calls.delete(message.call);
    const { error } = message;
    if (error === undefined) call.resolve(message.result);
    else call.reject(new LightkeeperError(error.code as ErrorCode, error.message, { hint: error.hint }));
  }

  #write({ slot, length, ids, lengths, codec }: NonNullable<Message['frame']>): void {
    const bytes = Buffer.from(this.#setup.out, slot * OUT_BYTES, length);
    this.#writing = this.#sink({ bytes, ids, lengths, codec })
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        Atomics.store(this.#setup.busy, slot, 0);
        Atomics.notify(this.#setup.busy, slot);
      });
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    for (const call of this.#calls.values()) call.reject(this.#failure);
    this.#calls.clear();
    resting.delete(this);
  }

  /** Has it rest, or ends it if it was cut off in its work. */
  async close(): Promise<void> {
    await this.#writing;
    if (this.#failure !== undefined || this.#calls.size > 0) {
      await this.#end();
      return;
    }
    this.#sink = () => Promise.resolve();
    this.#worker.unref();
    resting.add(this);
    this.#rest = setTimeout(() => void this.#end(), REST_MS).unref();
  }

  async #end(): Promise<void> {
    resting.delete(this);
    this.#worker.removeAllListeners('exit');
    await this.#worker.terminate();
    const { out, busy } = this.#setup;
    busy.fill(0);
    if (spare.length < WORKERS_MAX) spare.push({ out, busy });
    threads -= 1;
    if (threads === 0) setTimeout(giveBack, IDLE_MS).unref();
  }
}

class OwnHand implements Hand {
  readonly #work: Work;
  #early: Early | undefined;
  #frames: Promise<void>[] = [];

  constructor(settings: WorkSettings, sink: FrameSink) {
    this.#work = new Work(settings, {
      early: (next, hint) => this.#early?.(next, hint),
      frameBuffer: (length) => Buffer.allocUnsafeSlow(length),
      rooms: () => [],
      frame: (frame) => this.#frames.push(sink(frame)),
    });
  }

  async run<T extends Task>(task: T, early?: Early): Promise<TaskResults[T['op']]> {
    this.#early = early;
    const result = this.#work.run(task) as TaskResults[T['op']];
    const frames = this.#frames;
    this.#frames = [];
    await Promise.all(frames);
    // Lets the event loop breathe between pieces of blocking work.
    await new Promise((resolve) => setImmediate(resolve));
    return result;
  }

  async close(): Promise<void> {}
}

/** A block buffer of one hand, held by one caller. */
export interface Lease {
  readonly hand: Pick<Hand, 'run'>;
  readonly slot: number;
  release(): void;
}

/** The hands that do the work of one capture, restore or verification. */
export class Pool {
  readonly #hands: Hand[];
  readonly #free: { hand: Hand; slot: number }[] = [];
  readonly #waiting: ((lease: Lease) => void)[] = [];

  /**
   * As many hands as `bytes` of work deserve, or one for work whose steps follow one another. Frames that they make go to
   * `sink`; `gentle` ones leave the processor to whoever else wants it.
   */
  constructor(
    bytes: number,
    options: { chunkerSeed: bigint; gentle: boolean; one?: boolean; sink?: FrameSink },
  ) {
    const sink: FrameSink = options.sink ?? (() => Promise.resolve());
    const threads =
      bytes < INLINE_BYTES
        ? 0
        : bytes < SINGLE_BYTES || options.one === true
          ? 1
          : Math.min(WORKERS_MAX, Math.max(1, availableParallelism()));
    const settings = { chunkerSeed: options.chunkerSeed, bulk: bytes >= SINGLE_BYTES, bytes };
    this.#hands =
      threads === 0
        ? [new OwnHand(settings, sink)]
        : Array.from({ length: threads }, () => ThreadHand.begin(settings, options.gentle, sink));
    const slots = threads === 0 ? 1 : SLOTS;
    for (let slot = 0; slot < slots; slot++) for (const hand of this.#hands) this.#free.push({ hand, slot });
  }

  /** Leases that can be held at once. */
  get width(): number {
    return this.#hands.length * SLOTS;
  }

  /** Waits for a free block buffer. */
  async lease(): Promise<Lease> {
    const free = this.#free.shift();
    if (free !== undefined) return this.#grant(free);
    return await new Promise((resolve) => this.#waiting.push(resolve));
  }

  #grant(place: { hand: Hand; slot: number }): Lease {
    return {
      ...place,
      release: () => {
        const next = this.#waiting.shift();
        if (next === undefined) this.#free.push(place);
        else next(this.#grant(place));
      },
    };
  }

  /** Runs one task on whichever hand is free first. */
  async run<T extends Task>(task: T): Promise<TaskResults[T['op']]> {
    const lease = await this.lease();
    try {
      return await lease.hand.run(task);
    } finally {
      lease.release();
    }
  }

  /** Has every hand give out what it has gathered. */
  async flush(): Promise<void> {
    await Promise.all(this.#hands.map((hand) => hand.run({ op: 'flush' })));
  }

  async close(): Promise<void> {
    await Promise.all(this.#hands.map((hand) => hand.close()));
  }
}

/** The tasks of a list, at most as many at once as the pool has leases. */
export async function eachInPool<T>(
  pool: Pool,
  items: AsyncIterable<T> | Iterable<T>,
  run: (item: T) => Promise<void>,
): Promise<void> {
  const running = new Set<Promise<void>>();
  let failure: { error: unknown } | undefined;
  for await (const item of items) {
    if (failure !== undefined) break;
    const promise: Promise<void> = run(item)
      .catch((error: unknown) => {
        failure ??= { error };
      })
      .finally(() => running.delete(promise));
    running.add(promise);
    if (running.size >= pool.width) await Promise.race(running);
  }
  await Promise.all(running);
  if (failure !== undefined) throw must(failure, 'a failure').error;
}
