import { isUtf8 } from 'node:buffer';
import { type ChunkReader, LayoutError } from './chunk-reader.ts';

/** Longest sequence of UTF-8, in bytes. */
const SEQUENCE_MAX = 4;

/** A reader joins what is left of one piece with the next: the shorter they are, the less it copies and holds. */
const PIECE_BYTES = 256 * 1024;

/** Says whether bytes that come in chunks are UTF-8: the checks take texts as they are, and Python would not. */
class Utf8Check {
  /** Of a character that has not ended. */
  #rest: Buffer = Buffer.alloc(0);

  feed(chunk: Buffer): boolean {
    const lacking = this.#rest.length === 0 ? 0 : lengthOf(this.#rest[0] as number) - this.#rest.length;
    const first = Buffer.concat([this.#rest, chunk.subarray(0, lacking)]);
    if (lacking > chunk.length) {
      this.#rest = first;
      return true;
    }
    const bytes = chunk.subarray(lacking);
    const whole = wholeCharacters(bytes);
    this.#rest = Buffer.from(bytes.subarray(whole));
    return isUtf8(first) && isUtf8(bytes.subarray(0, whole));
  }

  end(): boolean {
    return this.#rest.length === 0;
  }
}

/** Bytes of the character that a byte begins. */
function lengthOf(byte: number): number {
  return byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
}

/** How many bytes there are up to a character at the end that may not be whole. */
function wholeCharacters(bytes: Buffer): number {
  for (let back = 1; back < SEQUENCE_MAX && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back] as number;
    if (byte < 0x80) return bytes.length;
    const needed = byte >= 0xc0 ? lengthOf(byte) : 0;
    if (needed > 0) return needed > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

/** Gives a file to its reader, and sees that it is UTF-8. Throws `LayoutError` for what is not, or not in its layout. */
export class Utf8Reader implements ChunkReader {
  readonly #reader: ChunkReader;
  readonly #utf8 = new Utf8Check();
  #at = 0;

  constructor(reader: ChunkReader) {
    this.#reader = reader;
  }

  feed(chunk: Buffer): void {
    for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
      const piece = chunk.subarray(at, at + PIECE_BYTES);
      if (!this.#utf8.feed(piece)) throw this.#wrong();
      this.#reader.feed(piece);
      this.#at += piece.length;
    }
  }

  get declarations(): string | undefined {
    return this.#reader.declarations;
  }

  get isDone(): boolean {
    return this.#reader.isDone === true;
  }

  skip(was: number, bytes: number): boolean {
    if (this.#reader.skip?.(was, bytes) !== true) return false;
    this.#at += bytes;
    return true;
  }

  skipRecords(bytes: number, records: number | undefined): boolean {
    if (this.#reader.skipRecords?.(bytes, records) !== true) return false;
    this.#at += bytes;
    return true;
  }

  end(): void {
    // What is cut in a character is cut.
    this.#reader.end();
    if (!this.#utf8.end()) throw this.#wrong();
  }

  #wrong(): LayoutError {
    return new LayoutError('malformed', this.#at, 'it is not UTF-8');
  }
}
