import { GRAPH_FILES } from './rules.ts';
import { vectorFileOf } from './vector-reader.ts';

/** By what the start of a record is known in the bytes of a file, where the file is written as LightRAG writes it. */
export interface RecordMarks {
  /** How such a file begins. */
  readonly head: Buffer;
  readonly marks: readonly Buffer[];
}

/** Length of the longest mark: less than that of it may lie before a border. */
export const MARK_BYTES_MAX = 11;

/** The first record, and the first row, have no comma before them: they are always there to show what records are like. */
const KV: RecordMarks = { head: Buffer.from('{\n  "'), marks: [Buffer.from(',\n  "')] };
/** "<" is never written as it is in a text of XML. */
const GRAPHML: RecordMarks = {
  head: Buffer.from('<'),
  marks: [Buffer.from('<node '), Buffer.from('<edge ')],
};
const VECTORS: RecordMarks = {
  head: Buffer.from('{"embedding_dim": '),
  marks: [Buffer.from(', {"__id__"')],
};

/** Those of a file, by its path. */
export function recordMarks(path: string): RecordMarks {
  if (path === GRAPH_FILES.graph) return GRAPHML;
  return vectorFileOf(path) === undefined ? KV : VECTORS;
}

/** Where the first record begins; -1 if none does. */
export function firstRecord({ marks }: RecordMarks, bytes: Buffer): number {
  const found = marks.map((mark) => bytes.indexOf(mark)).filter((at) => at >= 0);
  return found.length === 0 ? -1 : Math.min(...found);
}

/** Where the last record begins; -1 if none does. */
export function lastRecord({ marks }: RecordMarks, bytes: Buffer): number {
  return Math.max(...marks.map((mark) => bytes.lastIndexOf(mark)));
}
