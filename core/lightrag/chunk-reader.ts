import { LightkeeperError } from '../errors.ts';

/** Most bytes of a string that a reader buffers; a longer one is reported in pieces. */
export const SHORT_STRING_BYTES_MAX = 64 * 1024;

/** The kind of a violation of a file's layout. */
export type LayoutFlaw = 'empty' | 'cut' | 'malformed';

/** A violation of a file's layout: DAMAGED, with its kind and place. */
export class LayoutError extends LightkeeperError {
  readonly flaw: LayoutFlaw;
  /** Offset in bytes from the start of the file. */
  readonly at: number;

  constructor(flaw: LayoutFlaw, at: number, state: string) {
    super('DAMAGED', `Cannot read the file at byte ${at}: ${state}`);
    this.flaw = flaw;
    this.at = at;
  }
}

/** Makes the error for a record whose name is too long to be buffered. */
export function longNameError(): LayoutError {
  return new LayoutError('malformed', 0, 'a record has a name of more than 64 KiB');
}

const SLOT_FIRST_BYTES = 256;

/** Holds one short text after another in the same memory. */
// Copies of their own would be most of the garbage.
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

  /** A view that is valid until the next `set`; undefined if there is no text. */
  get bytes(): Buffer | undefined {
    return this.#length < 0 ? undefined : this.#buffer.subarray(0, this.#length);
  }
}

/** Joins the unread rest of one chunk with the next one, in memory that is reused. */
export class Remainder {
  #buffer: Buffer = Buffer.alloc(0);
  #length = 0;

  /** Number of unread bytes. */
  get length(): number {
    return this.#length;
  }

  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  /** Returns the unread bytes followed by a chunk, as a view that is valid until `save`. */
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

  /** Copies the unread bytes from `from` on. */
  // The bytes belong to the caller, who may overwrite them.
  save(bytes: Buffer, from: number): void {
    const length = bytes.length - from;
    if (length > this.#buffer.length) this.#buffer = Buffer.allocUnsafeSlow(length * 2);
    bytes.copy(this.#buffer, 0, from);
    this.#length = length;
  }
}

/** Reads a file that arrives in chunks. Keeps no reference to a chunk. */
export interface ChunkReader {
  /** Reads the next chunk. Throws `LayoutError`. */
  feed(chunk: Buffer): void;
  /** Ends the file. Throws `LayoutError` if it ended too early. */
  end(): void;
  /**
   * Skips `bytes` bytes unchanged since the previous snapshot, which began at `previousOffset` in the matrix text.
   * Returns false if they must be read.
   */
  skip?(previousOffset: number, bytes: number): boolean;
  /**
   * Skips `bytes` bytes of whole records unchanged since the previous snapshot. Returns false if they must be read.
   *
   * `records` counts the records skipped since the last call with a count; undefined while more may follow.
   */
  skipRecords?(bytes: number, records: number | undefined): boolean;
  /** Declarations at the start of the file on which the meaning of later records depends, as text. */
  readonly declarations?: string | undefined;
  /** Whether the reader needs neither more bytes nor the end. */
  readonly isDone?: boolean;
  /** Whether the file is not text, so that its bytes need not be UTF-8. */
  readonly isBinary?: boolean;
}
