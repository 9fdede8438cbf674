import { hash } from 'node:crypto';
import { inflateSync } from 'node:zlib';
import { LayoutError, TextSlot } from './chunk-reader.ts';
import { type FactSink, pairName, pairParts, separated } from './facts.ts';
import { LayoutReader, unescaped } from './json.ts';
import { dimensionOf, MatrixRows } from './matrix.ts';

/** Most rows whose `vector` is compared with the matrix, evenly spaced in a larger file. */
const COMPARED_MAX = 128;
const COSINE_MIN = 0.99;
/** Least number and share of compared rows that differ from the matrix if its rows have moved. */
const MOVED_MIN = 2;
const MOVED_SHARE = 0.25;
const HALF_BYTES = 2;
/** Start of the escape of half a surrogate pair. */
const SURROGATE_ESCAPE = '\\ud';
const BACKSLASH = 0x5c;
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
  /** Whether its id is too long to be a name here. */
  hasId = false;

  clear(): void {
    for (const held of [this.id, this.entity, this.source, this.target, this.sources]) held.clear();
    this.vector = undefined;
    this.hasId = false;
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
 * Reports the ids and names of the rows, rows without them, a wrong matrix length, rows that are no vector, and rows
 * that differ from the matrix. Keys may come in any order; rows of a matrix before `embedding_dim` are counted only.
 */
export class VectorReader extends LayoutReader {
  readonly #facts: FactSink;
  readonly #file: VectorFile;
  #depth = 0;
  #top = '';
  #field = '';
  readonly #row = new Row();
  /** Whether the row being read is a map. */
  #isMap = false;
  #rows = 0;
  #dimension = 0;
  /** Deflated `vector` of every `#step`-th row. */
  #vectors = new Map<number, { id: Buffer; packed: Buffer }>();
  #step = 1;
  /** Number of compared rows, and of those that differ. */
  #compared = 0;
  #differing = 0;
  #matrix: MatrixRows | undefined;
  #matrixAt = 0;
  #hasData = false;
  readonly #rowsOnly: boolean;
  /** Whether the number of skipped rows is known, and with it the matrix row of the next one. */
  #isNumbered = true;

  /** Makes a reader. With `rowsOnly` neither the matrix nor the end of the file is checked. */
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
    const missing = this.#dimension === 0 ? 'embedding_dim' : this.#hasData ? 'matrix' : 'data';
    if (this.#matrix === undefined || missing !== 'matrix')
      throw new LayoutError('malformed', 0, `it has no ${missing}`);
    if (this.#matrix.rowsOf(this.#dimension) !== this.#rows)
      this.#facts.flaw('matrix_length', Buffer.from('matrix'));
    this.#checkOrder();
    this.#facts.vectors(this.#rows, this.#dimension, this.#matrix.isCanonical ? this.#matrixAt : 0);
  }

  open(isList: boolean): void {
    if (this.#depth === 0 && isList) throw new LayoutError('malformed', 0, 'it is not a file of vectors');
    if (this.#depth === 1) this.#beginTop(isList ? 'list' : 'map');
    this.#depth += 1;
    if (this.#depth !== 3 || this.#top !== 'data') return;
    this.#row.clear();
    this.#isMap = !isList;
  }

  close(): void {
    if (this.#depth === 3 && this.#top === 'data') this.#endRow();
    this.#depth -= 1;
  }

  key(bytes: Buffer, escaped: boolean): void {
    if (this.#depth === 1) {
      this.#top = unescaped(bytes, escaped).toString('latin1');
      // Of two keys with one name, Python uses the last.
      if (this.#top === 'matrix') this.#matrix = undefined;
      this.trustsPieces = this.#top === 'matrix' && !this.#rowsOnly;
    } else if (this.#depth === 3) this.#field = unescaped(bytes, escaped).toString('latin1');
  }

  bare(text: string): void {
    if (this.#depth === 1 && this.#top === 'embedding_dim') this.#dimension = dimensionOf(text);
    else if (this.#depth === 1) this.#beginTop('bare');
    else this.#other();
  }

  string(bytes: Buffer, escaped: boolean): void {
    if (this.#depth === 1) this.#beginTop('text');
    if (this.#depth === 1 && this.#top === 'matrix') this.#feedMatrix(bytes, 0);
    else if (this.#depth === 3 && this.#top === 'data' && this.#isMap) this.#take(bytes, escaped);
    else this.#other();
    if (escaped && hasLoneSurrogate(bytes))
      this.#facts.flaw('lone_surrogate', Buffer.from(`row ${this.#rows}`));
  }

  piece(bytes: Buffer): void {
    if (this.#depth === 1 && this.#top === 'matrix') this.#feedMatrix(bytes, this.longAt ?? 0);
  }

  long(_: number, isKey: boolean): void {
    if (isKey) {
      if (this.#depth === 1) this.#top = '';
      else if (this.#depth === 3) this.#field = '';
    } else if (this.#depth === 1) this.#beginTop('text');
    else if (this.#depth === 3 && this.#field === '__id__') this.#row.hasId = true;
    else this.#other();
  }

  /** Validates the kind of a value at the top. */
  #beginTop(kind: 'list' | 'map' | 'text' | 'bare'): void {
    const top = this.#top;
    const wanted =
      top === 'data' ? 'list' : top === 'matrix' ? 'text' : top === 'embedding_dim' ? 'bare' : kind;
    if (kind !== wanted) throw new LayoutError('malformed', 0, `its ${top} is not what it should be`);
    if (top !== 'data') return;
    this.#hasData = true;
    this.#rows = 0;
  }

  #feedMatrix(bytes: Buffer, at: number): void {
    if (this.#rowsOnly) return;
    if (this.#matrix === undefined) {
      this.#matrix = new MatrixRows(this.#dimension, (number, floats) => this.#checkRow(number, floats));
      this.#matrixAt = this.#hasData ? at : 0;
    }
    this.#matrix.feed(bytes.includes(BACKSLASH) ? withoutEscapes(bytes) : bytes);
  }

  /** Counts a row that is not a map. */
  #other(): void {
    if (this.#depth !== 2 || this.#top !== 'data') return;
    this.#row.clear();
    this.#isMap = false;
    this.#endRow();
  }

  /** Rows of a matrix decode to the same numbers at the same phase of base64 groups and rows. */
  skip(previousOffset: number, bytes: number): boolean {
    const matrix = this.#matrix;
    if (matrix === undefined || this.longAt === undefined || !matrix.isInPhase(previousOffset)) return false;
    if (!this.skipInString(bytes)) return false;
    matrix.skip(bytes);
    return true;
  }

  skipRecords(bytes: number, rows: number | undefined): boolean {
    if (this.#top !== 'data' || !this.skipEntries(2, bytes)) return false;
    this.#isNumbered = rows !== undefined;
    this.#rows += rows ?? 0;
    return true;
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
    let isNamed = true;
    const [entity, source, target] = [row.entity.bytes, row.source.bytes, row.target.bytes];
    const key = row.id.bytes ?? entity ?? Buffer.from(`row ${this.#rows}`);
    if (!this.#isMap || !(row.hasId || row.id.bytes !== undefined)) this.#facts.flaw('row_without_id', key);
    if (this.#file === 'entities' && entity !== undefined) {
      this.#facts.name('entityVectors', entity);
      if (id.toString('latin1') !== `ent-${hash('md5', entity)}`) this.#facts.flaw('entity_id', entity);
    } else if (this.#file === 'relationships' && source !== undefined && target !== undefined) {
      this.#facts.name('relationVectors', ...pairParts(source, target));
      if (!isRelationId(id.toString('latin1'), source, target))
        this.#facts.flaw('relation_id', pairName(source, target));
    } else if (this.#file !== 'chunks') {
      isNamed = false;
      if (this.#isMap) this.#facts.flaw('row_without_name', key);
    } else if (row.id.bytes !== undefined) this.#facts.name('chunkVectors', id);
    else isNamed = false;
    // The sources of a row without a name are not those of the name before it.
    if (isNamed) for (const chunk of separated(row.sources.bytes ?? NONE)) this.#facts.source?.(chunk);
    if (vector !== undefined) this.#vectors.set(this.#rows, { id: Buffer.from(id), packed: vector });
    this.#rows += 1;
    if (this.#vectors.size <= COMPARED_MAX) return;
    this.#step *= 2;
    for (const row of this.#vectors.keys()) if (row % this.#step !== 0) this.#vectors.delete(row);
  }

  #checkRow(number: number, floats: Float32Array): void {
    // Where characters are ignored, rows may have moved: only their number is checked.
    if (this.#matrix?.isCanonical === false) return;
    let square = 0;
    for (let i = 0; i < floats.length; i++) square += (floats[i] as number) * (floats[i] as number);
    // NaN and infinity propagate into the sum.
    if (!(square > 0 && square < Number.POSITIVE_INFINITY)) {
      this.#facts.flaw('bad_vector', Buffer.from(`row ${number}`));
      return;
    }
    const vector = this.#vectors.get(number);
    if (vector === undefined) return;
    this.#compared += 1;
    if (agrees(vector.packed, floats)) return;
    this.#differing += 1;
    this.#facts.flaw('vector_mismatch', vector.id);
  }

  /** Reports a matrix whose rows belong to other rows of `data`. */
  // One odd vector changes no search, while moved rows make every search find the wrong ones.
  #checkOrder(): void {
    if (this.#differing >= MOVED_MIN && this.#differing > this.#compared * MOVED_SHARE)
      this.#facts.flaw('matrix_moved', Buffer.from('matrix'));
  }
}

/** Reports whether a text with escapes has half of a surrogate pair. Python reads it, and cannot write it as UTF-8. */
function hasLoneSurrogate(bytes: Buffer): boolean {
  if (!bytes.includes(SURROGATE_ESCAPE) && !bytes.includes('\\uD')) return false;
  // Escaped backslashes are taken out first: what follows one is no escape.
  const escapes = bytes.toString('latin1').replaceAll('\\\\', '');
  return /\\u(?:d[89ab][0-9a-f]{2}(?!\\ud[c-f])|(?<!\\ud[89ab][0-9a-f]{2}\\u)d[c-f][0-9a-f]{2})/i.test(
    escapes,
  );
}

/** Returns base64 with escapes as text. An escaped control character, which Python ignores, becomes another such. */
function withoutEscapes(bytes: Buffer): Buffer {
  const text = bytes.toString('latin1');
  if ([...text].some((character) => character < ' '))
    throw new LayoutError('malformed', 0, 'its matrix contains a control character');
  const plain = unescaped(bytes, true).toString('latin1');
  return Buffer.from([...plain].map((character) => (character < ' ' ? '*' : character)).join(''), 'latin1');
}

function isRelationId(id: string, source: Buffer, target: Buffer): boolean {
  const idOf = (a: Buffer, b: Buffer) => `rel-${hash('md5', Buffer.concat([a, b]))}`;
  return id === idOf(source, target) || id === idOf(target, source);
}

/** Reports whether a deflated float16 vector has the direction of a row of the matrix, or cannot be decoded. */
function agrees(packed: Buffer, floats: Float32Array): boolean {
  const deflated = Buffer.from(packed.toString('latin1'), 'base64');
  let halves: Buffer;
  try {
    halves = inflateSync(deflated, { maxOutputLength: floats.length * HALF_BYTES });
  } catch {
    // It is cut, of another format, or longer than a vector. No server is known to fail on it.
    return true;
  }
  if (halves.length !== floats.length * HALF_BYTES) return true;
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
