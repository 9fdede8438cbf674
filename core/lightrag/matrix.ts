import { LayoutError } from './chunk-reader.ts';

export const FLOAT_BYTES = 4;
/** Characters that are decoded at once. */
// Longer texts stay alive until a full collection.
const PIECE_BYTES = 64 << 10;
/** Most dimensions of a vector. */
const DIMENSION_MAX = 1 << 20;

/** Parses `embedding_dim`. Throws `LayoutError` if it is no dimension. */
export function dimensionOf(text: string): number {
  const dimension = Number(text);
  if (!Number.isInteger(dimension) || dimension < 1 || dimension > DIMENSION_MAX)
    throw new LayoutError('malformed', 0, `the embedding_dim ${text} is not a dimension`);
  return dimension;
}

/** Receives row `number`, counted from 0. The floats are valid during the call only. */
export type TakeRow = (number: number, floats: Float32Array) => void;

/** Decodes the rows of a base64 matrix that arrives in pieces. Throws `LayoutError` for invalid base64. */
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
  /** Characters, and then bytes, of a row whose start was skipped: they are dropped. 0 if nothing was skipped. */
  #skipChars = 0;
  #skipBytes = 0;
  /** Padding characters at the end so far; undefined if the end was skipped. */
  #padding: number | undefined = 0;

  constructor(dimension: number, take: TakeRow) {
    if (dimension === 0) throw new LayoutError('malformed', 0, 'its matrix precedes embedding_dim');
    this.#rowBytes = dimension * FLOAT_BYTES;
    this.#take = take;
    // An ArrayBuffer of its own, because floats must be aligned.
    const memory = new ArrayBuffer(this.#rowBytes);
    this.#row = Buffer.from(memory);
    this.#floats = new Float32Array(memory);
  }

  feed(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      const text =
        this.#rest +
        this.#withoutSkipped(bytes.toString('latin1', at, Math.min(at + PIECE_BYTES, bytes.length)));
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

  /**
   * Reports whether text from offset `previousOffset` of the previous matrix decodes here to the same rows, or
   * whole rows later.
   */
  isInPhase(previousOffset: number): boolean {
    // Groups of four characters and rows start together once in a period.
    const period = this.#rowBytes % 3 === 0 ? (this.#rowBytes / 3) * 4 : this.#rowBytes * 4;
    return (this.#chars - previousOffset) % period === 0;
  }

  /** Skips `chars` characters that were decoded in the previous snapshot. */
  skip(chars: number): void {
    this.#chars += chars;
    this.#skipChars = (4 - (this.#chars % 4)) % 4;
    const at = ((this.#chars + this.#skipChars) / 4) * 3;
    this.#number = Math.ceil(at / this.#rowBytes);
    this.#skipBytes = this.#number * this.#rowBytes - at;
    this.#filled = 0;
    this.#rest = '';
    this.#padding = undefined;
  }

  /** Reports whether the whole text decodes to `bytes` bytes. */
  hasBytes(bytes: number): boolean {
    const padding = (3 - (bytes % 3)) % 3;
    const fits = this.#rest === '' && this.#chars === ((bytes + padding) / 3) * 4;
    return fits && (this.#padding ?? padding) === padding;
  }

  #decode(text: string): void {
    if (this.#padding !== undefined && this.#padding > 0)
      throw new LayoutError('malformed', 0, 'its matrix is not base64');
    const all = this.#decoded.subarray(0, this.#decoded.write(text, 'base64'));
    // Node's decoder skips invalid characters silently: then there are fewer bytes than the characters imply.
    const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
    if (all.length !== (text.length / 4) * 3 - padding || (padding === 0 && text.includes('=')))
      throw new LayoutError('malformed', 0, 'its matrix is not base64');
    this.#padding = padding;
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
