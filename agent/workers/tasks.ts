import { closeSync, openSync, readSync } from 'node:fs';
import { must } from '../../core/assert.ts';
import { gearTable, UNIT_BYTES_MAX } from '../../core/boundaries.ts';
import { ioError, LightkeeperError, normalise, systemCode } from '../../core/errors.ts';
import { UNIT_ID_BYTES, unitId, unitIdInPlace } from '../../core/unit.ts';
import { type Codec_Value, UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { effectSync } from '../../host/disk.ts';
import {
  DECODE_HEADROOM_BYTES,
  decodeFrame,
  encodeFrame,
  FRAME_BULK_BYTES,
  FRAME_RAW_BYTES,
  frameCap,
  parseFrame,
  proveFrame,
} from '../pack/frame.ts';
import { type PackReport, verifyPack } from '../pack/verify-pack.ts';
import { type GradeReply, type GradeStep, Grading } from './check-session.ts';
import { BLOCK_BUFFER_BYTES, type CutBlock, Cutter, type Hints } from './chunker.ts';
import { type Gathering, readSmall, type SmallFile, type SmallFileResult } from './cut-task.ts';
import { type RestoreTargets, runEnd, writeWhole, wrongBytes } from './write-task.ts';

/** Block buffers of one worker: while some wait for an answer, another is cut. */
export const SLOTS = 3;

/** Encoded frames that may wait to be written, for each worker. */
export const OUT_SLOTS = 4;

/** Most small files of one block. */
export const BATCH_FILES_MAX = 256;

const FRAME_UNITS = 16_384;
const SPARE_BYTES = 2 * UNIT_BYTES_MAX;

/** What the unit that fills a frame may be longer than it. */
const FRAME_EXCESS_BYTES = UNIT_BYTES_MAX;

/** Bytes of the longest frame that capture makes. */
export const OUT_BYTES = frameCap(FRAME_UNITS, FRAME_RAW_BYTES + FRAME_EXCESS_BYTES);

/** Buffers grow with the work no further than for this many bytes. */
function roomFor(bytes: number): number {
  return Math.min(bytes, Math.max(BLOCK_BUFFER_BYTES, FRAME_RAW_BYTES));
}

/** What a worker can be asked. */
export type Task =
  | {
      op: 'cut';
      slot: number;
      fd: number;
      position: number;
      size: number;
      hints: Hints | undefined;
      hint: number;
    }
  | { op: 'files'; slot: number; files: SmallFile[] }
  | { op: 'keep'; slot: number; fresh: Uint8Array; stream: number }
  | { op: 'flush' }
  | { op: 'restore'; path: string; offset: number; length: number; targets: RestoreTargets }
  | { op: 'verify'; path: string; packId: string }
  | { op: 'grade'; step: GradeStep };

export interface TaskResults {
  cut: CutBlock;
  files: { block: CutBlock; files: SmallFileResult[] };
  keep: null;
  flush: null;
  restore: { bytes: number };
  verify: PackReport;
  grade: GradeReply;
}

/** A proven frame on its way out of a worker. */
export interface OutFrame {
  readonly bytes: Uint8Array;
  readonly ids: Uint8Array;
  readonly lengths: number[];
  readonly codec: Codec_Value;
}

/** How a worker's results leave it; in a thread these are messages. */
export interface Outlet {
  early(next: number, nextHint: number): void;
  /** A buffer of `length` bytes, at most `OUT_BYTES`, for the next frame; waits for one to be free. */
  frameBuffer(length: number): Buffer;
  frame(frame: OutFrame): void;
  /** Memory of `OUT_BYTES` each that is free while no frames are made; none where there is no such memory. */
  rooms(): Buffer[];
}

/** What does not change during the work. */
export interface WorkSettings {
  readonly chunkerSeed: bigint;
  /** There is a lot of it: speed before size. */
  readonly bulk: boolean;
  /** About how many bytes there are: buffers are not made larger. */
  readonly bytes: number;
}

/** The work itself, the same in a thread and in the caller's own. */
export class Work {
  readonly #outlet: Outlet;
  readonly #cutters: Cutter[] = [];
  readonly #chunkerSeed: bigint;
  readonly #gear: Int32Array;
  readonly #bulk: boolean;
  readonly #frameRawBytes: number;
  readonly #bytes: number;
  readonly #blocks = new Map<number, CutBlock>();
  readonly #gatherings: Gathering[] = [];
  #decoded: Buffer | undefined;
  #scratch: Buffer | undefined;
  #encoded: Buffer | undefined;
  #grading: Grading | undefined;
  #rooms: Buffer[] | undefined;

  constructor({ chunkerSeed, bulk, bytes }: WorkSettings, outlet: Outlet) {
    this.#chunkerSeed = chunkerSeed;
    this.#gear = gearTable(chunkerSeed);
    this.#bulk = bulk;
    this.#frameRawBytes = bulk ? FRAME_BULK_BYTES : FRAME_RAW_BYTES;
    this.#bytes = roomFor(bytes);
    this.#outlet = outlet;
  }

  /** Begins anew, if it can serve such work; what was gathered of work that was cut off is dropped. */
  renew({ chunkerSeed, bulk, bytes }: WorkSettings): boolean {
    if (chunkerSeed !== this.#chunkerSeed || bulk !== this.#bulk || roomFor(bytes) > this.#bytes)
      return false;
    this.#blocks.clear();
    this.#grading?.close();
    this.#grading = undefined;
    for (const gathering of this.#gatherings) Object.assign(gathering, { rawBytes: 0, ids: [], lengths: [] });
    return true;
  }

  run(task: Task): TaskResults[Task['op']] {
    switch (task.op) {
      case 'cut': {
        const block = this.#cutter(task.slot).cutBlock(task, (next, hint) => this.#outlet.early(next, hint));
        this.#blocks.set(task.slot, block);
        return block;
      }
      case 'files':
        return this.#files(task.slot, task.files);
      case 'keep':
        return this.#keep(task.slot, task.fresh, task.stream);
      case 'flush':
        for (const gathering of this.#gatherings) this.#flushFrame(gathering);
        return null;
      case 'restore':
        return this.#restore(task);
      case 'verify':
        return verifyPack({ file: task.path }, task.packId);
      case 'grade':
        return this.#grade(task.step);
    }
  }

  #grade(step: GradeStep): GradeReply {
    if (step.step === 'begin') {
      this.#grading?.close();
      // Memory of a thread's own would stay with it: what frames leave through is not used now.
      this.#rooms ??= this.#outlet.rooms();
      this.#encoded ??= this.#rooms.pop();
      const readFrame = (path: string, offset: number, length: number) =>
        this.#readFrame(path, offset, length);
      this.#grading = new Grading(readFrame, this.#rooms);
    }
    const reply = must(this.#grading, 'a grading').run(step);
    if (step.step !== 'end') return reply;
    this.#grading?.close();
    this.#grading = undefined;
    return reply;
  }

  #cutter(slot: number): Cutter {
    const known = this.#cutters[slot];
    if (known !== undefined) return known;
    const cutter = new Cutter(this.#gear, Math.min(BLOCK_BUFFER_BYTES, this.#bytes + SPARE_BYTES));
    this.#cutters[slot] = cutter;
    return cutter;
  }

  #files(slot: number, files: readonly SmallFile[]): TaskResults['files'] {
    const cutter = this.#cutter(slot);
    cutter.begin();
    const results: SmallFileResult[] = [];
    let at = 0;
    for (const { path } of files) {
      const result = readSmall(cutter.buffer, at, Buffer.from(path));
      const fits = result.stable;
      const units = fits ? cutter.cutWhole(at, result.size) : 0;
      if (fits) at += result.size;
      results.push({ ...result, units });
    }
    const block = cutter.finish();
    this.#blocks.set(slot, block);
    return { block, files: results };
  }

  /** Copies the new units of a cut block into the frame that is being filled. */
  #keep(slot: number, fresh: Uint8Array, stream: number): null {
    const block = this.#blocks.get(slot);
    if (block === undefined) return null;
    this.#blocks.delete(slot);
    const { buffer } = this.#cutter(slot);
    const gathering = this.#gathering(stream);
    let at = 0;
    for (const [i, length] of block.lengths.entries()) {
      if (fresh[i] === 1) {
        buffer.copy(gathering.raw, gathering.rawBytes, at, at + length);
        gathering.rawBytes += length;
        gathering.ids.push(block.ids.slice(i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES));
        gathering.lengths.push(length);
        const full = gathering.rawBytes + UNIT_BYTES_MAX > gathering.raw.length;
        if (full || gathering.rawBytes >= this.#frameRawBytes || gathering.lengths.length >= FRAME_UNITS) {
          this.#flushFrame(gathering);
        }
      }
      at += length;
    }
    return null;
  }

  /** New units are at most all bytes that there are; a file may have grown since they were counted. */
  get #frameBytes(): number {
    return Math.min(this.#frameRawBytes + FRAME_EXCESS_BYTES, 2 * this.#bytes + SPARE_BYTES);
  }

  #gathering(stream: number): Gathering {
    const known = this.#gatherings[stream];
    if (known !== undefined) return known;
    const raw = Buffer.allocUnsafeSlow(this.#frameBytes);
    const gathering: Gathering = { raw, rawBytes: 0, ids: [], lengths: [] };
    // Streams are numbered from 0, and all are asked for when they are flushed.
    while (this.#gatherings.length < stream) this.#gathering(this.#gatherings.length);
    this.#gatherings[stream] = gathering;
    return gathering;
  }

  #flushFrame(gathering: Gathering): void {
    const { raw, rawBytes, lengths } = gathering;
    if (lengths.length === 0) return;
    const out = this.#outlet.frameBuffer(frameCap(lengths.length, rawBytes));
    const ids = Buffer.concat(gathering.ids);
    const bytes = raw.subarray(0, rawBytes);
    const { length, codec } = encodeFrame(out, {
      kind: UnitKind_Value.BYTES,
      ids,
      lengths,
      bytes,
      bulk: this.#bulk,
    });
    const frame = out.subarray(0, length);
    this.#scratch ??= Buffer.allocUnsafeSlow(DECODE_HEADROOM_BYTES + this.#frameBytes);
    proveFrame(frame, this.#scratch);
    gathering.ids = [];
    gathering.lengths = [];
    gathering.rawBytes = 0;
    this.#outlet.frame({ bytes: frame, ids, lengths, codec });
  }

  /** Writes units of one frame to files, then reads back what was written and hashes that. */
  #restore(task: Extract<Task, { op: 'restore' }>): { bytes: number } {
    const frame = parseFrame(this.#readFrame(task.path, task.offset, task.length));
    const decoded = this.#decodeBuffer(frame.decodedLength);
    decodeFrame(frame, decoded);
    const { unitLengths, unitIds, kind } = frame.header;
    const ids = Buffer.from(unitIds.buffer, unitIds.byteOffset, unitIds.byteLength);
    const starts = new Float64Array(unitLengths.length + 1);
    for (const [i, length] of unitLengths.entries()) starts[i + 1] = (starts[i] as number) + length;
    const { places, fds, positions } = task.targets;
    let bytes = 0;
    for (let from = 0; from < places.length; ) {
      const to = runEnd(task.targets, starts, from);
      const start = starts[places[from] as number];
      const end = starts[(places[to - 1] as number) + 1];
      if (start === undefined || end === undefined)
        throw new LightkeeperError('DAMAGED', 'Cannot restore: a frame is cut');
      const fd = fds[from] as number;
      const position = positions[from] as number;
      effectSync({ label: 'restore:write', op: 'write', path: '' }, () =>
        writeWhole(fd, decoded.subarray(start, end), position),
      );
      const room = this.#readBack(fd, end - start, position);
      for (let i = from; i < to; i++) {
        const unit = places[i] as number;
        const at = (starts[unit] as number) - start;
        const id = unitIdInPlace(kind, room, DECODE_HEADROOM_BYTES + at, unitLengths[unit] as number);
        if (id.compare(ids, unit * UNIT_ID_BYTES, (unit + 1) * UNIT_ID_BYTES) === 0) continue;
        const inStore = unitId(
          kind,
          decoded.subarray(start + at, start + at + (unitLengths[unit] as number)),
        );
        throw wrongBytes(inStore.compare(ids, unit * UNIT_ID_BYTES, (unit + 1) * UNIT_ID_BYTES) === 0);
      }
      bytes += end - start;
      from = to;
    }
    return { bytes };
  }

  /** Buffers of this thread, used again for each frame: fresh ones would cost more than the work on them. */
  #decodeBuffer(length: number): Buffer {
    this.#decoded = roomy(this.#decoded, length);
    return this.#decoded.subarray(0, length);
  }

  #readFrame(path: string, offset: number, length: number): Buffer {
    this.#encoded = roomy(this.#encoded, length);
    return readWhole(path, offset, this.#encoded.subarray(0, length));
  }

  /** What was written, behind the headroom that hashing needs. */
  #readBack(fd: number, length: number, position: number): Buffer {
    this.#scratch = roomy(this.#scratch, DECODE_HEADROOM_BYTES + length);
    const room = this.#scratch;
    if (
      readInto(fd, room.subarray(DECODE_HEADROOM_BYTES, DECODE_HEADROOM_BYTES + length), position) < length
    ) {
      throw new LightkeeperError('IO', 'Cannot restore: the disk lost what was written');
    }
    return room;
  }
}

/** The buffer if it is long enough, else a longer one: half as much again, so that few are made. */
function roomy(buffer: Buffer | undefined, length: number): Buffer {
  if (buffer !== undefined && buffer.length >= length) return buffer;
  return Buffer.allocUnsafeSlow(Math.ceil(length * 1.5));
}

function readWhole(path: string, offset: number, into: Buffer): Buffer {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw ioError('read', path, error);
    throw new LightkeeperError('DAMAGED', `Cannot read "${path}": it is missing`, {
      hint: 'bring the file back, or run lightkeeper repair',
      cause: error,
    });
  }
  try {
    if (readInto(fd, into, offset) < into.length)
      throw new LightkeeperError('DAMAGED', `Cannot read "${path}": it is cut`);
    return into;
  } catch (error) {
    throw ioError('read', path, error);
  } finally {
    closeSync(fd);
  }
}

function readInto(fd: number, bytes: Buffer, position: number): number {
  let done = 0;
  while (done < bytes.length) {
    const read = readSync(fd, bytes, done, bytes.length - done, position + done);
    if (read === 0) break;
    done += read;
  }
  return done;
}

/** A thrown value as something that a message can carry. */
export function portable(error: unknown): { code: string; message: string; hint: string } {
  const { code, message, hint } = normalise(error);
  return { code, message, hint };
}
