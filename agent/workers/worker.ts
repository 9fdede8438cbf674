import type { OnNextBlock } from './chunker.ts';
import type { EncodedFrame } from './open-frame.ts';
import type { Task, TaskResult } from './task-runner.ts';

/** Writes a frame. The frame's memory is reused when the promise resolves. */
export type FrameSink = (frame: EncodedFrame) => Promise<void>;

/** Runs tasks in the order of the calls: in a thread, or inline in the calling one. */
export interface Worker {
  run<T extends Task>(task: T, onNextBlock?: OnNextBlock): Promise<TaskResult<T>>;
}
