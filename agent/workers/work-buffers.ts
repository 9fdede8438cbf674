import { readPackInto } from '../pack/pack-bytes.ts';
import type { PackReference } from '../pack/pack-store.ts';

/** Length of a new buffer as a multiple of the needed one, so that few are allocated. */
const GROWTH = 1.5;

/** Buffers that the tasks of one thread share. */
// Allocating them for each frame would cost more than the work on them.
export class WorkBuffers {
  readonly #idleMemory: () => Buffer[];
  #borrowed: Buffer[] | undefined;
  #encoded: Buffer | undefined;
  #decoded: Buffer | undefined;
  #scratch: Buffer | undefined;

  /** `idleMemory` returns buffers that are free while no frames are made. */
  constructor(idleMemory: () => Buffer[]) {
    this.#idleMemory = idleMemory;
  }

  /** Returns a buffer of `length` bytes for decoded units. */
  decoded(length: number): Buffer {
    this.#decoded = enlarge(this.#decoded, length);
    return this.#decoded.subarray(0, length);
  }

  /** Returns a buffer of at least `length` bytes for checks of what was encoded or written. */
  scratch(length: number, growth = GROWTH): Buffer {
    this.#scratch = enlarge(this.#scratch, length, growth);
    return this.#scratch;
  }

  /** Reads bytes of a pack. Returns a view that is valid until the next call; throws DAMAGED if they are missing. */
  readPack(reference: PackReference, offset: number, length: number): Buffer {
    this.#encoded = enlarge(this.#encoded, length);
    return readPackInto(reference, offset, this.#encoded.subarray(0, length));
  }

  /** Returns the free frame buffers, for decoded frames. One of them becomes the buffer of `readPack`. */
  // A thread retains memory of its own, while the frame buffers are shared and are not used by a grading.
  borrowIdle(): Buffer[] {
    this.#borrowed ??= this.#idleMemory();
    this.#encoded ??= this.#borrowed.pop();
    return this.#borrowed;
  }
}

/** Returns the buffer if it is long enough, else a longer one. */
function enlarge(buffer: Buffer | undefined, length: number, growth = GROWTH): Buffer {
  if (buffer !== undefined && buffer.length >= length) return buffer;
  return Buffer.allocUnsafeSlow(Math.ceil(length * growth));
}
