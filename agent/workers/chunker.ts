import { readSync } from 'node:fs';
import { cutLength, UNIT_BYTES_MAX } from '../../core/boundaries.ts';
import { systemCode } from '../../core/errors.ts';
import { UNIT_ID_BYTES, unitIdInPlace } from '../../core/unit.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';

/** Bytes of a file that are cut and hashed in one step. */
export const BLOCK_BYTES = 2 * 1024 * 1024;
/** Bytes read for a block, which ends with a whole unit. */
export const BLOCK_BUFFER_BYTES = BLOCK_BYTES + UNIT_BYTES_MAX;

/** Units of a file in its last capture, shared between threads. */
// Where the bytes are the same, trying the old unit's length costs one hash instead of a search for the cut and a hash.
export interface PreviousUnits {
  readonly count: number;
  /** Bytes of each unit. */
  readonly lengths: Uint32Array;
  /** Ids of the units, one after another. */
  readonly ids: Uint8Array;
  /** Open-addressed hash table from an id to the index of its unit, plus 1; 0 is free. */
  readonly table: Int32Array;
}

function tableSize(count: number): number {
  let size = 16;
  while (size < count * 2) size *= 2;
  return size;
}

/** Allocates `count` previous units, which `setPreviousUnit` fills in. */
export function allocatePreviousUnits(count: number): PreviousUnits {
  return {
    count,
    lengths: new Uint32Array(new SharedArrayBuffer(count * 4)),
    ids: new Uint8Array(new SharedArrayBuffer(count * UNIT_ID_BYTES)),
    table: new Int32Array(new SharedArrayBuffer(tableSize(count) * 4)),
  };
}

function firstPlace(table: Int32Array, id: Uint8Array, at: number): number {
  const word =
    (id[at] as number) |
    ((id[at + 1] as number) << 8) |
    ((id[at + 2] as number) << 16) |
    ((id[at + 3] as number) << 24);
  return (word >>> 0) & (table.length - 1);
}

/** Sets the previous unit with index `i`. */
export function setPreviousUnit(
  { lengths, ids, table }: PreviousUnits,
  i: number,
  { id, length }: { id: Uint8Array; length: number },
): void {
  lengths[i] = length;
  ids.set(id, i * UNIT_ID_BYTES);
  let place = firstPlace(table, id, 0);
  while (table[place] !== 0) place = (place + 1) & (table.length - 1);
  table[place] = i + 1;
}

function sameId(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number): boolean {
  for (let i = 0; i < UNIT_ID_BYTES; i++) if (a[aAt + i] !== b[bAt + i]) return false;
  return true;
}

/** Returns the index of a previous unit with this id; -1 if there is none. */
function findPrevious({ ids, table }: PreviousUnits, id: Uint8Array): number {
  let place = firstPlace(table, id, 0);
  for (;;) {
    const entry = table[place] as number;
    if (entry === 0) return -1;
    if (sameId(ids, (entry - 1) * UNIT_ID_BYTES, id, 0)) return entry - 1;
    place = (place + 1) & (table.length - 1);
  }
}

/** Receives the position of the next block, and the index of the previous unit expected there; -1 for none. */
export type OnNextBlock = (position: number, expected: number) => void;

/** The units of a block. */
export interface CutBlock {
  /** Bytes of each unit. */
  readonly lengths: Uint32Array;
  /** Ids of the units, one after another. */
  readonly ids: Uint8Array;
  /** 1 for each unit that the previous units contain, so that it is stored already. */
  readonly known: Uint8Array;
  /** Code of the system error that prevented the read; the block has no units then. */
  readonly failed: string | undefined;
}

/** A block of a file to be cut. */
export interface BlockRequest {
  readonly fd: number;
  /** Offset of the block in the file. */
  readonly position: number;
  /** Bytes of the file when its capture began. */
  readonly size: number;
  readonly previous: PreviousUnits | undefined;
  /** Index of the previous unit expected at `position`; -1 for none. */
  readonly expected: number;
}

/** The bytes of a block that were read. */
interface ReadBlock {
  readonly filled: number;
  /** Whether they reach the end of the file. */
  readonly atEnd: boolean;
}

/** Bytes before a unit that hashing uses. */
const HEADROOM_BYTES = 8;

/** Most units of a block. */
const UNITS_MAX = Math.ceil(BLOCK_BUFFER_BYTES / 4096) + 4096;

/** Reads, cuts and hashes the blocks of one block buffer. */
export class Cutter {
  /** Bytes of the block. */
  readonly buffer: Buffer;
  /** The same memory as a plain array, in which cuts are found faster. */
  readonly #plain: Uint8Array;
  /** The same memory behind the headroom that hashing needs. */
  readonly #memory: Buffer;
  readonly #gear: Int32Array;
  readonly #lengths = new Uint32Array(UNITS_MAX);
  readonly #ids = Buffer.alloc(UNITS_MAX * UNIT_ID_BYTES);
  readonly #known = new Uint8Array(UNITS_MAX);
  #units = 0;

