/** The kinds of names that files define or refer to. A check compares one table with another. */
export const TABLES = [
  /** full_docs */
  'documents',
  /** doc_status: all documents; processed ones; chunks of processed ones; chunks of all others */
  'statuses',
  'processed',
  'promised',
  'openChunks',
  /** text_chunks: ids, and their documents */
  'chunks',
  'chunkDocuments',
  /** vdb_chunks, vdb_entities by entity, vdb_relationships by pair */
  'chunkVectors',
  'entityVectors',
  'relationVectors',
  /** The graph: nodes, those without a type, edges by pair, ends of edges */
  'nodes',
  'untypedNodes',
  'edges',
  'ends',
  /** full_entities and full_relations: documents, and the names that each of them lists */
  'entityDocuments',
  'namedEntities',
  'relationDocuments',
  'namedRelations',
] as const;
export type TableName = (typeof TABLES)[number];

/** Receives what readers find. Byte views are valid during the call only. */
export interface FactSink {
  /**
   * Receives a name for a table, in one part or several. The name of a record precedes the names inside it.
   */
  name(table: TableName, ...parts: readonly Buffer[]): void;
  /** Receives a source chunk of the entity or relation whose name came last. Readers skip sources without it. */
  source?(chunk: Buffer): void;
  /** Receives a flaw of one record by itself. */
  flaw(code: string, name: Buffer): void;
  /**
   * Receives the number of vectors in a file, their dimension, and the offset of the matrix text.
   *
   * The offset is 0 if the text is too short to be skipped.
   */
  vectors(count: number, dimension: number, matrixAt: number): void;
}

/** The separator between the names of a pair, and between the sources of a node or edge. */
export const SEPARATOR = Buffer.from('<SEP>');

/** Returns the parts of a relation's name: see `pairName`. */
export function pairParts(a: Buffer, b: Buffer): [Buffer, Buffer, Buffer] {
  // UTF-8 bytes sort like code points.
  return Buffer.compare(a, b) <= 0 ? [a, SEPARATOR, b] : [b, SEPARATOR, a];
}

/** Returns the name of a relation, independent of the order of its ends. */
// The ends are sorted by code points, like Python sorts.
export function pairName(a: Buffer, b: Buffer): Buffer {
  return Buffer.concat(pairParts(a, b));
}

/** Yields the parts of a text between separators, without empty ones. */
export function* separated(text: Buffer): Generator<Buffer> {
  let from = 0;
  for (;;) {
    const at = text.indexOf(SEPARATOR, from);
    const part = text.subarray(from, at < 0 ? text.length : at);
    if (part.length > 0) yield part;
    if (at < 0) return;
    from = at + SEPARATOR.length;
  }
}
