import { readSync } from 'node:fs';
import { cutLength, UNIT_BYTES_MAX } from '../../core/boundaries.ts';
import { systemCode } from '../../core/errors.ts';
import { UNIT_ID_BYTES, unitIdInPlace } from '../../core/unit.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';

/** Bytes of a file that are read, cut and hashed in one step. */
export const BLOCK_BYTES = 2 * 1024 * 1024;
/** A block ends with a whole unit, so it is read with room for one more. */
export const BLOCK_BUFFER_BYTES = BLOCK_BYTES + UNIT_BYTES_MAX;

/**
 * The units that a file had when it was last captured, shared between threads. Where the bytes are the same,
 * trying the old unit's length costs one hash instead of a search for the cut and a hash.
 */
export interface Hints {
  readonly count: number;
  readonly lengths: Uint32Array;
  readonly ids: Uint8Array;
  /** Open-addressed table from the first bytes of an id to its place + 1. */
  readonly slots: Int32Array;
}

/** Bytes of a shared buffer for `count` hints. */
function slotCount(count: number): number {
  let slots = 16;
  while (slots < count * 2) slots *= 2;
  return slots;
}

/** Makes room for `count` hints; `addHint` fills it. */
export function allocateHints(count: number): Hints {
  return {
    count,
    lengths: new Uint32Array(new SharedArrayBuffer(count * 4)),
    ids: new Uint8Array(new SharedArrayBuffer(count * UNIT_ID_BYTES)),
    slots: new Int32Array(new SharedArrayBuffer(slotCount(count) * 4)),
  };
}

function firstSlot(slots: Int32Array, id: Uint8Array, at: number): number {
  const word =
    (id[at] as number) |
    ((id[at + 1] as number) << 8) |
    ((id[at + 2] as number) << 16) |
    ((id[at + 3] as number) << 24);
  return (word >>> 0) & (slots.length - 1);
}

/** Puts hint number `i`. */
export function putHint(hints: Hints, i: number, id: Uint8Array, length: number): void {
  hints.lengths[i] = length;
  hints.ids.set(id, i * UNIT_ID_BYTES);
  let slot = firstSlot(hints.slots, id, 0);
  while (hints.slots[slot] !== 0) slot = (slot + 1) & (hints.slots.length - 1);
  hints.slots[slot] = i + 1;
}

function sameId(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number): boolean {
  for (let i = 0; i < UNIT_ID_BYTES; i++) if (a[aAt + i] !== b[bAt + i]) return false;
  return true;
}

function findHint(hints: Hints, id: Uint8Array, at: number): number {
  let slot = firstSlot(hints.slots, id, at);
  for (;;) {
    const place = hints.slots[slot] as number;
    if (place === 0) return -1;
    if (sameId(hints.ids, (place - 1) * UNIT_ID_BYTES, id, at)) return place - 1;
    slot = (slot + 1) & (hints.slots.length - 1);
  }
}

/** What a block was cut into. */
export interface CutBlock {
  /** Where the next block begins in the file. */
  readonly next: number;
  /** The hint to try first there; -1 for none. */
  readonly nextHint: number;
  readonly lengths: Uint32Array;
  readonly ids: Uint8Array;
  /** 1 for each unit that a hint matched: it is stored already. */
  readonly known: Uint8Array;
  /** The file ended in this block. */
  readonly ended: boolean;
  /** The system error that kept the block from being read: then it has no units. */
  readonly failed: string | undefined;
}

/** Where in a file a block is to be cut. */
export interface BlockRequest {
  readonly fd: number;
  readonly position: number;
  /** The file's length when its capture began. */
  readonly size: number;
  readonly hints: Hints | undefined;
  readonly hint: number;
}

const HEADROOM_BYTES = 8;
const MAX_UNITS = Math.ceil(BLOCK_BUFFER_BYTES / 4096) + 4096;

/** Reads, cuts and hashes blocks. One for each thread and block buffer. */
export class Cutter {
  /** Where a block is read to. */
  readonly buffer: Buffer;
  /** The same memory, for the search of cuts. */
  readonly #plain: Uint8Array;
  /** The same memory with room before it that hashing borrows. */
  readonly #room: Buffer;
  readonly #gear: Int32Array;
  readonly #lengths = new Uint32Array(MAX_UNITS);
  readonly #ids = Buffer.alloc(MAX_UNITS * UNIT_ID_BYTES);
  readonly #known = new Uint8Array(MAX_UNITS);
  #units = 0;

  /** `capacity` bytes at most are read at once; no more than `BLOCK_BUFFER_BYTES` are of use. */
  constructor(gear: Int32Array, capacity: number) {
    this.#gear = gear;
    this.#room = Buffer.allocUnsafeSlow(HEADROOM_BYTES + capacity);
    this.buffer = this.#room.subarray(HEADROOM_BYTES);
    this.#plain = new Uint8Array(this.#room.buffer, HEADROOM_BYTES, capacity);
  }

