import { hash } from 'node:crypto';
import { inflateSync } from 'node:zlib';
import { LayoutError, TextSlot } from './chunk-reader.ts';
import { type FactSink, pairName, pairParts, separated } from './facts.ts';
import { LayoutReader, unescaped } from './json.ts';
import { dimensionOf, FLOAT_BYTES, MatrixRows } from './matrix.ts';

/** Most rows whose `vector` is compared with the matrix, evenly spaced in a larger file. */
const COMPARED_MAX = 128;
const COSINE_MIN = 0.99;
const HALF_BYTES = 2;
const NONE: Buffer = Buffer.alloc(0);

/** The fields of a row that the checks use. */
class Row {
  readonly id = new TextSlot();
  readonly entity = new TextSlot();
  readonly source = new TextSlot();
  readonly target = new TextSlot();
  /** Source chunks; read only where they are asked for. */
  readonly sources = new TextSlot();
  /** A copy, because the matrix comes later. */
  vector: Buffer | undefined;

  clear(): void {
    for (const held of [this.id, this.entity, this.source, this.target, this.sources]) held.clear();
    this.vector = undefined;
  }
}

/** The kind of a file of vectors. */
export type VectorFile = 'chunks' | 'entities' | 'relationships';

/** Returns the kind of the file of vectors at a path, or undefined for other files. */
export function vectorFileOf(path: string): VectorFile | undefined {
  return /^vdb_(chunks|entities|relationships)\.json$/.exec(path)?.[1] as VectorFile | undefined;
}

/**
 * Reads a NanoVectorDB file, `{"embedding_dim": D, "data": [rows], "matrix": "base64"}`, with any other keys.
 *
 * Reports the ids and names of the rows, a wrong matrix length, rows that are no vector, and rows that differ from
 * the matrix.
 */
export class VectorReader extends LayoutReader {
  readonly #facts: FactSink;
  readonly #file: VectorFile;
  #depth = 0;
  #top = '';
  #field = '';
  readonly #row = new Row();
  #rows = 0;
  #dimension = 0;
  /** Deflated `vector` of every `#step`-th row. */
  #vectors = new Map<number, { id: Buffer; packed: Buffer }>();
  #step = 1;
  #matrix: MatrixRows | undefined;
  #matrixAt = 0;
  #hasMatrix = false;
  readonly #rowsOnly: boolean;
  /** Whether the number of skipped rows is known, and with it the matrix row of the next one. */
  #isNumbered = true;

  /** Makes a reader. With `rowsOnly` neither the matrix nor what follows it is read. */
  constructor(facts: FactSink, file: VectorFile, { rowsOnly = false } = {}) {
    super();
    this.#facts = facts;
    this.#file = file;
    this.#rowsOnly = rowsOnly;
  }

  override end(): void {
    if (this.#rowsOnly) {
      this.#facts.vectors(this.#rows, this.#dimension, 0);
      return;
    }
    super.end();
    const { missing } = this;
    if (missing !== undefined) throw new LayoutError('malformed', 0, `it has no ${missing}`);
    this.#facts.vectors(this.#rows, this.#dimension, this.#matrixAt);
  }

