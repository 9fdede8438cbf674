import { create } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { type FramePart, FramePartSchema } from '../../gen/lightkeeper/v1/peer_pb.ts';

/** Most bytes of a frame in one message. */
const PART_BYTES = 1 << 20;
/** Most bytes of a frame that is sent: a few times those of the frames that captures write. */
export const SENT_FRAME_BYTES_MAX = 16 << 20;

/** Yields a frame in pieces of about 1 MiB. */
export function* splitFrame(wantId: bigint, frame: Buffer): Generator<FramePart> {
  for (let offset = 0; offset < frame.length; offset += PART_BYTES) {
    const data = frame.subarray(offset, offset + PART_BYTES);
    yield create(FramePartSchema, { wantId, frameLength: frame.length, offset, data });
  }
}

/** A frame that was received whole, not checked yet. */
export interface ReceivedFrame {
  readonly wantId: bigint;
  readonly bytes: Buffer;
}

/** Joins the pieces of frames, which follow one another. */
export class FrameJoiner {
  #wantId = 0n;
  #frame: Buffer | undefined;
  #filled = 0;

  /** Takes the next piece. Returns the frame with its last one. PEER_INVALID for a piece out of order. */
  add({ wantId, frameLength, offset, data }: FramePart): ReceivedFrame | undefined {
    if (this.#frame === undefined) {
      if (offset !== 0) throw invalidPart('it begins in the middle of a frame');
      if (frameLength === 0 || frameLength > SENT_FRAME_BYTES_MAX)
        throw invalidPart(`a frame has ${frameLength} bytes`);
      // What fits in one message needs no copy.
      if (data.length === frameLength)
        return { wantId, bytes: Buffer.from(data.buffer, data.byteOffset, data.length) };
      this.#frame = Buffer.allocUnsafe(frameLength);
      this.#wantId = wantId;
      this.#filled = 0;
    }
    const frame = this.#frame;
    const continues = wantId === this.#wantId && frameLength === frame.length && offset === this.#filled;
    if (!continues || data.length === 0 || offset + data.length > frame.length)
      throw invalidPart('it does not continue the frame before it');
    frame.set(data, offset);
    this.#filled += data.length;
    if (this.#filled < frame.length) return undefined;
    this.#frame = undefined;
    return { wantId, bytes: frame };
  }
}

function invalidPart(state: string): LightkeeperError {
  return new LightkeeperError('PEER_INVALID', `Cannot use a piece of a frame: ${state}`);
}
