import { isUtf8 } from 'node:buffer';
import { type ChunkReader, LayoutError } from './chunk-reader.ts';

/** Longest sequence of UTF-8, in bytes. */
const SEQUENCE_MAX = 4;

/** Bytes that are passed to the reader at once. */
// It joins the rest of one piece with the next: shorter pieces mean less copying and memory.
const PIECE_BYTES = 256 * 1024;

/** Validates UTF-8 that arrives in chunks. */
// The checks compare bytes and would accept what Python cannot decode.
class Utf8Check {
  /** Bytes of an unfinished character. */
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

/** Returns the length of the character that starts with a byte. */
function lengthOf(byte: number): number {
  return byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
}

/** Returns the number of bytes before an unfinished character at the end. */
function wholeCharacters(bytes: Buffer): number {
  for (let back = 1; back < SEQUENCE_MAX && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back] as number;
    if (byte < 0x80) return bytes.length;
    const needed = byte >= 0xc0 ? lengthOf(byte) : 0;
    if (needed > 0) return needed > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

/** Passes a file on to its reader and validates that a text is UTF-8. Throws `LayoutError` otherwise. */
export class Utf8Reader implements ChunkReader {
  readonly #reader: ChunkReader;
  readonly #utf8 = new Utf8Check();
  #at = 0;

  constructor(reader: ChunkReader) {
    this.#reader = reader;
  }

  feed(chunk: Buffer): void {
    const isBinary = this.#reader.isBinary === true;
    for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
      const piece = chunk.subarray(at, at + PIECE_BYTES);
      if (!isBinary && !this.#utf8.feed(piece)) throw this.#wrong();
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

  skip(previousOffset: number, bytes: number): boolean {
    if (this.#reader.skip?.(previousOffset, bytes) !== true) return false;
    this.#at += bytes;
    return true;
  }

  skipRecords(bytes: number, records: number | undefined): boolean {
    if (this.#reader.skipRecords?.(bytes, records) !== true) return false;
    this.#at += bytes;
    return true;
  }

  end(): void {
    // A file that ends within a character is reported as cut, not as malformed.
    this.#reader.end();
    if (!this.#utf8.end()) throw this.#wrong();
  }

  #wrong(): LayoutError {
    return new LayoutError('malformed', this.#at, 'it is not UTF-8');
  }
}
