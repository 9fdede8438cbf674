import { LightkeeperError } from '../errors.ts';

/** Longer strings are not held: of those only their length is known, and their bytes pass by in pieces. */
export const SHORT_STRING_BYTES_MAX = 64 * 1024;

/** What is wrong with the layout of a file. */
export type LayoutFlaw = 'empty' | 'cut' | 'malformed';

/** A file that is not in its layout: DAMAGED, with the kind of flaw and the place. */
export class LayoutError extends LightkeeperError {
  readonly flaw: LayoutFlaw;
  /** Where, in bytes from the start of the file. */
  readonly at: number;

  constructor(flaw: LayoutFlaw, at: number, state: string) {
    super('DAMAGED', `Cannot read the file at byte ${at}: ${state}`);
    this.flaw = flaw;
    this.at = at;
  }
}

/** What is said of a record whose name is too long to be held. */
export function longNameError(): LayoutError {
  return new LayoutError('malformed', 0, 'a record has a name of more than 64 KiB');
}

const SLOT_FIRST_BYTES = 256;

/** Room for one short text after another: copies of their own would be most of what there is to collect. */
export class TextSlot {
  #buffer = Buffer.allocUnsafeSlow(SLOT_FIRST_BYTES);
  #length = -1;

  set(bytes: Buffer): void {
    if (bytes.length > this.#buffer.length) this.#buffer = Buffer.allocUnsafeSlow(bytes.length * 2);
    bytes.copy(this.#buffer);
    this.#length = bytes.length;
  }

  clear(): void {
    this.#length = -1;
  }

  /** A view that holds until the next is set; undefined if there is none. */
  get bytes(): Buffer | undefined {
    return this.#length < 0 ? undefined : this.#buffer.subarray(0, this.#length);
  }
}

/** What is left of one chunk, joined with the next one in room that is used again. */
export class Remainder {
  #buffer: Buffer = Buffer.alloc(0);
  #length = 0;

  /** Bytes that are left. */
  get length(): number {
    return this.#length;
  }

  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  /** What is left, and the chunk behind it: a view that holds until `keep`. */
  join(chunk: Buffer): Buffer {
    if (this.#length === 0) return chunk;
    const length = this.#length + chunk.length;
    if (length > this.#buffer.length) {
      const larger = Buffer.allocUnsafeSlow(Math.ceil(length * 1.5));
      this.#buffer.copy(larger, 0, 0, this.#length);
      this.#buffer = larger;
    }
    chunk.copy(this.#buffer, this.#length);
    return this.#buffer.subarray(0, length);
  }

  /** Keeps a copy of what is left of joined bytes, or of a chunk: that belongs to whoever gave it. */
  save(bytes: Buffer, from: number): void {
    const length = bytes.length - from;
    if (length > this.#buffer.length) this.#buffer = Buffer.allocUnsafeSlow(length * 2);
    bytes.copy(this.#buffer, 0, from);
    this.#length = length;
  }
}

/** Reads a file that comes in chunks; the chunks are not kept. */
export interface ChunkReader {
  /** Throws `LayoutError`. */
  feed(chunk: Buffer): void;
  /** The file has ended. Throws `LayoutError` if it ended too early. */
  end(): void;
  /**
   * Passes over the next bytes, which were read before in another state of the file, `was` bytes behind the start of what
   * is long in it, if they mean the same here; false if they must be given.
   */
  skip?(was: number, bytes: number): boolean;
  /**
   * Passes over bytes that were read before, in an older state of the file, if what came ends between two records, as they
   * begin and end; false if it does not. `records` are those that were passed over here and before; unknown while more may
   * be.
   */
  skipRecords?(bytes: number, records: number | undefined): boolean;
  /** What its beginning says of how the rest is meant. */
  readonly declarations?: string | undefined;
  /** Whether it knows all that it wants to know: neither more bytes nor the end need be given. */
  readonly isDone?: boolean;
}
