import type { CutSettings } from './cut-task.ts';
import type { FrameBuffers } from './frame-buffers.ts';
import type { EncodedFrame } from './open-frame.ts';
import type { Task, TaskResult } from './task-runner.ts';

/** What a thread is started with. */
export interface ThreadSetup {
  readonly frameBuffers: FrameBuffers;
  /** Whether the thread runs at low priority. */
  readonly gentle: boolean;
}

/** A message to a thread: the settings of the tasks that follow, or one task. */
export type ThreadRequest =
  | { readonly type: 'settings'; readonly settings: CutSettings }
  | { readonly type: 'task'; readonly call: number; readonly task: Task };

/** A frame in the frame buffer `buffer`. */
export interface FrameReply extends Omit<EncodedFrame, 'bytes'> {
  readonly type: 'frame';
  /** Index of the frame buffer. */
  readonly buffer: number;
  /** Bytes of the frame. */
  readonly length: number;
}

/** A message from a thread. `call` is the number of the task that it belongs to. */
export type ThreadReply =
  | { readonly type: 'result'; readonly call: number; readonly result: TaskResult<Task> }
  | { readonly type: 'error'; readonly call: number; readonly error: PortableError }
  | {
      readonly type: 'next-block';
      readonly call: number;
      readonly position: number;
      readonly expected: number;
    }
  | FrameReply;

/** An error without what a message cannot carry. */
export interface PortableError {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}
