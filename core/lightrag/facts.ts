/** Kinds of names that files give and others must have: what is compared is one table with another. */
export const TABLES = [
  /** full_docs */
  'documents',
  /** doc_status: all; those that are not pending; chunks that processed ones promise */
  'statuses',
  'begun',
  'promised',
  /** text_chunks: their documents, and the answers of the model that they were made from */
  'chunks',
  'chunkDocuments',
  'chunkAnswers',
  /** llm_response_cache */
  'answers',
  /** vdb_chunks, vdb_entities by entity, vdb_relationships by pair */
  'chunkVectors',
  'entityVectors',
  'relationVectors',
  /** The graph: nodes, edges by pair, ends of edges, chunks that either comes from */
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
  /** What the graph says of a node or edge, and what its vector was made of: see `entityState` */
  'nodeStates',
  'edgeStates',
  'entityStates',
  'relationStates',
] as const;
export type TableName = (typeof TABLES)[number];

/** Takes what readers find. Bytes are views that hold only during the call. */
export interface FactSink {
  /** A name of a table, in one part or several. */
  name(table: TableName, ...parts: readonly Buffer[]): void;
  /** Something that is wrong with one record by itself. */
  flaw(code: string, name: Buffer): void;
  /** Vectors of a file, their dimension, and where in the file the text of its matrix begins; 0 if that is short. */
  vectors(count: number, dimension: number, matrixAt: number): void;
}

/** What joins the names of a pair, and the sources of a node or edge. */
export const SEPARATOR = Buffer.from('<SEP>');

/** The parts of a relation's name: see `pairName`. */
export function pairParts(a: Buffer, b: Buffer): [Buffer, Buffer, Buffer] {
  // UTF-8 sorts as code points do.
  return Buffer.compare(a, b) <= 0 ? [a, SEPARATOR, b] : [b, SEPARATOR, a];
}

/** The name of a relation, the same in whichever order its ends come: sorted by code points, as Python sorts. */
export function pairName(a: Buffer, b: Buffer): Buffer {
  return Buffer.concat(pairParts(a, b));
}

const LINE = Buffer.from('\n');
const TAB = Buffer.from('\t');
const NUL = Buffer.from([0]);

/** An entity with all that its vector is made of: the first line is its name. */
export function entityState(name: Buffer, description: Buffer, sources: Buffer): Buffer[] {
  return [name, LINE, description, NUL, sources];
}

/** The same of a relation, which goes by its ends. */
export function relationState(
  ends: readonly Buffer[],
  keywords: Buffer,
  description: Buffer,
  sources: Buffer,
): Buffer[] {
  return [...ends, LINE, keywords, TAB, description, NUL, sources];
}

/** What a row of vdb_entities was made of; undefined if its content is of another form. */
export function rowEntityState(name: Buffer, content: Buffer, sources: Buffer): Buffer[] | undefined {
  const begins = content.subarray(0, name.length).equals(name) && content[name.length] === LINE[0];
  return begins ? entityState(name, content.subarray(name.length + 1), sources) : undefined;
}

/** The same of a row of vdb_relationships. */
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

/** The parts of a text between separators, empty ones left out. */
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
