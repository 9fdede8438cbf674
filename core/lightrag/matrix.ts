import { LayoutError } from './chunk-reader.ts';

export const FLOAT_BYTES = 4;
/** Characters that are decoded at once. */
// Longer texts stay alive until a full collection.
const PIECE_BYTES = 64 << 10;
const SPACE = 0x20;
const ASCII_MAX = 0x7f;
const BASE64 = /^[A-Za-z0-9+/]$/;
/** Most dimensions of a vector. */
const DIMENSION_MAX = 1 << 20;

/** Parses `embedding_dim`. Throws `LayoutError` if numpy takes it for no dimension. */
export function dimensionOf(text: string): number {
  const dimension = /^[0-9]+$/.test(text) ? Number(text) : 0;
  if (dimension < 1 || dimension > DIMENSION_MAX)
    throw new LayoutError('malformed', 0, `the embedding_dim ${text.slice(0, 40)} is not a dimension`);
  return dimension;
}

/** Receives row `number`, counted from 0. The floats are valid during the call only. */
export type TakeRow = (number: number, floats: Float32Array) => void;

/** Decodes the rows of a base64 matrix that arrives in pieces, as Python's `b64decode` does. */
// Python ignores characters that are not base64, and everything after the padding.
export class MatrixRows {
  readonly #rowBytes: number;
  readonly #take: TakeRow;
  readonly #row: Buffer;
  readonly #floats: Float32Array;
  /** Characters of an unfinished group of four. */
  #rest = '';
  readonly #decoded = Buffer.allocUnsafeSlow(PIECE_BYTES);
  #filled = 0;
  #number = 0;
  #chars = 0;
  /** Bytes decoded or skipped. */
  #bytes = 0;
  /** Characters, and then bytes, of a row whose start was skipped: they are dropped. 0 if nothing was skipped. */
  #skipChars = 0;
  #skipBytes = 0;
  /** Whether the last characters were skipped, so that their padding is unknown. */
  #isEndSkipped = false;
  /** Whether the padding was read, after which everything is ignored. */
  #hasEnded = false;
  #isCanonical = true;

  /** Makes a decoder. With the dimension 0, which means that it is unknown, bytes are counted only. */
  constructor(dimension: number, take: TakeRow) {
    this.#rowBytes = dimension * FLOAT_BYTES;
    this.#take = take;
    // An ArrayBuffer of its own, because floats must be aligned.
    const memory = new ArrayBuffer(this.#rowBytes);
    this.#row = Buffer.from(memory);
    this.#floats = new Float32Array(memory);
  }

  /** Decodes the next piece. Throws `LayoutError` for control characters, which must come without escapes. */
  feed(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      const piece = bytes.toString('latin1', at, Math.min(at + PIECE_BYTES, bytes.length));
      if (this.#hasEnded) {
        requireText(piece);
        continue;
      }
      const text = this.#rest + this.#withoutSkipped(piece);
      const whole = text.length - (text.length % 4);
      this.#rest = text.slice(whole);
      if (whole > 0) this.#decode(text.slice(0, whole));
    }
  }

  /** Returns the text without the characters of a group whose start was skipped. */
  #withoutSkipped(text: string): string {
    this.#chars += text.length;
    const passed = Math.min(this.#skipChars, text.length);
    this.#skipChars -= passed;
    return passed === 0 ? text : text.slice(passed);
  }

  /** Whether the text so far has only characters of base64. */
  get isCanonical(): boolean {
    return this.#isCanonical;
  }

  /**
   * Reports whether text from offset `previousOffset` of the previous matrix decodes here to the same rows, or
   * whole rows later.
   */
  isInPhase(previousOffset: number): boolean {
    if (!this.#isCanonical || this.#hasEnded || this.#rowBytes === 0) return false;
    // Groups of four characters and rows start together once in a period.
    const period = this.#rowBytes % 3 === 0 ? (this.#rowBytes / 3) * 4 : this.#rowBytes * 4;
    return (this.#chars - previousOffset) % period === 0;
  }

  /** Skips `chars` characters that were decoded in the previous snapshot. */
  skip(chars: number): void {
    this.#chars += chars;
    this.#skipChars = (4 - (this.#chars % 4)) % 4;
    const at = ((this.#chars + this.#skipChars) / 4) * 3;
    this.#bytes = at;
    this.#number = Math.ceil(at / this.#rowBytes);
    this.#skipBytes = this.#number * this.#rowBytes - at;
    this.#filled = 0;
    this.#rest = '';
    this.#isEndSkipped = true;
  }

  /** Returns the number of rows of a dimension at the end of the text. Throws `LayoutError` unless they are whole. */
  rowsOf(dimension: number): number {
    if (!this.#hasEnded) {
      this.#finish();
      if (this.#rest !== '' || this.#skipChars > 0)
        throw new LayoutError('malformed', 0, 'its matrix is not base64');
    }
    const rowBytes = dimension * FLOAT_BYTES;
    for (const padding of this.#isEndSkipped ? [0, 1, 2] : [0])
      if ((this.#bytes - padding) % rowBytes === 0) return (this.#bytes - padding) / rowBytes;
    throw new LayoutError('malformed', 0, 'its matrix does not consist of whole rows');
  }

  /** Decodes the last characters where some of them are not base64. */
  #finish(): void {
    const text = this.#rest;
    this.#rest = '';
    if (text !== '') this.#decodeOdd(text);
  }

  #decode(text: string): void {
    const length = this.#decoded.write(text, 'base64');
    // Node's decoder takes "-" and "_" for characters, and skips all others silently: then there are fewer bytes.
    const isPlain =
      length === (text.length / 4) * 3 && !text.includes('=') && !text.includes('-') && !text.includes('_');
    if (isPlain) this.#takeBytes(this.#decoded.subarray(0, length));
    else this.#decodeOdd(text);
  }

  /** Decodes text with padding, or with characters that are not base64. */
  #decodeOdd(text: string): void {
    requireText(text + this.#rest);
    let clean = '';
    let padding = '';
    for (let i = 0; i < text.length && !this.#hasEnded; i++) {
      const character = text[i] as string;
      const place = clean.length % 4;
      if (BASE64.test(character)) {
        clean += character;
        padding = '';
      } else if (character === '=' && place >= 2) {
        padding += character;
        this.#hasEnded = place + padding.length >= 4;
      } else this.#isCanonical = false;
    }
    const whole = this.#hasEnded ? clean.length : clean.length - (clean.length % 4);
    this.#takeBytes(Buffer.from(clean.slice(0, whole), 'base64'));
    this.#rest = this.#hasEnded ? '' : clean.slice(whole) + padding + this.#rest;
  }

  #takeBytes(all: Buffer): void {
    this.#bytes += all.length;
    this.#isEndSkipped = false;
    if (this.#rowBytes === 0) return;
    const passed = Math.min(this.#skipBytes, all.length);
    this.#skipBytes -= passed;
    const bytes = all.subarray(passed);
    for (let at = 0; at < bytes.length; ) {
      const length = Math.min(this.#rowBytes - this.#filled, bytes.length - at);
      bytes.copy(this.#row, this.#filled, at, at + length);
      this.#filled += length;
      at += length;
      if (this.#filled === this.#rowBytes) this.#endRow();
    }
  }

  #endRow(): void {
    this.#filled = 0;
    this.#take(this.#number++, this.#floats);
  }
}

/** Refuses what JSON does not allow in a text, and what Python does not allow in base64. */
function requireText(text: string): void {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < SPACE || code > ASCII_MAX)
      throw new LayoutError('malformed', 0, 'its matrix contains a control character, or one beyond ASCII');
  }
}
