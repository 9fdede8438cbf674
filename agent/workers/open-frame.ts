import { UNIT_BYTES_MAX } from '../../core/boundaries.ts';
import { type Codec_Value, UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { DECODE_HEADROOM_BYTES, encodeFrame, frameCap, proveFrame } from '../pack/frame.ts';
import { FRAME_UNITS_MAX } from './frame-buffers.ts';
import type { WorkBuffers } from './work-buffers.ts';

/** A frame that was encoded, then decoded and compared. */
export interface EncodedFrame {
  readonly bytes: Uint8Array;
  /** Ids of the units, one after another. */
  readonly ids: Uint8Array;
  /** Bytes of each unit. */
  readonly lengths: number[];
  readonly codec: Codec_Value;
}

/** How frames are filled and encoded. */
export interface FrameOptions {
  /** Bytes of units at which a frame is full. */
  readonly fullBytes: number;
  /** Bytes that a frame may have at most. */
  readonly capacity: number;
  /** Whether speed counts more than size. */
  readonly bulk: boolean;
}

/** Collects the new units of one stream until they fill a frame. */
export class OpenFrame {
  readonly #options: FrameOptions;
  readonly #raw: Buffer;
  #rawBytes = 0;
  #ids: Uint8Array[] = [];
  #lengths: number[] = [];

  constructor(options: FrameOptions) {
    this.#options = options;
    this.#raw = Buffer.allocUnsafeSlow(options.capacity);
  }

  /** Appends the unit in `buffer` from `start` to `end`. Returns whether the frame is full now. */
  append(id: Uint8Array, { buffer, start, end }: { buffer: Buffer; start: number; end: number }): boolean {
    buffer.copy(this.#raw, this.#rawBytes, start, end);
    this.#rawBytes += end - start;
    this.#ids.push(id);
    this.#lengths.push(end - start);
    return (
      this.#rawBytes + UNIT_BYTES_MAX > this.#raw.length ||
      this.#rawBytes >= this.#options.fullBytes ||
      this.#lengths.length >= FRAME_UNITS_MAX
    );
  }

  /** Drops the units. */
  clear(): void {
    this.#ids = [];
    this.#lengths = [];
    this.#rawBytes = 0;
  }

  /** Encodes and checks the units, and drops them. Returns undefined if there are none. */
  encode(outputOf: (length: number) => Buffer, buffers: WorkBuffers): EncodedFrame | undefined {
    const lengths = this.#lengths;
    if (lengths.length === 0) return undefined;
    const { bulk, capacity } = this.#options;
    const output = outputOf(frameCap(lengths.length, this.#rawBytes));
    const ids = Buffer.concat(this.#ids);
    const bytes = this.#raw.subarray(0, this.#rawBytes);
    const { length, codec } = encodeFrame(output, { kind: UnitKind_Value.BYTES, ids, lengths, bytes, bulk });
    const frame = output.subarray(0, length);
    proveFrame(frame, buffers.scratch(DECODE_HEADROOM_BYTES + capacity, 1));
    this.clear();
    return { bytes: frame, ids, lengths, codec };
  }
}
