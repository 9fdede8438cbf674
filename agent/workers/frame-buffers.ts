import { UNIT_BYTES_MAX } from '../../core/boundaries.ts';
import { FRAME_RAW_BYTES, frameCap } from '../pack/frame.ts';

/** Most units of a frame. */
export const FRAME_UNITS_MAX = 16_384;

/** Most bytes by which the unit that fills a frame exceeds the frame's limit. */
export const FRAME_EXCESS_BYTES = UNIT_BYTES_MAX;

/** Buffers of a thread for encoded frames that are not written yet. */
export const FRAME_BUFFERS = 4;

/** Bytes of a frame buffer: those of the longest frame that a capture makes. */
export const FRAME_BUFFER_BYTES = frameCap(FRAME_UNITS_MAX, FRAME_RAW_BYTES + FRAME_EXCESS_BYTES);

/** Least bytes of the memory behind the frame buffers. */
// From 32 MiB on glibc maps memory by itself and returns it as soon as it is free; freeing anything smaller makes it
// retain as much from then on. Pages that are never touched cost nothing.
const MAPPED_BYTES = 33 << 20;

/** Memory that a thread shares with the main thread. */
export interface FrameBuffers {
  /** `FRAME_BUFFERS` buffers of `FRAME_BUFFER_BYTES`, one after another. */
  readonly memory: SharedArrayBuffer;
  /** One word per buffer: 1 while the frame in it is not written yet. */
  readonly busy: Int32Array;
}

/** Allocates the frame buffers of a thread. */
export function allocateFrameBuffers(): FrameBuffers {
  return {
    memory: new SharedArrayBuffer(Math.max(FRAME_BUFFERS * FRAME_BUFFER_BYTES, MAPPED_BYTES)),
    busy: new Int32Array(new SharedArrayBuffer(FRAME_BUFFERS * 4)),
  };
}

/** Returns the first `length` bytes of a frame buffer. */
export function frameBuffer({ memory }: FrameBuffers, index: number, length = FRAME_BUFFER_BYTES): Buffer {
  return Buffer.from(memory, index * FRAME_BUFFER_BYTES, length);
}
