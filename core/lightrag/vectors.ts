import { hash } from 'node:crypto';
import { inflateSync } from 'node:zlib';
import { type Facts, pairName, pairParts, rowEntityState, rowRelationState } from './facts.ts';
import { LayoutReader, unescaped } from './json.ts';
import { Held, LayoutError } from './text.ts';

/** Rows whose `vector` is compared with the matrix: all of a small file, evenly chosen ones of a large one. */
const COMPARED_MAX = 128;
const COSINE_MIN = 0.99;
/** Nobody has vectors of more dimensions. */
const DIMENSION_MAX = 1 << 20;
const FLOAT_BYTES = 4;
const HALF_BYTES = 2;
/** A matrix is decoded in pieces: longer texts live until all memory is searched for what is not used any more. */
const PIECE_BYTES = 64 << 10;
const NONE: Buffer = Buffer.alloc(0);

/** The fields of a row that are looked at. */
class Row {
  readonly id = new Held();
  readonly entity = new Held();
  readonly source = new Held();
  readonly target = new Held();
  /** What it was made of, and from which chunks. */
  readonly content = new Held();
  readonly sources = new Held();
  /** A copy: it is kept until the matrix comes. */
  vector: Buffer | undefined;

  clear(): void {
    for (const held of [this.id, this.entity, this.source, this.target, this.content, this.sources])
      held.clear();
    this.vector = undefined;
  }
}

/** Which of the three files of vectors. */
export type VectorFile = 'chunks' | 'entities' | 'relationships';

/**
 * Reads a file of NanoVectorDB, `{"embedding_dim": D, "data": [rows], "matrix": "base64"}`, with whatever other keys:
 * ids and names of the rows, the length of the matrix, rows that are no vector, and whether rows and matrix agree.
 */
export class VectorReader extends LayoutReader {
  readonly #facts: Facts;
  readonly #file: VectorFile;
  #depth = 0;
  #top = '';
  #field = '';
  readonly #row = new Row();
  #rows = 0;
  #dimension = 0;
  /** `vector` of every `#step`-th row, deflated. */
  #vectors = new Map<number, { id: Buffer; packed: Buffer }>();
  #step = 1;
  #matrix: MatrixRows | undefined;
  #matrixAt = 0;
  #hasMatrix = false;

  constructor(facts: Facts, file: VectorFile) {
    super();
    this.#facts = facts;
    this.#file = file;
  }

  override end(): void {
    super.end();
    const { missing } = this;
    if (missing !== undefined) throw new LayoutError('malformed', 0, `it has no ${missing}`);
    this.#facts.vectors(this.#rows, this.#dimension, this.#matrixAt);
  }

