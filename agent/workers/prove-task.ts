import { decodeVerified } from '../pack/frame.ts';
import type { WorkBuffers } from './work-buffers.ts';

/** Decodes a frame and hashes its units. */
export interface ProveFrameTask {
  readonly op: 'prove-frame';
  readonly frame: Uint8Array;
}

export interface ProveTaskResults {
  /** Number of its units. */
  'prove-frame': number;
}

/** Runs a `prove-frame` task. DAMAGED if the frame cannot be decoded, or a unit does not hash to its id. */
export function runProveFrame({ frame }: ProveFrameTask, buffers: WorkBuffers): number {
  const bytes = Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength);
  const { parsed } = decodeVerified(bytes, (length) => buffers.scratch(length).subarray(0, length));
  return parsed.header.unitLengths.length;
}
