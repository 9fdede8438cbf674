import { LayoutError } from './chunk-reader.ts';

export const FLOAT_BYTES = 4;
/** A matrix is decoded in pieces: longer texts live until all memory is searched for what is not used any more. */
const PIECE_BYTES = 64 << 10;
/** Nobody has vectors of more dimensions. */
const DIMENSION_MAX = 1 << 20;

/** What `embedding_dim` says. Throws `LayoutError` for what is no dimension. */
export function dimensionOf(text: string): number {
  const dimension = Number(text);
  if (!Number.isInteger(dimension) || dimension < 1 || dimension > DIMENSION_MAX)
    throw new LayoutError('malformed', 0, `an embedding_dim of ${text} cannot be`);
  return dimension;
}

/** Takes a row by its number, from 0. Its floats hold only during the call. */
export type TakeRow = (number: number, floats: Float32Array) => void;

/** The rows of a matrix that comes as base64 in pieces. Throws `LayoutError` for what is not base64. */
export class MatrixRows {
  readonly #rowBytes: number;
  readonly #take: TakeRow;
  readonly #row: Buffer;
  readonly #floats: Float32Array;
  /** Characters that make no whole group of four yet. */
  #rest = '';
  readonly #decoded = Buffer.allocUnsafeSlow(PIECE_BYTES);
  #filled = 0;
  #number = 0;
  #chars = 0;
  /** Characters, and then bytes, up to the next row: what is before them was passed over. */
  #skipChars = 0;
  #skipBytes = 0;
  /** Of the last characters; unknown if they were passed over. */
  #padding: number | undefined = 0;

  constructor(dimension: number, take: TakeRow) {
    if (dimension === 0) throw new LayoutError('malformed', 0, 'its embedding_dim does not come first');
    this.#rowBytes = dimension * FLOAT_BYTES;
    this.#take = take;
    // An ArrayBuffer of its own: floats must be aligned.
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

  /** Characters without those that belong to a group that was passed over. */
  #withoutSkipped(text: string): string {
    this.#chars += text.length;
    const passed = Math.min(this.#skipChars, text.length);
    this.#skipChars -= passed;
    return passed === 0 ? text : text.slice(passed);
  }

  /** Whether what was `was` characters behind the start of a matrix of these rows means the same rows here, or others. */
  isInPhase(was: number): boolean {
    // Groups of four characters and rows begin together every so many.
    const period = this.#rowBytes % 3 === 0 ? (this.#rowBytes / 3) * 4 : this.#rowBytes * 4;
    return (this.#chars - was) % period === 0;
  }

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

  /** Whether all characters together are so many bytes. */
  hasBytes(bytes: number): boolean {
    const padding = (3 - (bytes % 3)) % 3;
    const fits = this.#rest === '' && this.#chars === ((bytes + padding) / 3) * 4;
    return fits && (this.#padding ?? padding) === padding;
  }

  #decode(text: string): void {
    if (this.#padding !== undefined && this.#padding > 0)
      throw new LayoutError('malformed', 0, 'its matrix is not base64');
    const all = this.#decoded.subarray(0, this.#decoded.write(text, 'base64'));
    // The decoder passes over what is no base64 without a word: then there are fewer bytes than characters say.
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
