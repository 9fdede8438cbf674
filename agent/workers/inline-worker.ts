import type { OnNextBlock } from './chunker.ts';
import type { CutSettings } from './cut-task.ts';
import { type Task, type TaskResult, TaskRunner } from './task-runner.ts';
import type { FrameSink, Worker } from './worker.ts';

/** Runs tasks in the calling thread, for work that is too small for another one. */
export class InlineWorker implements Worker {
  readonly #runner: TaskRunner;
  #onNextBlock: OnNextBlock | undefined;
  #frames: Promise<void>[] = [];

  constructor(settings: CutSettings, sink: FrameSink) {
    this.#runner = new TaskRunner(settings, {
      onNextBlock: (position, expected) => this.#onNextBlock?.(position, expected),
      frameBuffer: (length) => Buffer.allocUnsafeSlow(length),
      frame: (frame) => this.#frames.push(sink(frame)),
      idleMemory: () => [],
    });
  }

  async run<T extends Task>(task: T, onNextBlock?: OnNextBlock): Promise<TaskResult<T>> {
    this.#onNextBlock = onNextBlock;
    const result = this.#runner.run(task) as TaskResult<T>;
    const frames = this.#frames;
    this.#frames = [];
    await Promise.all(frames);
    // Lets the event loop run between pieces of blocking work.
    await new Promise((resolve) => setImmediate(resolve));
    return result;
  }
}
