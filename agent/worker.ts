import { parentPort, workerData } from 'node:worker_threads';
import { must } from '../core/assert.ts';
import { OUT_BYTES, OUT_SLOTS, portable, type Task, Work, type WorkSettings } from './work.ts';

/** What a worker is started with. */
export interface WorkerSetup extends WorkSettings {
  /** Room for `OUT_SLOTS` encoded frames. */
  readonly out: SharedArrayBuffer;
  /** One word a slot: 1 while the frame in it has not been written yet. */
  readonly busy: Int32Array;
}

const port = must(parentPort, 'a parent thread');
const setup = workerData as WorkerSetup;
let call = 0;
let slot = 0;

function freeSlot(): number {
  for (;;) {
    for (let i = 0; i < OUT_SLOTS; i++) if (Atomics.load(setup.busy, i) === 0) return i;
    // Any slot will do: the wait is short, and slots are given back in the order in which they were filled.
    Atomics.wait(setup.busy, slot, 1, 50);
  }
}

const work = new Work(setup, {
  early: (next, nextHint) => port.postMessage({ call, early: { next, nextHint } }),
  frameBuffer: () => {
    slot = freeSlot();
    return Buffer.from(setup.out, slot * OUT_BYTES, OUT_BYTES);
  },
  frame: ({ bytes, ids, lengths, codec }) => {
    Atomics.store(setup.busy, slot, 1);
    port.postMessage({ call, frame: { slot, length: bytes.length, ids, lengths, codec } });
  },
});

port.on('message', (message: { call: number; task: Task }) => {
  call = message.call;
  try {
    port.postMessage({ call, result: work.run(message.task) });
  } catch (error) {
    port.postMessage({ call, error: portable(error) });
  }
});
