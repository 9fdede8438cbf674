import { hash } from 'node:crypto';
import { deflateSync } from 'node:zlib';
import { type Corpus, documents, entities, relations } from './corpus.ts';
import { joinedSources } from './document.ts';
import { fillUnitVector, mix, roundToHalf, type VectorKey } from './random.ts';

/** A row and the key of its vector. The fields are in the order in which LightRAG writes them. */
export interface Row {
  readonly id: string;
  /** Time of creation in Unix seconds. */
  readonly createdAt: number;
  /** Digits of the write's number; absent before 1.5. */
  readonly writeSequence?: string;
  readonly fields: Readonly<Record<string, string>>;
  readonly vector: VectorKey;
}

/** Matrix rows that are encoded together. */
// A multiple of three, so that only the last group needs padding.
const MATRIX_GROUP_ROWS = 12;
/** Bytes for the output of one row of up to 2,000 dimensions. */
// The default would be allocated and wasted for each row.
const DEFLATE_PIECE_BYTES = 4096;

/** Yields the text of a `vdb_*.json` file as Python's json.dump writes it. */
export function* vdbFile(corpus: Corpus, rows: () => Iterable<Row>): Generator<string> {
  yield `{"embedding_dim": ${corpus.dimension}, "data": [`;
  yield* dataText(corpus, rows());
  yield '], "matrix": "';
  yield* matrixText(corpus.dimension, rows());
  yield '"}';
}

export function* chunkRows(corpus: Corpus): Generator<Row> {
  for (const document of documents(corpus)) {
    // A server writes the chunks of a document at once.
    const written = writtenAt(corpus, document.createdAt, [corpus.seed, document.number, 0]);
    for (const { id, content, vector } of document.chunks) {
      const fields = { content, full_doc_id: document.id, file_path: document.filePath };
      yield { id, ...written, fields, vector };
    }
  }
}

export function* entityRows(corpus: Corpus): Generator<Row> {
  for (const { name, description, sources, filePath, createdAt, vector } of entities(corpus)) {
    const fields = {
      entity_name: name,
      content: `${name}\n${description}`,
      source_id: joinedSources(sources),
      file_path: filePath,
    };
    yield { id: `ent-${hash('md5', name)}`, ...writtenAt(corpus, createdAt, vector), fields, vector };
  }
}

export function* relationRows(corpus: Corpus): Generator<Row> {
  // Before 1.5, LightRAG deleted the row of a merged relation and added it again.
  for (const relation of relations(corpus, corpus.version === '1.4.9.11' ? 'last' : 'first')) {
    const [source, target] = [...relation.ends].sort() as [string, string];
    const fields = {
      src_id: source,
      tgt_id: target,
      source_id: joinedSources(relation.sources),
      content: `${relation.keywords}\t${source}\n${target}\n${relation.description}`,
      file_path: relation.filePath,
    };
    const { createdAt, vector } = relation;
    const id = `rel-${hash('md5', source + target)}`;
    yield { id, ...writtenAt(corpus, createdAt, vector), fields, vector };
  }
}

/** Returns when a row is written: its time of creation, and since 1.5 the nanosecond that numbers the write. */
function writtenAt({ version }: Corpus, createdAt: number, key: VectorKey) {
  if (version === '1.4.9.11') return { createdAt };
  const nanoseconds = String(mix(...key) % 1_000_000_000).padStart(9, '0');
  return { createdAt, writeSequence: `${createdAt}${nanoseconds}` };
}

function* dataText({ dimension, vectorField }: Corpus, rows: Iterable<Row>): Generator<string> {
  const vector = new Float32Array(dimension);
  const half = new Uint16Array(dimension);
  let separator = '{';
  for (const row of rows) {
    yield separator + rowText(row);
    separator = '}, {';
    if (!vectorField) continue;
    fillUnitVector(vector, row.vector);
    roundToHalf(vector, half);
    yield `, "vector": "${deflated(half)}"`;
  }
  if (separator !== '{') yield '}';
}

/** Returns a unit vector in the encodings of the matrix and of the field `vector`. */
export function embedding(key: VectorKey, dimension: number): { matrix: Buffer; vector: string } {
  const floats = new Float32Array(dimension);
  const half = new Uint16Array(dimension);
  fillUnitVector(floats, key);
  roundToHalf(floats, half);
  return { matrix: Buffer.from(floats.buffer), vector: deflated(half) };
}

function deflated(half: Uint16Array): string {
  return deflateSync(half, { chunkSize: DEFLATE_PIECE_BYTES }).toString('base64');
}

/** Returns the fields of a row before its vector, with the separators of Python's json. */
function rowText({ id, createdAt, writeSequence, fields }: Row): string {
  let text = `"__id__": "${id}", "__created_at__": ${createdAt}`;
  if (writeSequence !== undefined) text += `, "__write_seq__": ${writeSequence}`;
  for (const name in fields) text += `, "${name}": ${JSON.stringify(fields[name])}`;
  return text;
}

function* matrixText(dimension: number, rows: Iterable<Row>): Generator<string> {
  const group = new Float32Array(dimension * MATRIX_GROUP_ROWS);
  let used = 0;
  for (const row of rows) {
    fillUnitVector(group.subarray(used, used + dimension), row.vector);
    used += dimension;
    if (used < group.length) continue;
    yield base64Of(group);
    used = 0;
  }
  if (used > 0) yield base64Of(group.subarray(0, used));
}

function base64Of({ buffer, byteOffset, byteLength }: Float32Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString('base64');
}