  /** `capacity` is the most bytes of a block; more than `BLOCK_BUFFER_BYTES` are never used. */
  constructor(gear: Int32Array, capacity: number) {
    this.#gear = gear;
    this.#memory = Buffer.allocUnsafeSlow(HEADROOM_BYTES + capacity);
    this.buffer = this.#memory.subarray(HEADROOM_BYTES);
    this.#plain = new Uint8Array(this.#memory.buffer, HEADROOM_BYTES, capacity);
  }

  #hash(start: number, length: number): Buffer {
    return unitIdInPlace(UnitKind_Value.BYTES, this.#memory, HEADROOM_BYTES + start, length);
  }

  #addUnit(length: number, id: Buffer, known: boolean): void {
    id.copy(this.#ids, this.#units * UNIT_ID_BYTES);
    this.#lengths[this.#units] = length;
    this.#known[this.#units] = known ? 1 : 0;
    this.#units += 1;
  }

  /** Reads `wanted` bytes, or fewer at the end of the file. Returns their number. */
  #fill(fd: number, position: number, wanted: number): number {
    let filled = 0;
    while (filled < wanted) {
      const read = readSync(fd, this.buffer, filled, wanted - filled, position + filled);
      if (read === 0) break;
      filled += read;
    }
    return filled;
  }

  /** Returns the units that were cut since the last `begin`. */
  #result(failed?: string): CutBlock {
    return {
      failed,
      lengths: this.#lengths.slice(0, this.#units),
      ids: Uint8Array.prototype.slice.call(this.#ids, 0, this.#units * UNIT_ID_BYTES),
      known: this.#known.slice(0, this.#units),
    };
  }

  /** Reads, cuts and hashes a block. Calls `onNextBlock` as soon as the position of the next block is known. */
  // Without previous units that is before the hashing, so that the next block can be cut at the same time.
  cutBlock(request: BlockRequest, onNextBlock: OnNextBlock): CutBlock {
    this.#units = 0;
    const wanted = Math.min(this.buffer.length, Math.max(0, request.size - request.position));
    let filled: number;
    try {
      filled = this.#fill(request.fd, request.position, wanted);
    } catch (error) {
      const code = systemCode(error);
      if (code === undefined) throw error;
      onNextBlock(request.position, -1);
      return this.#result(code);
    }
    const atEnd = filled < wanted || request.position + filled >= request.size;
    const { position, previous } = request;
    const read: ReadBlock = { filled, atEnd };
    if (previous === undefined) this.#cutNew(read, (at) => onNextBlock(position + at, -1));
    else {
      const { at, expected } = this.#cutChanged(read, { ...request, previous });
      onNextBlock(position + at, expected);
    }
    return this.#result();
  }

  #cutNew({ filled, atEnd }: ReadBlock, onEnd: (at: number) => void): void {
    const cuts: number[] = [];
    let at = 0;
    while (at < filled && (at < BLOCK_BYTES || atEnd)) {
      const length = cutLength(this.#gear, this.#plain, at, filled, atEnd);
      if (length === 0) break;
      cuts.push(length);
      at += length;
    }
    onEnd(at);
    let start = 0;
    for (const length of cuts) {
      this.#addUnit(length, this.#hash(start, length), false);
      start += length;
    }
  }

  #cutChanged(
    { filled, atEnd }: ReadBlock,
    { previous, expected: first }: { previous: PreviousUnits; expected: number },
  ): { at: number; expected: number } {
    let at = 0;
    let expected = first;
    while (at < filled && (at < BLOCK_BYTES || atEnd)) {
      // The end of the old file cut its last unit: trying that length would cut this file wrongly.
      if (expected >= 0 && expected < previous.count) {
        const length = previous.lengths[expected] as number;
        const last = expected === previous.count - 1;
        if (at + length <= filled && (!last || (atEnd && at + length === filled))) {
          const id = this.#hash(at, length);
          if (sameId(previous.ids, expected * UNIT_ID_BYTES, id, 0)) {
            this.#addUnit(length, id, true);
            at += length;
            expected += 1;
            continue;
          }
        } else if (at + length > filled && !atEnd) break;
      }
      const length = cutLength(this.#gear, this.#plain, at, filled, atEnd);
      if (length === 0) break;
      const id = this.#hash(at, length);
      const found = findPrevious(previous, id);
      this.#addUnit(length, id, found >= 0);
      expected = found >= 0 ? found + 1 : -1;
      at += length;
    }
    return { at, expected };
  }

  /** Begins a block of small files. */
  begin(): void {
    this.#units = 0;
  }

  /** Cuts `length` bytes at `start` of the buffer as one file. Returns the number of its units. */
  cutWhole(start: number, length: number): number {
    const before = this.#units;
    const end = start + length;
    for (let at = start; at < end; ) {
      const unit = cutLength(this.#gear, this.#plain, at, end, true);
      this.#addUnit(unit, this.#hash(at, unit), false);
      at += unit;
    }
    return this.#units - before;
  }

  /** Returns the units of a block of small files. */
  finish(): CutBlock {
    return this.#result();
  }
}
