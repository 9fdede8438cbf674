import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { errorFinding } from '../finding.ts';
import { type ChunkReader, LayoutError } from './chunk-reader.ts';
import type { FactSink } from './facts.ts';
import { LayoutReader, unescaped } from './json.ts';

const INDEX = /^faiss_index_(.+)\.index$/;
const META = /^(faiss_index_(.+)\.index)\.meta\.json$/;
const HINT = 'restore an earlier point: the instance starts without these vectors';

/** Header of a flat index: magic, dimension, vectors, two reserved numbers, whether it is trained, metric. */
const HEADER_BYTES = 4 + 4 + 8 + 8 + 8 + 1 + 4;
const [DIMENSION_AT, VECTORS_AT, TRAINED_AT, METRIC_AT] = [4, 8, 32, 33];
/** Length of the parameter of a metric other than the inner product (0) and L2 (1). */
const METRIC_PARAMETER_BYTES = 4;
/** Ranges of the metrics that Faiss knows. */
const METRICS = [
  [0, 4],
  [20, 25],
] as const;
const COUNT_BYTES = 8;
const FLOAT_BYTES = 4;
const DIMENSION_MAX = 1 << 20;
/** Magics of the flat indexes: of inner products, which LightRAG writes, of L2, and of any metric. */
const MAGICS: ReadonlySet<string> = new Set(['IxFI', 'IxF2', 'IxFl']);

/** Returns the namespace of a Faiss index, or undefined for other files. */
export function faissIndexOf(path: string): string | undefined {
  return INDEX.exec(path)?.[1];
}

/** Returns the namespace of the rows of a Faiss index, or undefined for other files. */
export function faissMetaOf(path: string): string | undefined {
  return META.exec(path)?.[2];
}

/** Returns the path of the Faiss index that may stand in place of a file of vectors. */
export function faissInPlaceOf(vectorPath: string): string {
  return vectorPath.replace(/^vdb_(.+)\.json$/, 'faiss_index_$1.index');
}

/** Reads a Faiss index of vectors as they are, without a structure to search in. */
// LightRAG writes an IndexFlatIP. Faiss ignores what follows it.
export class FaissIndexReader implements ChunkReader {
  readonly isBinary = true;
  readonly #facts: FactSink;
  readonly #head = Buffer.alloc(HEADER_BYTES + METRIC_PARAMETER_BYTES + COUNT_BYTES);
  #bytes = 0;

  constructor(facts: FactSink) {
    this.#facts = facts;
  }