  private get missing(): string | undefined {
    if (this.#dimension === 0) return 'embedding_dim';
    // A store that was never written to has no matrix.
    return this.#hasMatrix || this.#rows === 0 ? undefined : 'matrix';
  }

  open(isList: boolean): void {
    if (this.#depth === 0 && isList) throw new LayoutError('malformed', 0, 'it is not a file of vectors');
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
    this.#dimension = dimensionOf(text);
  }

  string(bytes: Buffer, escaped: boolean): void {
    if (this.#depth === 1 && this.#top === 'matrix') {
      this.piece(bytes);
      if (!this.#rowsOnly) this.#endMatrix();
    } else if (this.#depth === 3 && this.#top === 'data') this.#take(bytes, escaped);
  }

  piece(bytes: Buffer): void {
    if (this.#depth !== 1 || this.#top !== 'matrix' || this.#rowsOnly) return;
    if (this.#matrix === undefined) {
      this.#matrix = new MatrixRows(this.#dimension, (number, floats) => this.#checkRow(number, floats));
      this.#matrixAt = this.longAt ?? 0;
    }
    this.#matrix.feed(bytes);
  }

  /** Rows of a matrix decode to the same numbers at the same phase of base64 groups and rows. */
  skip(previousOffset: number, bytes: number): boolean {
    const matrix = this.#matrix;
    if (matrix === undefined || this.longAt === undefined || !matrix.isInPhase(previousOffset)) return false;
    this.skipInString(bytes);
    matrix.skip(bytes);
    return true;
  }

  skipRecords(bytes: number, rows: number | undefined): boolean {
    if (this.#top !== 'data' || !this.skipEntries(2, bytes)) return false;
    this.#isNumbered = rows !== undefined;
    this.#rows += rows ?? 0;
    return true;
  }

  long(_: number, isKey: boolean): void {
    if (!isKey && !this.#rowsOnly && this.#depth === 1 && this.#top === 'matrix') this.#endMatrix();
  }

  #take(bytes: Buffer, escaped: boolean): void {
    const row = this.#row;
    if (this.#field === 'vector') {
      if (this.#isNumbered && this.#rows % this.#step === 0)
        row.vector = Buffer.from(unescaped(bytes, escaped));
      return;
    }
    this.#place()?.set(unescaped(bytes, escaped));
  }

  #place(): TextSlot | undefined {
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
      case 'source_id':
        return this.#facts.source === undefined ? undefined : row.sources;
      default:
        return undefined;
    }
  }

  #endRow(): void {
    const row = this.#row;
    const { vector } = row;
    const id = row.id.bytes ?? NONE;
    const [entity, source, target] = [row.entity.bytes, row.source.bytes, row.target.bytes];
    if (this.#file === 'entities' && entity !== undefined) {
      this.#facts.name('entityVectors', entity);
      if (id.toString('latin1') !== `ent-${hash('md5', entity)}`) this.#facts.flaw('entity_id', entity);
    } else if (this.#file === 'relationships' && source !== undefined && target !== undefined) {
      this.#facts.name('relationVectors', ...pairParts(source, target));
      if (!isRelationId(id.toString('latin1'), source, target))
        this.#facts.flaw('relation_id', pairName(source, target));
    } else if (this.#file === 'chunks') this.#facts.name('chunkVectors', id);
    for (const chunk of separated(row.sources.bytes ?? NONE)) this.#facts.source?.(chunk);
    if (vector !== undefined) this.#vectors.set(this.#rows, { id: Buffer.from(id), packed: vector });
    this.#rows += 1;
    if (this.#vectors.size <= COMPARED_MAX) return;
    this.#step *= 2;
    for (const row of this.#vectors.keys()) if (row % this.#step !== 0) this.#vectors.delete(row);
  }

  #checkRow(number: number, floats: Float32Array): void {
    let square = 0;
    for (let i = 0; i < floats.length; i++) square += (floats[i] as number) * (floats[i] as number);
    // NaN and infinity propagate into the sum.
    if (!(square > 0 && square < Number.POSITIVE_INFINITY)) {
      this.#facts.flaw('bad_vector', Buffer.from(`row ${number}`));
      return;
    }
    const vector = this.#vectors.get(number);
    if (vector !== undefined && !agrees(vector.packed, floats))
      this.#facts.flaw('vector_mismatch', vector.id);
  }

  #endMatrix(): void {
    this.#hasMatrix = true;
    const expected = this.#rows * this.#dimension * FLOAT_BYTES;
    if (this.#matrix?.hasBytes(expected) !== true) this.#facts.flaw('matrix_length', Buffer.from('matrix'));
    this.#vectors.clear();
  }
}

function isRelationId(id: string, source: Buffer, target: Buffer): boolean {
  const idOf = (a: Buffer, b: Buffer) => `rel-${hash('md5', Buffer.concat([a, b]))}`;
  return id === idOf(source, target) || id === idOf(target, source);
}

/** Reports whether a deflated float16 vector has the direction of a row of the matrix. */
function agrees(packed: Buffer, floats: Float32Array): boolean {
  const deflated = Buffer.from(packed.toString('latin1'), 'base64');
  let halves: Buffer;
  try {
    halves = inflateSync(deflated, { maxOutputLength: floats.length * HALF_BYTES });
  } catch {
    // Not base64, not deflated, or longer than a vector: in each case it differs.
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

/** Every IEEE 754 half-precision value by its bits. */
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
