import { constants, setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { must } from '../../core/assert.ts';
import { OUT_BYTES, OUT_SLOTS, type Outlet, portable, type Task, Work, type WorkSettings } from './tasks.ts';

/** What a worker is started with. */
export interface WorkerSetup {
  /** Room for `OUT_SLOTS` encoded frames. */
  readonly out: SharedArrayBuffer;
  /** One word a slot: 1 while the frame in it has not been written yet. */
  readonly busy: Int32Array;
  /** Whoever else wants the processor comes first. */
  readonly gentle: boolean;
}

/** What a worker is told: what to work for from now on, or one piece of it. */
export type WorkerMessage = { settings: WorkSettings } | { call: number; task: Task };

const port = must(parentPort, 'a parent thread');
const setup = workerData as WorkerSetup;
// On Linux this is the priority of the thread, not that of the process.
if (setup.gentle && process.platform === 'linux') setPriority(constants.priority.PRIORITY_LOW);
let call = 0;
let slot = 0;

function freeSlot(): number {
  for (;;) {
    for (let i = 0; i < OUT_SLOTS; i++) if (Atomics.load(setup.busy, i) === 0) return i;
    // Any slot will do: the wait is short, and slots are given back in the order in which they were filled.
    Atomics.wait(setup.busy, slot, 1, 50);
  }
}

const outlet: Outlet = {
  early: (next, nextHint) => port.postMessage({ call, early: { next, nextHint } }),
  frameBuffer: () => {
    slot = freeSlot();
    return Buffer.from(setup.out, slot * OUT_BYTES, OUT_BYTES);
  },
  rooms: () => Array.from({ length: OUT_SLOTS }, (_, i) => Buffer.from(setup.out, i * OUT_BYTES, OUT_BYTES)),
  frame: ({ bytes, ids, lengths, codec }) => {
    Atomics.store(setup.busy, slot, 1);
    port.postMessage({ call, frame: { slot, length: bytes.length, ids, lengths, codec } });
  },
};
let work: Work | undefined;

port.on('message', (message: WorkerMessage) => {
  if ('settings' in message) {
    if (work?.renew(message.settings) !== true) work = new Work(message.settings, outlet);
    return;
  }
  call = message.call;
  try {
    port.postMessage({ call, result: must(work, 'settings').run(message.task) });
  } catch (error) {
    port.postMessage({ call, error: portable(error) });
  }
});