  #hash(start: number, length: number): Buffer {
    return unitIdInPlace(UnitKind_Value.BYTES, this.#room, HEADROOM_BYTES + start, length);
  }

  #put(length: number, id: Buffer, known: boolean): void {
    id.copy(this.#ids, this.#units * UNIT_ID_BYTES);
    this.#lengths[this.#units] = length;
    this.#known[this.#units] = known ? 1 : 0;
    this.#units += 1;
  }

  /** Reads up to a buffer of bytes; fewer only at the end of the file. */
  #fill(fd: number, position: number, wanted: number): number {
    let filled = 0;
    while (filled < wanted) {
      const read = readSync(fd, this.buffer, filled, wanted - filled, position + filled);
      if (read === 0) break;
      filled += read;
    }
    return filled;
  }

  /** Units made since the last `begin`. */
  #result(next: number, nextHint: number, ended: boolean, failed?: string): CutBlock {
    return {
      failed,
      next,
      nextHint,
      ended,
      lengths: this.#lengths.slice(0, this.#units),
      ids: Uint8Array.prototype.slice.call(this.#ids, 0, this.#units * UNIT_ID_BYTES),
      known: this.#known.slice(0, this.#units),
    };
  }

  /**
   * Cuts the block at a position. `early` is called as soon as the place of the next block is known, which
   * without hints is before the hashing.
   */
  cutBlock(request: BlockRequest, early: (next: number, nextHint: number) => void): CutBlock {
    this.#units = 0;
    const wanted = Math.min(this.buffer.length, Math.max(0, request.size - request.position));
    let filled: number;
    try {
      filled = this.#fill(request.fd, request.position, wanted);
    } catch (error) {
      const code = systemCode(error);
      if (code === undefined) throw error;
      early(request.position, -1);
      return this.#result(request.position, -1, false, code);
    }
    const atEnd = filled < wanted || request.position + filled >= request.size;
    const { hints, hint } = request;
    const { at, nextHint } =
      hints === undefined
        ? this.#cutPlain(filled, atEnd, request, early)
        : this.#cutHinted(filled, atEnd, hints, hint);
    if (hints !== undefined) early(request.position + at, nextHint);
    return this.#result(request.position + at, nextHint, atEnd && at >= filled);
  }

  #cutPlain(
    filled: number,
    atEnd: boolean,
    request: BlockRequest,
    early: (next: number, nextHint: number) => void,
  ): { at: number; nextHint: number } {
    const cuts: number[] = [];
    let at = 0;
    while (at < filled && (at < BLOCK_BYTES || atEnd)) {
      const length = cutLength(this.#gear, this.#plain, at, filled, atEnd);
      if (length === 0) break;
      cuts.push(length);
      at += length;
    }
    early(request.position + at, -1);
    let start = 0;
    for (const length of cuts) {
      this.#put(length, this.#hash(start, length), false);
      start += length;
    }
    return { at, nextHint: -1 };
  }

  #cutHinted(filled: number, atEnd: boolean, hints: Hints, first: number): { at: number; nextHint: number } {
    let at = 0;
    let hint = first;
    while (at < filled && (at < BLOCK_BYTES || atEnd)) {
      // The last hint was cut by the end of the old file: as a guess it would cut this one wrongly.
      if (hint >= 0 && hint < hints.count) {
        const length = hints.lengths[hint] as number;
        const last = hint === hints.count - 1;
        if (at + length <= filled && (!last || (atEnd && at + length === filled))) {
          const id = this.#hash(at, length);
          if (sameId(hints.ids, hint * UNIT_ID_BYTES, id, 0)) {
            this.#put(length, id, true);
            at += length;
            hint += 1;
            continue;
          }
        } else if (at + length > filled && !atEnd) break;
      }
      const length = cutLength(this.#gear, this.#plain, at, filled, atEnd);
      if (length === 0) break;
      const id = this.#hash(at, length);
      const place = findHint(hints, id, 0);
      this.#put(length, id, place >= 0);
      hint = place >= 0 ? place + 1 : -1;
      at += length;
    }
    return { at, nextHint: hint };
  }

  /** Begins a block of several small files. */
  begin(): void {
    this.#units = 0;
  }

  /** Cuts the `length` bytes at `start` of the buffer as one whole file; answers how many units it made. */
  cutWhole(start: number, length: number): number {
    const before = this.#units;
    const end = start + length;
    for (let at = start; at < end; ) {
      const unit = cutLength(this.#gear, this.#plain, at, end, true);
      this.#put(unit, this.#hash(at, unit), false);
      at += unit;
    }
    return this.#units - before;
  }

  /** The units of a block of small files. */
  finish(): CutBlock {
    return this.#result(0, -1, true);
  }
}