  feed(chunk: Buffer): void {
    if (this.#bytes < this.#head.length) chunk.copy(this.#head, this.#bytes);
    this.#bytes += chunk.length;
  }

  end(): void {
    if (this.#bytes === 0) throw new LayoutError('empty', 0, 'it is empty');
    const head = this.#head.subarray(0, Math.min(this.#bytes, this.#head.length));
    if (head.length >= 4 && !MAGICS.has(head.toString('latin1', 0, 4)))
      throw new LayoutError('malformed', 0, 'it is not a flat Faiss index');
    const countAt =
      HEADER_BYTES + (this.#head.readInt32LE(METRIC_AT) >> 1 === 0 ? 0 : METRIC_PARAMETER_BYTES);
    if (this.#bytes < countAt + COUNT_BYTES) throw this.#cut();
    const dimension = head.readInt32LE(DIMENSION_AT);
    const vectors = Number(head.readBigInt64LE(VECTORS_AT));
    const metric = head.readInt32LE(METRIC_AT);
    const isMetric = METRICS.some(([first, last]) => metric >= first && metric <= last);
    if (
      dimension < 1 ||
      dimension > DIMENSION_MAX ||
      vectors < 0 ||
      !isMetric ||
      (head[TRAINED_AT] as number) > 1
    )
      throw new LayoutError('malformed', 0, 'its header is no header of a flat Faiss index');
    if (head.readBigUInt64LE(countAt) !== BigInt(vectors) * BigInt(dimension))
      throw new LayoutError('malformed', countAt, 'its vectors do not have the length that its header names');
    if (this.#bytes < countAt + COUNT_BYTES + vectors * dimension * FLOAT_BYTES) throw this.#cut();
    this.#facts.vectors(vectors, dimension, 0);
  }

  #cut(): LayoutError {
    return new LayoutError('cut', this.#bytes, 'it ends in the middle');
  }
}

/** Fields that name the row of a namespace. */
const NAME_FIELDS: Readonly<Record<string, readonly string[]>> = {
  entities: ['entity_name'],
  relationships: ['src_id', 'tgt_id'],
};

/** Reads the rows of a Faiss index, `{"0": {"__id__": id, …meta}}`. Reports their number and those without a name. */
export class FaissMetaReader extends LayoutReader {
  readonly #facts: FactSink;
  readonly #nameFields: readonly string[];
  #depth = 0;
  #row = '';
  #field = '';
  /** Fields of the row being read that are texts. */
  readonly #texts = new Set<string>();
  #rows = 0;

  constructor(facts: FactSink, namespace: string) {
    super();
    this.#facts = facts;
    this.#nameFields = NAME_FIELDS[namespace] ?? [];
  }

  override end(): void {
    super.end();
    this.#facts.vectors(this.#rows, 0, 0);
  }

  open(isList: boolean): void {
    if (this.#depth < 2 && isList) throw noRows();
    this.#depth += 1;
  }

  close(): void {
    this.#depth -= 1;
    if (this.#depth !== 1) return;
    this.#rows += 1;
    if (!this.#texts.has('__id__')) this.#facts.flaw('row_without_id', Buffer.from(`row ${this.#row}`));
    if (this.#nameFields.some((field) => !this.#texts.has(field)))
      this.#facts.flaw('row_without_name', Buffer.from(`row ${this.#row}`));
  }

  key(bytes: Buffer, escaped: boolean): void {
    const name = () => unescaped(bytes, escaped).toString('utf8');
    if (this.#depth === 2) this.#field = name();
    else if (this.#depth === 1) {
      this.#row = name();
      this.#texts.clear();
      // Python converts each key to a number before it reads its row.
      if (!/^\s*\+?\p{Nd}+(?:_\p{Nd}+)*\s*$/u.test(this.#row))
        throw new LayoutError(
          'malformed',
          0,
          `the key "${this.#row.slice(0, 40)}" is not the number of a vector`,
        );
    }
  }

  string(): void {
    this.#text();
  }

  bare(): void {
    if (this.#depth < 2) throw noRows();
  }

  piece(): void {}

  long(_: number, isKey: boolean): void {
    if (!isKey) this.#text();
    else if (this.#depth === 1) throw noRows();
    else if (this.#depth === 2) this.#field = '';
  }

  #text(): void {
    if (this.#depth < 2) throw noRows();
    if (this.#depth === 2) this.#texts.add(this.#field);
  }
}

function noRows(): LayoutError {
  return new LayoutError('malformed', 0, 'it is not a map of the rows of a Faiss index');
}

/** What was found of the files of a directory. */
export interface FaissFiles {
  /** Paths of all files of the graph. */
  readonly seen: ReadonlySet<string>;
  /** Paths of the well-formed ones. */
  readonly whole: ReadonlySet<string>;
  /** Number of vectors or rows by path. */
  readonly vectors: ReadonlyMap<string, number>;
}

/** Returns the findings about Faiss indexes that do not belong to their rows. */
// The server loads both files or neither, and drops rows without a vector silently.
export function faissFindings({ seen, whole, vectors }: FaissFiles): Finding[] {
  const indexes = new Set(
    [...seen].flatMap((path) => (faissIndexOf(path) === undefined ? (META.exec(path)?.[1] ?? []) : path)),
  );
  return [...indexes].sort().flatMap((index) => {
    const meta = `${index}.meta.json`;
    const missing = [index, meta].find((path) => !seen.has(path));
    if (missing !== undefined)
      return errorFinding('missing_file', missing, {
        message: `it is not there, though there is ${missing === index ? meta : index}`,
        hint: HINT,
      });
    const [inIndex, inMeta] = [vectors.get(index) ?? 0, vectors.get(meta) ?? 0];
    if (!whole.has(index) || !whole.has(meta) || inIndex === inMeta) return [];
    return errorFinding('matrix_length', index, {
      message: `it has ${inIndex} vectors, and its rows in ${meta} are ${inMeta}`,
      hint: HINT,
    });
  });
}
