import { GRAPH_FILES } from './rules.ts';
import { vectorFileOf } from './vector-reader.ts';

/** Byte patterns at the start of records in a file written as LightRAG writes it. */
export interface RecordMarks {
  /** Bytes at the start of such a file. */
  readonly head: Buffer;
  readonly marks: readonly Buffer[];
}

/** Length of the longest mark in bytes. */
export const MARK_BYTES_MAX = 11;

/** The first record and the first row have no comma before them, so no mark finds them. */
const KV: RecordMarks = { head: Buffer.from('{\n  "'), marks: [Buffer.from(',\n  "')] };
/** An XML text never contains a bare "<". */
const GRAPHML: RecordMarks = {
  head: Buffer.from('<'),
  marks: [Buffer.from('<node '), Buffer.from('<edge ')],
};
const VECTORS: RecordMarks = {
  head: Buffer.from('{"embedding_dim": '),
  marks: [Buffer.from(', {"__id__"')],
};

/** Returns the record marks of the file at a path. */
export function recordMarks(path: string): RecordMarks {
  if (path === GRAPH_FILES.graph) return GRAPHML;
  return vectorFileOf(path) === undefined ? KV : VECTORS;
}

/** Returns the offset of the first mark; -1 without one. */
export function firstRecord({ marks }: RecordMarks, bytes: Buffer): number {
  const found = marks.map((mark) => bytes.indexOf(mark)).filter((at) => at >= 0);
  return found.length === 0 ? -1 : Math.min(...found);
}

/** Returns the offset of the last mark; -1 without one. */
export function lastRecord({ marks }: RecordMarks, bytes: Buffer): number {
  return Math.max(...marks.map((mark) => bytes.lastIndexOf(mark)));
}
