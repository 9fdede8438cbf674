/** The kinds of names that files define or refer to. A check compares one table with another. */
export const TABLES = [
  /** full_docs */
  'documents',
  /** doc_status: all; those that are not pending; chunks of processed ones */
  'statuses',
  'begun',
  'promised',
  /** text_chunks: ids, their documents, and the cached model answers that they were extracted from */
  'chunks',
  'chunkDocuments',
  'chunkAnswers',
  /** llm_response_cache */
  'answers',
  /** vdb_chunks, vdb_entities by entity, vdb_relationships by pair */
  'chunkVectors',
  'entityVectors',
  'relationVectors',
  /** The graph: nodes, edges by pair, ends of edges, chunks that nodes and edges were extracted from */
  'nodes',
  'edges',
  'ends',
  'nodeSources',
  'edgeSources',
  /** entity_chunks and relation_chunks */
  'chunkedEntities',
  'chunkedRelations',
  /** full_entities and full_relations */
  'namedEntities',
  'namedRelations',
  /** Contents of a node or edge, and of what its vector was made of: see `entityState` */
  'nodeStates',
  'edgeStates',
  'entityStates',
  'relationStates',
] as const;
export type TableName = (typeof TABLES)[number];

/** Receives what readers find. Byte views are valid during the call only. */
export interface FactSink {
  /** Receives a name for a table, in one part or several. */
  name(table: TableName, ...parts: readonly Buffer[]): void;
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

const LINE = Buffer.from('\n');
const TAB = Buffer.from('\t');
const NUL = Buffer.from([0]);

/** Returns the parts of a name for everything that an entity's vector is made of. The first line is its name. */
export function entityState(name: Buffer, description: Buffer, sources: Buffer): Buffer[] {
  return [name, LINE, description, NUL, sources];
}

/** Returns the parts of a name for everything that a relation's vector is made of, starting with its ends. */
export function relationState(
  ends: readonly Buffer[],
  keywords: Buffer,
  description: Buffer,
  sources: Buffer,
): Buffer[] {
  return [...ends, LINE, keywords, TAB, description, NUL, sources];
}

/** Returns the `entityState` of a row of vdb_entities, or undefined if its content has another form. */
export function rowEntityState(name: Buffer, content: Buffer, sources: Buffer): Buffer[] | undefined {
  const begins = content.subarray(0, name.length).equals(name) && content[name.length] === LINE[0];
  return begins ? entityState(name, content.subarray(name.length + 1), sources) : undefined;
}

/** Returns the `relationState` of a row of vdb_relationships, or undefined if its content has another form. */
export function rowRelationState(
  source: Buffer,
  target: Buffer,
  content: Buffer,
  sources: Buffer,
): Buffer[] | undefined {
  const at = content.indexOf(Buffer.concat([TAB, source, LINE, target, LINE]));
  if (at < 0) return undefined;
  const description = content.subarray(at + source.length + target.length + 3);
  return relationState(pairParts(source, target), content.subarray(0, at), description, sources);
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
