import { decodeVerified } from '../pack/frame.ts';
import type { WorkerGroup } from '../workers/worker-group.ts';
import type { WorkerPool } from '../workers/worker-pool.ts';

/** Decoded bytes below which a frame is proven in the calling thread. */
const INLINE_BYTES = 256 * 1024;
/** Bytes of a job for which the pool opens one thread. */
const JOB_BYTES = 16 * 1024 * 1024;

/** Proves frames: decodes them and hashes their units, large ones in a worker thread. */
export class FrameProver {
  readonly #workers: WorkerPool;
  #group: WorkerGroup | undefined;
  #running = 0;

  constructor(workers: WorkerPool) {
    this.#workers = workers;
  }

  /** Proves a frame that decodes to `decodedBytes` bytes. DAMAGED if a unit in it does not hash to its id. */
  async prove(frame: Buffer, decodedBytes: number): Promise<void> {
    if (decodedBytes < INLINE_BYTES) {
      decodeVerified(frame);
      return;
    }
    this.#group ??= this.#workers.open(JOB_BYTES, { gentle: false, sequential: true });
    const group = this.#group;
    this.#running += 1;
    try {
      // A message copies the whole memory behind a view.
      await group.run({ op: 'prove-frame', frame: Uint8Array.from(frame) });
    } finally {
      this.#running -= 1;
      if (this.#running === 0) {
        // The pool ends a thread that stays idle.
        this.#group = undefined;
        await group.close();
      }
    }
  }
}
