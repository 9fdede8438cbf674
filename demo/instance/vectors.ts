/** A `vdb_*.json` file in memory. */
export interface Vectors {
  readonly dimension: number;
  /** Keys other than `embedding_dim`, `data` and `matrix`, which newer versions write. */
  readonly rest: Readonly<Record<string, unknown>>;
  /** Rows by `__id__`, in the order of the file. */
  readonly rows: Map<string, VectorRow>;
}

export interface VectorRow {
  /** The row's JSON object. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** The row of the matrix: float32, little-endian. */
  readonly matrix: Buffer;
}

const FLOAT_BYTES = 4;
/** Matrix rows that are encoded together. */
// A multiple of three, so that only the last group needs padding.
const MATRIX_GROUP_ROWS = 12;

const WRITE_SEQUENCE = '__write_seq__';
const SEQUENCES = new RegExp(`"${WRITE_SEQUENCE}": (\\d+)`, 'g');

/** Parses the text of a file. The numbers of writes become texts, as they exceed what a number can hold. */
export function parseVectors(text: string): unknown {
  return JSON.parse(text.replaceAll(SEQUENCES, `"${WRITE_SEQUENCE}": "$1"`));
}

/** Reads a parsed file. Throws an Error if the matrix has another length or an id occurs twice. */
export function readVectors(parsed: object): Vectors {
  const { embedding_dim: dimension, data, matrix, ...rest } = parsed as Record<string, unknown>;
  if (!Number.isInteger(dimension) || Number(dimension) < 1)
    throw new Error('"embedding_dim" is not a number');
  if (!Array.isArray(data)) throw new Error('"data" is not a list');
  if (typeof matrix !== 'string') throw new Error('it has no "matrix"');
  const rowBytes = Number(dimension) * FLOAT_BYTES;
  const bytes = Buffer.from(matrix, 'base64');
  const wanted = data.length * rowBytes;
  if (bytes.length !== wanted || bytes.toString('base64') !== matrix) {
    throw new Error(
      `its matrix has ${bytes.length} bytes, ${data.length} rows of dimension ${dimension} need ${wanted}`,
    );
  }
  const rows = new Map<string, VectorRow>();
  for (const [index, row] of (data as unknown[]).entries()) {
    const fields = Object(row) as Record<string, unknown>;
    const id = fields.__id__;
    if (typeof id !== 'string') throw new Error(`row ${index} has no "__id__"`);
    if (rows.has(id)) throw new Error(`the row "${id}" occurs twice`);
    const sequence = fields[WRITE_SEQUENCE];
    if (typeof sequence === 'string') fields[WRITE_SEQUENCE] = BigInt(sequence);
    rows.set(id, { fields, matrix: bytes.subarray(index * rowBytes, (index + 1) * rowBytes) });
  }
  return { dimension: Number(dimension), rest, rows };
}

/** Yields the text of the file. Later changes of the rows have no effect on it. */
export function vectorsText({ dimension, rest, rows }: Vectors): Generator<string> {
  return pieces(dimension, rest, [...rows.values()]);
}

function* pieces(dimension: number, rest: object, rows: readonly VectorRow[]): Generator<string> {
  yield `{"embedding_dim": ${dimension}, "data": [`;
  for (const [index, { fields }] of rows.entries()) yield (index === 0 ? '' : ', ') + pythonJson(fields);
  yield ']';
  for (const [name, value] of Object.entries(rest)) yield `, ${JSON.stringify(name)}: ${pythonJson(value)}`;
  yield ', "matrix": "';
  for (let from = 0; from < rows.length; from += MATRIX_GROUP_ROWS) {
    const group = rows.slice(from, from + MATRIX_GROUP_ROWS).map(({ matrix }) => matrix);
    yield Buffer.concat(group).toString('base64');
  }
  yield '"}';
}

/** Returns JSON in one line with the separators of Python's json.dump. */
function pythonJson(value: unknown): string {
  if (typeof value === 'bigint') return String(value);
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const fields = Object.entries(value).map(
    ([name, inner]) => `${JSON.stringify(name)}: ${pythonJson(inner)}`,
  );
  return `{${fields.join(', ')}}`;
}
