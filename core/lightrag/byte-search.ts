/** Lowest byte that is no control character. */
const SPACE = 0x20;
const SPACES = 0x20202020;
const HIGH_BITS = -0x7f7f7f80;
const WORD_BYTES = 4;
/** Words that are tested together. */
const WORDS = 4;
/** Bytes that are searched one by one before a native search, which costs a call. */
const NEAR_BYTES = 24;

/** Returns the place of the next such byte from `from` on; the length of the buffer without one. */
export function nextByte(buffer: Buffer, from: number, byte: number): number {
  const near = Math.min(from + NEAR_BYTES, buffer.length);
  for (let at = from; at < near; at++) if (buffer[at] === byte) return at;
  const found = near < buffer.length ? buffer.indexOf(byte, near) : -1;
  return found < 0 ? buffer.length : found;
}

/** Finds the control characters, bytes below 0x20, in one buffer after another. */
// Four bytes are tested at once: this scan passes over every byte of a graph.
export class ControlBytes {
  #bytes: Buffer = Buffer.alloc(0);
  #words: Int32Array = new Int32Array(0);
  /** Offset in the buffer of the first whole word. */
  #wordsAt = 0;

  /** Makes `bytes` the buffer to search. */
  reset(bytes: Buffer): void {
    this.#bytes = bytes;
    this.#wordsAt = Math.min((WORD_BYTES - (bytes.byteOffset % WORD_BYTES)) % WORD_BYTES, bytes.length);
    const words = Math.floor((bytes.length - this.#wordsAt) / WORD_BYTES);
    this.#words =
      words > 0 ? new Int32Array(bytes.buffer, bytes.byteOffset + this.#wordsAt, words) : new Int32Array(0);
  }

  /** Returns the offset of the first control character from `from` on; the length of the buffer without one. */
  next(from: number): number {
    const bytes = this.#bytes;
    const words = this.#words;
    let word = Math.max(0, Math.ceil((from - this.#wordsAt) / WORD_BYTES));
    const aligned = Math.min(this.#wordsAt + word * WORD_BYTES, bytes.length);
    for (let at = from; at < aligned; at++) if ((bytes[at] as number) < SPACE) return at;
    // One branch for several words: without a control character this is as fast as a native search.
    for (const end = words.length - WORDS; word <= end; word += WORDS) {
      const a = words[word] as number;
      const b = words[word + 1] as number;
      const c = words[word + 2] as number;
      const d = words[word + 3] as number;
      const hits = ((a - SPACES) & ~a) | ((b - SPACES) & ~b) | ((c - SPACES) & ~c) | ((d - SPACES) & ~d);
      if ((hits & HIGH_BITS) !== 0) break;
    }
    for (; word < words.length; word++) {
      const four = words[word] as number;
      if (((four - SPACES) & ~four & HIGH_BITS) !== 0) break;
    }
    for (let at = Math.max(from, this.#wordsAt + word * WORD_BYTES); at < bytes.length; at++)
      if ((bytes[at] as number) < SPACE) return at;
    return bytes.length;
  }
}
