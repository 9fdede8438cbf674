// The program of a worker thread.
import { constants, setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { must } from '../../core/assert.ts';
import { normalise } from '../../core/errors.ts';
import { FRAME_BUFFERS, frameBuffer } from './frame-buffers.ts';
import { type TaskOutput, TaskRunner } from './task-runner.ts';
import type { PortableError, ThreadReply, ThreadRequest, ThreadSetup } from './thread-messages.ts';

const port = must(parentPort, 'a parent thread');
const { frameBuffers, gentle } = workerData as ThreadSetup;
// On Linux this is the priority of the thread, not that of the process.
if (gentle && process.platform === 'linux') setPriority(constants.priority.PRIORITY_LOW);
let runner: TaskRunner | undefined;
let call = 0;
let buffer = 0;

function reply(message: ThreadReply): void {
  port.postMessage(message);
}

/** Returns the index of a free frame buffer; waits until there is one. */
function freeBuffer(): number {
  const { busy } = frameBuffers;
  for (;;) {
    for (let i = 0; i < FRAME_BUFFERS; i++) if (Atomics.load(busy, i) === 0) return i;
    // Any buffer will do: the wait is short, and they are freed in the order in which they were filled.
    Atomics.wait(busy, buffer, 1, 50);
  }
}

function portable(error: unknown): PortableError {
  const { code, message, hint } = normalise(error);
  return { code, message, hint };
}

const output: TaskOutput = {
  onNextBlock: (position, expected) => reply({ type: 'next-block', call, position, expected }),
  frameBuffer: () => {
    buffer = freeBuffer();
    return frameBuffer(frameBuffers, buffer);
  },
  frame: ({ bytes, ids, lengths, codec }) => {
    Atomics.store(frameBuffers.busy, buffer, 1);
    reply({ type: 'frame', buffer, length: bytes.length, ids, lengths, codec });
  },
  idleMemory: () => Array.from({ length: FRAME_BUFFERS }, (_, i) => frameBuffer(frameBuffers, i)),
};

port.on('message', (request: ThreadRequest) => {
  if (request.type === 'settings') {
    if (runner?.reset(request.settings) !== true) runner = new TaskRunner(request.settings, output);
    return;
  }
  call = request.call;
  try {
    reply({ type: 'result', call, result: must(runner, 'settings').run(request.task) });
  } catch (error) {
    reply({ type: 'error', call, error: portable(error) });
  }
});
