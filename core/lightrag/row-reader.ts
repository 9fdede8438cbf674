import { TextSlot } from './chunk-reader.ts';
import { ValueHash } from './digest.ts';
import { pairName } from './facts.ts';
import { LayoutReader, unescaped } from './json.ts';
import { dimensionOf, MatrixRows } from './matrix.ts';
import { nameNumber } from './name-table.ts';
import type { VectorFile } from './vector-reader.ts';

/** Depth of the rows in `{"data": [{field: value}]}`. */
const ROW_DEPTH = 3;
/** Number of values of a matrix row that are compared, and steps per unit that they are rounded to. */
const SKETCH_FLOATS = 8;
const SKETCH_STEPS = 512;

/** Receives the rows of a file of vectors. */
export interface RowEvents {
  /** Receives the hashes of all fields but the vector. The map is valid during the call only. */
  row(name: Buffer, fields: ReadonlyMap<string, number>): void;
  /** Receives the hash of a row's vector: of its own field, or of its matrix row. */
  vector(name: number, content: number): void;
  /** Receives a row without a vector of its own. */
  bare(): void;
}

/** Reads the rows of a file of vectors and reports each by its entity, pair or chunk id. */
// Old versions wrote no field `vector`: then the matrix is read. A restart changes its last bits, so a few rounded
// values of a row are compared.
export class VectorRows extends LayoutReader {
  readonly #file: VectorFile;
  readonly #events: RowEvents;
  readonly #withMatrix: boolean;
  #depth = 0;
  #top = '';
  #field = '';
  readonly #id = new TextSlot();
  readonly #entity = new TextSlot();
  readonly #source = new TextSlot();
  readonly #target = new TextSlot();
  readonly #value = new ValueHash();
  readonly #fields = new Map<string, number>();
  #vector: number | undefined;
  #rows = 0;
  /** Rows without a vector of their own: the number of the name by the row's index. */
  readonly #bare = new Map<number, number>();
  #dimension = 0;
  #matrix: MatrixRows | undefined;
  #isDone = false;

  /**
   * Makes a reader. With `withMatrix` the matrix is read for rows without a vector of their own.
   *
   * Otherwise reading stops at the matrix, or at the first such row.
   */
  constructor(file: VectorFile, events: RowEvents, withMatrix: boolean) {
    super();
    this.#file = file;
    this.#events = events;
    this.#withMatrix = withMatrix;
  }

  get isDone(): boolean {
    return this.#isDone;
  }

  open(): void {
    this.#depth += 1;
    if (!this.#isRows) return;
    if (this.#depth > ROW_DEPTH) this.#value.open();
    else if (this.#depth === ROW_DEPTH) this.#begin();
  }

  close(): void {
    this.#depth -= 1;
    if (!this.#isRows) return;
    if (this.#depth >= ROW_DEPTH) {
      this.#value.close();
      this.#ended();
    } else if (this.#depth === ROW_DEPTH - 1) this.#end();
  }

  key(bytes: Buffer, escaped: boolean): void {
    if (this.#depth === 1) {
      this.#top = unescaped(bytes, escaped).toString('latin1');
      if (this.#top === 'matrix' && this.#bare.size === 0) this.#isDone = true;
    } else if (this.#depth === ROW_DEPTH) this.#field = unescaped(bytes, escaped).toString('latin1');
    else this.#value.key(bytes);
  }

  string(bytes: Buffer, escaped: boolean): void {
    if (this.#depth === 1 && this.#top === 'matrix') this.piece(bytes);
    if (!this.#isRows) return;
    if (this.#depth === ROW_DEPTH) this.#place()?.set(unescaped(bytes, escaped));
    this.#value.text(bytes);
    this.#ended();
  }

  piece(bytes: Buffer): void {
    if (this.#isRows) this.#value.piece(bytes);
    if (this.#depth !== 1 || this.#top !== 'matrix' || this.#isDone) return;
    this.#matrix ??= new MatrixRows(this.#dimension, (number, floats) => this.#sketch(number, floats));
    this.#matrix.feed(bytes);
  }

  long(_: number, isKey: boolean): void {
    if (!this.#isRows) return;
    if (isKey) this.#value.key();
    else this.#value.text();
    if (!isKey) this.#ended();
  }

  bare(text: string): void {
    if (this.#depth === 1 && this.#top === 'embedding_dim') this.#dimension = dimensionOf(text);
    if (!this.#isRows) return;
    this.#value.bare(text);
    this.#ended();
  }

  get #isRows(): boolean {
    return this.#top === 'data' && this.#depth >= ROW_DEPTH - 1;
  }

  #place(): TextSlot | undefined {
    switch (this.#field) {
      case '__id__':
        return this.#id;
      case 'entity_name':
        return this.#entity;
      case 'src_id':
        return this.#source;
      case 'tgt_id':
        return this.#target;
      default:
        return undefined;
    }
  }

  #begin(): void {
    for (const held of [this.#id, this.#entity, this.#source, this.#target]) held.clear();
    this.#fields.clear();
    this.#vector = undefined;
    this.#value.end();
  }

  #ended(): void {
    if (this.#depth !== ROW_DEPTH) return;
    const number = this.#value.end();
    if (this.#field === 'vector') this.#vector = number;
    else this.#fields.set(this.#field, number);
  }

  #name(): Buffer {
    const [source, target] = [this.#source.bytes, this.#target.bytes];
    if (this.#file === 'relationships' && source !== undefined && target !== undefined)
      return pairName(source, target);
    const own = this.#file === 'entities' ? this.#entity.bytes : undefined;
    return own ?? this.#id.bytes ?? Buffer.alloc(0);
  }

  #end(): void {
    const name = this.#name();
    const number = nameNumber(name);
    this.#events.row(name, this.#fields);
    if (this.#vector !== undefined) this.#events.vector(number, this.#vector);
    else {
      this.#events.bare();
      if (this.#withMatrix) this.#bare.set(this.#rows, number);
      else this.#isDone = true;
    }
    this.#rows += 1;
  }

  #sketch(row: number, floats: Float32Array): void {
    const name = this.#bare.get(row);
    if (name === undefined) return;
    const step = Math.max(1, Math.floor(floats.length / SKETCH_FLOATS));
    const numbers = Array.from({ length: Math.min(SKETCH_FLOATS, floats.length) }, (_, i) =>
      Math.round((floats[i * step] as number) * SKETCH_STEPS),
    );
    this.#events.vector(name, nameNumber(Buffer.from(numbers.join(' '))));
  }
}
