import { gearTable, UNIT_BYTES_MAX } from '../../core/boundaries.ts';
import { UNIT_ID_BYTES } from '../../core/unit.ts';
import { FRAME_BULK_BYTES, FRAME_RAW_BYTES } from '../pack/frame.ts';
import { BLOCK_BUFFER_BYTES, type BlockRequest, type CutBlock, Cutter, type OnNextBlock } from './chunker.ts';
import { FRAME_EXCESS_BYTES } from './frame-buffers.ts';
import { type EncodedFrame, type FrameOptions, OpenFrame } from './open-frame.ts';
import { readSmallFile, type SmallFile } from './small-file.ts';
import type { WorkBuffers } from './work-buffers.ts';

/** Most small files of one block. */
export const BATCH_FILES_MAX = 256;

/** Bytes by which files may have grown since their sizes were counted. */
const GROWTH_BYTES = 2 * UNIT_BYTES_MAX;

/** Cuts a block of a large file into the block buffer `slot`. */
export interface CutBlockTask extends BlockRequest {
  readonly op: 'cut-block';
  readonly slot: number;
}

/** Reads small files into the block buffer `slot` and cuts each of them. */
export interface CutFilesTask {
  readonly op: 'cut-files';
  readonly slot: number;
  /** Absolute paths. */
  readonly paths: readonly Uint8Array[];
}

/** Appends new units of the block in `slot` to the open frame of a stream. */
export interface AppendUnitsTask {
  readonly op: 'append-units';
  readonly slot: number;
  /** 1 for each unit of the block that is new. */
  readonly fresh: Uint8Array;
  /** Index of the stream. Each stream fills frames of its own. */
  readonly stream: number;
}

/** Encodes all open frames. */
export interface FlushFramesTask {
  readonly op: 'flush-frames';
}

export type CutTask = CutBlockTask | CutFilesTask | AppendUnitsTask | FlushFramesTask;

/** A small file and its units. */
export interface CutFile extends SmallFile {
  /** Units of the file. They follow those of the files before it. */
  readonly units: number;
}

/** Small files that were cut into one block. */
export interface CutFiles {
  readonly block: CutBlock;
  readonly files: CutFile[];
}

export interface CutTaskResults {
  'cut-block': CutBlock;
  'cut-files': CutFiles;
  'append-units': null;
  'flush-frames': null;
}

/** Where the results of cutting go before a task ends. */
export interface CutOutput {
  /** Receives the start of the next block as soon as it is known. */
  readonly onNextBlock: OnNextBlock;
  /** Returns a buffer of at least `length` bytes for the next frame; waits until one is free. */
  frameBuffer(length: number): Buffer;
  /** Takes the frame in the buffer that was returned last. */
  frame(frame: EncodedFrame): void;
}

/** What cutting depends on. */
export interface CutSettings {
  readonly chunkerSeed: bigint;
  /** Whether speed counts more than size. */
  readonly bulk: boolean;
  /** Approximate number of bytes to cut. Buffers are not made larger. */
  readonly bytes: number;
}

/** Runs the tasks that cut files into units and fill frames with the new ones. */
export class CutRunner {
  readonly #chunkerSeed: bigint;
  readonly #gear: Int32Array;
  readonly #bulk: boolean;
  readonly #bytes: number;
  readonly #frameOptions: FrameOptions;
  readonly #buffers: WorkBuffers;
  readonly #output: CutOutput;
  readonly #cutters: Cutter[] = [];
  readonly #blocks = new Map<number, CutBlock>();
  readonly #frames: OpenFrame[] = [];

  constructor({ chunkerSeed, bulk, bytes }: CutSettings, buffers: WorkBuffers, output: CutOutput) {
    this.#chunkerSeed = chunkerSeed;
    this.#gear = gearTable(chunkerSeed);
    this.#bulk = bulk;
    this.#bytes = bufferBytes(bytes);
    this.#buffers = buffers;
    this.#output = output;
    const fullBytes = bulk ? FRAME_BULK_BYTES : FRAME_RAW_BYTES;
    // At most all bytes are new, and a file may have grown since they were counted.
    const capacity = Math.min(fullBytes + FRAME_EXCESS_BYTES, 2 * this.#bytes + GROWTH_BYTES);
    this.#frameOptions = { fullBytes, capacity, bulk };
  }

  /** Drops what an interrupted job has left. Returns false if the settings need another runner. */
  reset({ chunkerSeed, bulk, bytes }: CutSettings): boolean {
    if (chunkerSeed !== this.#chunkerSeed || bulk !== this.#bulk || bufferBytes(bytes) > this.#bytes)
      return false;
    this.#blocks.clear();
    for (const frame of this.#frames) frame.clear();
    return true;
  }

  cutBlock(task: CutBlockTask): CutBlock {
    const block = this.#cutter(task.slot).cutBlock(task, this.#output.onNextBlock);
    this.#blocks.set(task.slot, block);
    return block;
  }

  cutFiles({ slot, paths }: CutFilesTask): CutFiles {
    const cutter = this.#cutter(slot);
    cutter.begin();
    const files: CutFile[] = [];
    let at = 0;
    for (const path of paths) {
      const file = readSmallFile(cutter.buffer, at, Buffer.from(path));
      const units = file.stable ? cutter.cutWhole(at, file.size) : 0;
      if (file.stable) at += file.size;
      files.push({ ...file, units });
    }
    const block = cutter.finish();
    this.#blocks.set(slot, block);
    return { block, files };
  }

  appendUnits({ slot, fresh, stream }: AppendUnitsTask): null {
    const block = this.#blocks.get(slot);
    if (block === undefined) return null;
    this.#blocks.delete(slot);
    const { buffer } = this.#cutter(slot);
    const frame = this.#frame(stream);
    let start = 0;
    for (const [i, length] of block.lengths.entries()) {
      const end = start + length;
      if (fresh[i] === 1) {
        const id = block.ids.slice(i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES);
        if (frame.append(id, { buffer, start, end })) this.#encode(frame);
      }
      start = end;
    }
    return null;
  }

  flushFrames(): null {
    for (const frame of this.#frames) this.#encode(frame);
    return null;
  }

  #cutter(slot: number): Cutter {
    const existing = this.#cutters[slot];
    if (existing !== undefined) return existing;
    const cutter = new Cutter(this.#gear, Math.min(BLOCK_BUFFER_BYTES, this.#bytes + GROWTH_BYTES));
    this.#cutters[slot] = cutter;
    return cutter;
  }

  #frame(stream: number): OpenFrame {
    const existing = this.#frames[stream];
    if (existing !== undefined) return existing;
    const frame = new OpenFrame(this.#frameOptions);
    // A flush goes over the streams from 0 on.
    while (this.#frames.length < stream) this.#frame(this.#frames.length);
    this.#frames[stream] = frame;
    return frame;
  }

  #encode(frame: OpenFrame): void {
    const encoded = frame.encode((length) => this.#output.frameBuffer(length), this.#buffers);
    if (encoded !== undefined) this.#output.frame(encoded);
  }
}

/** Returns the bytes of work up to which buffers grow with it. */
function bufferBytes(bytes: number): number {
  return Math.min(bytes, Math.max(BLOCK_BUFFER_BYTES, FRAME_RAW_BYTES));
}