  private get missing(): string | undefined {
    if (this.#dimension === 0) return 'embedding_dim';
    // A store into which nothing was ever written has no matrix.
    return this.#hasMatrix || this.#rows === 0 ? undefined : 'matrix';
  }

  open(isList: boolean): void {
    if (this.#depth === 0 && isList) throw new LayoutError('malformed', 0, 'it is no file of vectors');
    this.#depth += 1;
    if (this.#depth === 3 && this.#top === 'data') this.#row.clear();
  }

  close(): void {
    if (this.#depth === 3 && this.#top === 'data') this.#endRow();
    this.#depth -= 1;
  }

  key(bytes: Buffer): void {
    if (this.#depth === 1) this.#top = bytes.toString('latin1');
    else if (this.#depth === 3) this.#field = bytes.toString('latin1');
  }

  bare(text: string): void {
    if (this.#depth !== 1 || this.#top !== 'embedding_dim') return;
    const dimension = Number(text);
    if (!Number.isInteger(dimension) || dimension < 1 || dimension > DIMENSION_MAX)
      throw new LayoutError('malformed', 0, `an embedding_dim of ${text} cannot be`);
    this.#dimension = dimension;
  }

  string(bytes: Buffer, escaped: boolean): void {
    if (this.#depth === 1 && this.#top === 'matrix') {
      this.piece(bytes);
      this.#endMatrix();
    } else if (this.#depth === 3 && this.#top === 'data') this.#take(bytes, escaped);
  }

  piece(bytes: Buffer): void {
    if (this.#depth !== 1 || this.#top !== 'matrix') return;
    if (this.#matrix === undefined) {
      this.#matrix = new MatrixRows(this.#dimension, this.#vectors, this.#facts);
      this.#matrixAt = this.longAt ?? 0;
    }
    this.#matrix.feed(bytes);
  }

  /** Rows of a matrix that were read before mean the same where they are, or whole rows further on. */
  skip(was: number, bytes: number): boolean {
    const matrix = this.#matrix;
    if (matrix === undefined || this.longAt === undefined || !matrix.isInPhase(was)) return false;
    this.passOver(bytes);
    matrix.skip(bytes);
    return true;
  }

  long(_: number, isKey: boolean): void {
    if (!isKey && this.#depth === 1 && this.#top === 'matrix') this.#endMatrix();
  }

  #take(bytes: Buffer, escaped: boolean): void {
    const row = this.#row;
    if (this.#field === 'vector') {
      if (this.#rows % this.#step === 0) row.vector = Buffer.from(unescaped(bytes, escaped));
      return;
    }
    this.#place()?.set(unescaped(bytes, escaped));
  }

  #place(): Held | undefined {
    const row = this.#row;
    switch (this.#field) {
      case '__id__':
        return row.id;
      case 'entity_name':
        return row.entity;
      case 'src_id':
        return row.source;
      case 'tgt_id':
        return row.target;
      case 'content':
        return this.#file === 'chunks' ? undefined : row.content;
      case 'source_id':
        return this.#file === 'chunks' ? undefined : row.sources;
      default:
        return undefined;
    }
  }

  #endRow(): void {
    const row = this.#row;
    const { vector } = row;
    const id = row.id.bytes ?? NONE;
    const [entity, source, target] = [row.entity.bytes, row.source.bytes, row.target.bytes];
    this.#state(entity, source, target);
    if (this.#file === 'entities' && entity !== undefined) {
      this.#facts.name('entityVectors', entity);
      if (id.toString('latin1') !== `ent-${hash('md5', entity)}`) this.#facts.flaw('entity_id', entity);
    } else if (this.#file === 'relationships' && source !== undefined && target !== undefined) {
      this.#facts.name('relationVectors', ...pairParts(source, target));
      if (!isRelationId(id.toString('latin1'), source, target))
        this.#facts.flaw('relation_id', pairName(source, target));
    } else if (this.#file === 'chunks') this.#facts.name('chunkVectors', id);
    if (vector !== undefined) this.#vectors.set(this.#rows, { id: Buffer.from(id), packed: vector });
    this.#rows += 1;
    if (this.#vectors.size <= COMPARED_MAX) return;
    this.#step *= 2;
    for (const row of this.#vectors.keys()) if (row % this.#step !== 0) this.#vectors.delete(row);
  }

  #state(entity: Buffer | undefined, source: Buffer | undefined, target: Buffer | undefined): void {
    const [content, sources] = [this.#row.content.bytes, this.#row.sources.bytes];
    if (content === undefined || sources === undefined) return;
    const isEntity = this.#file === 'entities';
    const state =
      isEntity && entity !== undefined
        ? rowEntityState(entity, content, sources)
        : source !== undefined && target !== undefined
          ? rowRelationState(source, target, content, sources)
          : undefined;
    if (state !== undefined) this.#facts.name(isEntity ? 'entityStates' : 'relationStates', ...state);
  }

  #endMatrix(): void {
    this.#hasMatrix = true;
    const expected = this.#rows * this.#dimension * FLOAT_BYTES;
    if (this.#matrix?.isLong(expected) !== true) this.#facts.flaw('matrix_length', Buffer.from('matrix'));
    this.#vectors.clear();
  }
}

function isRelationId(id: string, source: Buffer, target: Buffer): boolean {
  const idOf = (a: Buffer, b: Buffer) => `rel-${hash('md5', Buffer.concat([a, b]))}`;
  return id === idOf(source, target) || id === idOf(target, source);
}

/** The rows of a matrix that comes as base64 in pieces. */
class MatrixRows {
  readonly #rowBytes: number;
  readonly #vectors: ReadonlyMap<number, { id: Buffer; packed: Buffer }>;
  readonly #facts: Facts;
  readonly #row: Buffer;
  readonly #floats: Float32Array;
  /** Characters that make no whole group of four yet. */
  #rest = '';
  readonly #decoded = Buffer.allocUnsafeSlow(PIECE_BYTES);
  #filled = 0;
  #number = 0;
  #chars = 0;
  /** Characters, and then bytes, up to the next row: what is before them was passed over. */
  #passChars = 0;
  #passBytes = 0;
  /** Of the last characters; unknown if they were passed over. */
  #padding: number | undefined = 0;

  constructor(dimension: number, vectors: ReadonlyMap<number, { id: Buffer; packed: Buffer }>, facts: Facts) {
    if (dimension === 0) throw new LayoutError('malformed', 0, 'its embedding_dim does not come first');
    this.#rowBytes = dimension * FLOAT_BYTES;
    this.#vectors = vectors;
    this.#facts = facts;
    // An ArrayBuffer of its own: floats must be aligned.
    const memory = new ArrayBuffer(this.#rowBytes);
    this.#row = Buffer.from(memory);
    this.#floats = new Float32Array(memory);
  }

  feed(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      const text =
        this.#rest + this.#fresh(bytes.toString('latin1', at, Math.min(at + PIECE_BYTES, bytes.length)));
      const whole = text.length - (text.length % 4);
      this.#rest = text.slice(whole);
      if (whole > 0) this.#decode(text.slice(0, whole));
    }
  }

  /** Characters without those that belong to a group that was passed over. */
  #fresh(text: string): string {
    this.#chars += text.length;
    const passed = Math.min(this.#passChars, text.length);
    this.#passChars -= passed;
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
    this.#passChars = (4 - (this.#chars % 4)) % 4;
    const at = ((this.#chars + this.#passChars) / 4) * 3;
    this.#number = Math.ceil(at / this.#rowBytes);
    this.#passBytes = this.#number * this.#rowBytes - at;
    this.#filled = 0;
    this.#rest = '';
    this.#padding = undefined;
  }

  /** Whether all characters together are so many bytes. */
  isLong(bytes: number): boolean {
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
    const passed = Math.min(this.#passBytes, all.length);
    this.#passBytes -= passed;
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
    const number = this.#number++;
    const floats = this.#floats;
    let square = 0;
    for (let i = 0; i < floats.length; i++) square += (floats[i] as number) * (floats[i] as number);
    // NaN and infinity carry on into the sum.
    if (!(square > 0 && square < Number.POSITIVE_INFINITY)) {
      this.#facts.flaw('bad_vector', Buffer.from(`row ${number}`));
      return;
    }
    const vector = this.#vectors.get(number);
    if (vector !== undefined && !agrees(vector.packed, this.#floats))
      this.#facts.flaw('vector_mismatch', vector.id);
  }
}

/** Whether a deflated float16 vector points where the row of the matrix does. */
function agrees(packed: Buffer, floats: Float32Array): boolean {
  const deflated = Buffer.from(packed.toString('latin1'), 'base64');
  let halves: Buffer;
  try {
    halves = inflateSync(deflated, { maxOutputLength: floats.length * HALF_BYTES });
  } catch {
    // Not base64, not deflated, or more than a vector: either way not this one.
    return false;
  }
  if (halves.length !== floats.length * HALF_BYTES) return false;
  let dot = 0;
  let left = 0;
  let right = 0;
  for (let i = 0; i < floats.length; i++) {
    const a = floats[i] as number;
    const b = HALVES[(halves[2 * i] as number) | ((halves[2 * i + 1] as number) << 8)] as number;
    dot += a * b;
    left += a * a;
    right += b * b;
  }
  return dot >= COSINE_MIN * Math.sqrt(left * right) && right > 0;
}

/** Every IEEE 754 half as a number. */
const HALVES = Float32Array.from({ length: 1 << 16 }, (_, word) => {
  const exponent = (word >> 10) & 31;
  const fraction = word & 1023;
  const size =
    exponent === 31
      ? fraction === 0
        ? Number.POSITIVE_INFINITY
        : Number.NaN
      : exponent === 0
        ? fraction * 2 ** -24
        : (1024 + fraction) * 2 ** (exponent - 25);
  return (word & 0x8000) === 0 ? size : -size;
});
