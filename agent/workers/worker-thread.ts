import { Worker as Thread } from 'node:worker_threads';
import { type ErrorCode, LightkeeperError } from '../../core/errors.ts';
import { builtFile } from '../../host/built.ts';
import type { OnNextBlock } from './chunker.ts';
import type { CutSettings } from './cut-task.ts';
import { frameBuffer } from './frame-buffers.ts';
import type { Task, TaskResult } from './task-runner.ts';
import type { FrameReply, ThreadReply, ThreadRequest, ThreadSetup } from './thread-messages.ts';
import type { FrameSink, Worker } from './worker.ts';

/** Bytes of a thread's young generation, in MiB. */
const YOUNG_GENERATION_MB = 4;

const ignoreFrame: FrameSink = () => Promise.resolve();

interface Call {
  resolve(result: unknown): void;
  reject(error: unknown): void;
  readonly onNextBlock: OnNextBlock | undefined;
}

/** Runs tasks in a thread, for one job after another. */
export class WorkerThread implements Worker {
  readonly setup: ThreadSetup;
  readonly #thread: Thread;
  readonly #calls = new Map<number, Call>();
  #sink = ignoreFrame;
  #nextCall = 1;
  #writing: Promise<void> = Promise.resolve();
  #failure: unknown;

  constructor(setup: ThreadSetup) {
    this.setup = setup;
    this.#thread = new Thread(builtFile('worker.js'), {
      workerData: setup,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
    });
    this.#thread.on('message', (reply: ThreadReply) => this.#receive(reply));
    this.#thread.on('error', (error) => this.#fail(error));
    this.#thread.on('exit', (code) =>
      this.#fail(new LightkeeperError('INTERNAL', `Cannot go on: a worker ended (${code})`)),
    );
  }

  /** Whether the thread ended by itself, or one of its frames could not be written. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** Begins a job: the tasks that follow use `settings`, and their frames go to `sink`. */
  begin(settings: CutSettings, sink: FrameSink): void {
    this.#sink = sink;
    this.#thread.ref();
    this.#post({ type: 'settings', settings });
  }

  run<T extends Task>(task: T, onNextBlock?: OnNextBlock): Promise<TaskResult<T>> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const call = this.#nextCall++;
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve: resolve as Call['resolve'], reject, onNextBlock });
      this.#post({ type: 'task', call, task });
    });
  }

  /** Ends a job. Returns false if the thread cannot be used for another one. */
  async finish(): Promise<boolean> {
    await this.#writing;
    if (this.#failure !== undefined || this.#calls.size > 0) return false;
    this.#sink = ignoreFrame;
    this.#thread.unref();
    return true;
  }

  /** Ends the thread. Its frame buffers are free afterwards. */
  async terminate(): Promise<void> {
    this.#thread.removeAllListeners('exit');
    await this.#thread.terminate();
    this.setup.frameBuffers.busy.fill(0);
  }

  #post(request: ThreadRequest): void {
    this.#thread.postMessage(request);
  }

  #receive(reply: ThreadReply): void {
    if (reply.type === 'frame') {
      this.#write(reply);
      return;
    }
    const call = this.#calls.get(reply.call);
    if (call === undefined) return;
    if (reply.type === 'next-block') {
      call.onNextBlock?.(reply.position, reply.expected);
      return;
    }
    this.#calls.delete(reply.call);
    if (reply.type === 'result') {
      call.resolve(reply.result);
      return;
    }
    const { code, message, hint } = reply.error;
    call.reject(new LightkeeperError(code as ErrorCode, message, { hint }));
  }

  #write({ buffer, length, ids, lengths, codec }: FrameReply): void {
    const { frameBuffers } = this.setup;
    const bytes = frameBuffer(frameBuffers, buffer, length);
    this.#writing = this.#sink({ bytes, ids, lengths, codec })
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        Atomics.store(frameBuffers.busy, buffer, 0);
        Atomics.notify(frameBuffers.busy, buffer);
      });
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    for (const call of this.#calls.values()) call.reject(this.#failure);
    this.#calls.clear();
  }
}
