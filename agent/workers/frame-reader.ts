import { must } from '../../core/assert.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { type DecodedFrame, decodeVerified } from '../pack/frame.ts';
import type { PackReference } from '../pack/pack-store.ts';
import type { WorkBuffers } from './work-buffers.ts';

/** Decoded frames that are cached: units of one file may alternate between some of them. */
const CACHED_FRAMES = 2;

/** Length of a new buffer as a multiple of the needed one. */
const GROWTH = 1.25;

/** Consecutive units of a frame. */
export interface FrameRun {
  /** Number of the pack in the index. */
  readonly pack: number;
  readonly reference: PackReference;
  /** Offset of the frame in the pack, in bytes. */
  readonly offset: number;
  /** Bytes of the frame in the pack. */
  readonly length: number;
  /** Index of the first unit in the frame. */
  readonly from: number;
  /** Index after the last unit in the frame. */
  readonly to: number;
}

interface CachedFrame {
  readonly key: string;
  readonly memory: Buffer;
  readonly frame: DecodedFrame;
}

/** Reads units from packs and caches the frames that were decoded last. */
export class FrameReader {
  readonly #buffers: WorkBuffers;
  readonly #idle: Buffer[];
  /** Frames in the order of their last use. */
  readonly #frames: CachedFrame[] = [];

  constructor(buffers: WorkBuffers) {
    this.#buffers = buffers;
    this.#idle = buffers.borrowIdle();
  }

  /** Returns the bytes of a run, as a view that is valid until the next frame is read. */
  read({ from, to, ...place }: FrameRun): Buffer {
    const { bytes, starts } = this.#frame(place);
    const [start, end] = [starts[from], starts[to]];
    if (start === undefined || end === undefined)
      throw new LightkeeperError(
        'DAMAGED',
        `Cannot read pack number ${place.pack}: a unit is not where it should be`,
      );
    return bytes.subarray(start, end);
  }

  /** Drops the cached frames and returns their memory for the next reader. */
  close(): void {
    this.#idle.push(...this.#frames.splice(0).map(({ memory }) => memory));
  }

  #frame({ pack, reference, offset, length }: Omit<FrameRun, 'from' | 'to'>): DecodedFrame {
    const key = `${pack} ${offset}`;
    const at = this.#frames.findIndex((one) => one.key === key);
    const [cached] = at < 0 ? [] : this.#frames.splice(at, 1);
    if (cached !== undefined) {
      this.#frames.push(cached);
      return cached.frame;
    }
    let memory = this.#frames.length < CACHED_FRAMES ? this.#idle.pop() : this.#frames.shift()?.memory;
    const frame = decodeVerified(this.#buffers.readPack(reference, offset, length), (bytes) => {
      if (memory === undefined || memory.length < bytes)
        memory = Buffer.allocUnsafeSlow(Math.ceil(bytes * GROWTH));
      return memory.subarray(0, bytes);
    });
    this.#frames.push({ key, memory: must(memory, 'memory of a frame'), frame });
    return frame;
  }
}
