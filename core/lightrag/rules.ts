import type { TableName } from './facts.ts';

/** The files of a graph that the checks compare. */
export const GRAPH_FILES = {
  documents: 'kv_store_full_docs.json',
  statuses: 'kv_store_doc_status.json',
  chunks: 'kv_store_text_chunks.json',
  answers: 'kv_store_llm_response_cache.json',
  namedEntities: 'kv_store_full_entities.json',
  namedRelations: 'kv_store_full_relations.json',
  chunkedEntities: 'kv_store_entity_chunks.json',
  chunkedRelations: 'kv_store_relation_chunks.json',
  chunkVectors: 'vdb_chunks.json',
  entityVectors: 'vdb_entities.json',
  relationVectors: 'vdb_relationships.json',
  graph: 'graph_chunk_entity_relation.graphml',
} as const;
export type GraphFile = keyof typeof GRAPH_FILES;

/**
 * Severity of a broken rule.
 *
 * "under way" is an error only while the instance is known to be idle. "sign" is harmless by itself, but typical of
 * a cut between two files of a flush.
 */
export type Weight = 'error' | 'warning' | 'under way' | 'sign';

/** A rule: all names of one table must be in another. */
export interface Rule {
  readonly code: string;
  readonly weight: Weight;
  readonly items: TableName;
  readonly from: GraphFile;
  readonly known: TableName;
  readonly to: GraphFile;
  /** What is wrong with the items that the other table lacks, in the plural. */
  readonly state: string;
  readonly hint: string;
}

const REBUILD = 'let the instance rebuild its vectors from the graph, or restore an earlier point';
const RESTORE = 'restore an earlier point, or ingest the affected documents again';
const STAYS = 'no action is needed: the vector is made again at the next change';
const ASK = 'let the instance finish; if the finding remains, ingest the affected documents again';

function rule(
  code: string,
  weight: Weight,
  [items, from]: readonly [TableName, GraphFile],
  [known, to]: readonly [TableName, GraphFile],
  [state, hint]: readonly [string, string],
): Rule {
  return { code, weight, items, from, known, to, state, hint };
}

/** The rules between the files of a LightRAG directory; docs/design.md describes how they were found. */
export const RULES: readonly Rule[] = [
  rule(
    'vector_without_node',
    'error',
    ['entityVectors', 'entityVectors'],
    ['nodes', 'graph'],
    ['vectors belong to entities that are not in the graph', REBUILD],
  ),
  rule(
    'edge_without_vector',
    'error',
    ['edges', 'graph'],
    ['relationVectors', 'relationVectors'],
    ['edges have no vector', REBUILD],
  ),
  rule(
    'vector_without_edge',
    'error',
    ['relationVectors', 'relationVectors'],
    ['edges', 'graph'],
    ['vectors belong to relations that are not in the graph', REBUILD],
  ),
  rule(
    'edge_without_end',
    'error',
    ['ends', 'graph'],
    ['nodes', 'graph'],
    ['edges end at nodes that do not exist', RESTORE],
  ),
  rule(
    'chunk_without_vector',
    'error',
    ['chunks', 'chunks'],
    ['chunkVectors', 'chunkVectors'],
    ['chunks have no vector', RESTORE],
  ),
  rule(
    'vector_without_chunk',
    'error',
    ['chunkVectors', 'chunkVectors'],
    ['chunks', 'chunks'],
    ['vectors belong to chunks that do not exist', RESTORE],
  ),
  rule(
    'chunk_without_document',
    'error',
    ['chunkDocuments', 'chunks'],
    ['documents', 'documents'],
    ['chunks belong to documents that do not exist', RESTORE],
  ),
  rule(
    'document_without_status',
    'error',
    ['documents', 'documents'],
    ['statuses', 'statuses'],
    ['documents have no status', RESTORE],
  ),
  rule(
    'promised_chunk_missing',
    'error',
    ['promised', 'statuses'],
    ['chunks', 'chunks'],
    ['processed documents list chunks that do not exist', RESTORE],
  ),
  rule(
    'edge_source_missing',
    'error',
    ['edgeSources', 'graph'],
    ['chunks', 'chunks'],
    ['edges refer to chunks that do not exist', RESTORE],
  ),
  rule(
    'relation_chunks_without_edge',
    'error',
    ['chunkedRelations', 'chunkedRelations'],
    ['edges', 'graph'],
    ['relations with chunks are not in the graph', RESTORE],
  ),
  rule(
    'edge_without_chunks',
    'error',
    ['edges', 'graph'],
    ['chunkedRelations', 'chunkedRelations'],
    ['edges have no chunks', RESTORE],
  ),
  rule(
    'entity_chunks_without_node',
    'error',
    ['chunkedEntities', 'chunkedEntities'],
    ['nodes', 'graph'],
    ['entities with chunks are not in the graph', RESTORE],
  ),
  rule(
    'node_without_vector',
    'under way',
    ['nodes', 'graph'],
    ['entityVectors', 'entityVectors'],
    ['nodes have no vector', REBUILD],
  ),
  rule(
    'status_without_document',
    'under way',
    ['begun', 'statuses'],
    ['documents', 'documents'],
    ['documents with a status have no text', ASK],
  ),
  rule(
    'node_source_missing',
    'warning',
    ['nodeSources', 'graph'],
    ['chunks', 'chunks'],
    ['nodes refer to chunks that do not exist', ASK],
  ),
  rule(
    'node_without_chunks',
    'warning',
    ['nodes', 'graph'],
    ['chunkedEntities', 'chunkedEntities'],
    ['nodes have no chunks', ASK],
  ),
  rule(
    'named_entity_missing',
    'warning',
    ['namedEntities', 'namedEntities'],
    ['nodes', 'graph'],
    ['documents list entities that are not in the graph', ASK],
  ),
  rule(
    'named_relation_missing',
    'warning',
    ['namedRelations', 'namedRelations'],
    ['edges', 'graph'],
    ['documents list relations that are not in the graph', ASK],
  ),
  rule(
    'node_not_named',
    'warning',
    ['nodes', 'graph'],
    ['namedEntities', 'namedEntities'],
    ['nodes belong to no document', ASK],
  ),
  rule(
    'answer_missing',
    'warning',
    ['chunkAnswers', 'chunks'],
    ['answers', 'answers'],
    [
      'chunks refer to model answers that are not in the cache',
      'no action is needed: the model is asked again when an answer is needed',
    ],
  ),
  rule(
    'entity_differs',
    'sign',
    ['entityStates', 'entityVectors'],
    ['nodeStates', 'graph'],
    ['vectors were made from another state of their entity', STAYS],
  ),
  rule(
    'relation_differs',
    'sign',
    ['relationStates', 'relationVectors'],
    ['edgeStates', 'graph'],
    ['vectors were made from another state of their relation', STAYS],
  ),
];

/** Codes of the rules of severity "sign". */
export const SIGNS: ReadonlySet<string> = new Set(
  RULES.filter(({ weight }) => weight === 'sign').map(({ code }) => code),
);

/** Tables that each file defines, by the file's path. */
export const TABLES_OF: ReadonlyMap<string, readonly TableName[]> = tablesOf();

function tablesOf(): Map<string, TableName[]> {
  const tables = new Map<string, TableName[]>();
  const enter = (file: GraphFile, table: TableName) => {
    const known = tables.get(GRAPH_FILES[file]) ?? [];
    if (!known.includes(table)) known.push(table);
    tables.set(GRAPH_FILES[file], known);
  };
  for (const { items, from, known, to } of RULES) {
    enter(from, items);
    enter(to, known);
  }
  return tables;
}

/** The file that defines each table whose names must be unique. */
export const UNIQUE: Readonly<Partial<Record<TableName, GraphFile>>> = {
  documents: 'documents',
  statuses: 'statuses',
  chunks: 'chunks',
  answers: 'answers',
  chunkedEntities: 'chunkedEntities',
  chunkedRelations: 'chunkedRelations',
  chunkVectors: 'chunkVectors',
  entityVectors: 'entityVectors',
  relationVectors: 'relationVectors',
  nodes: 'graph',
  edges: 'graph',
};

/** A file that must exist if another file has names in a table. */
export interface Implied {
  readonly table: TableName;
  readonly in: GraphFile;
  readonly file: GraphFile;
  readonly state: string;
}

/** Files whose absence is a finding. */
export const IMPLIED: readonly Implied[] = [
  { table: 'edges', in: 'graph', file: 'relationVectors', state: 'the graph has edges' },
  { table: 'nodes', in: 'graph', file: 'entityVectors', state: 'the graph has nodes' },
  { table: 'chunkedEntities', in: 'chunkedEntities', file: 'graph', state: 'there are entities with chunks' },
  { table: 'entityVectors', in: 'entityVectors', file: 'graph', state: 'there are vectors of entities' },
  { table: 'promised', in: 'statuses', file: 'chunks', state: 'documents have been processed' },
  { table: 'chunkVectors', in: 'chunkVectors', file: 'chunks', state: 'there are vectors of chunks' },
  { table: 'chunks', in: 'chunks', file: 'chunkVectors', state: 'there are chunks' },
  { table: 'chunkDocuments', in: 'chunks', file: 'documents', state: 'there are chunks of documents' },
  { table: 'documents', in: 'documents', file: 'statuses', state: 'there are documents' },
];

/** Flaws of a single record. */
export const FLAWS: Readonly<Record<string, { weight: 'error' | 'warning'; state: string; hint: string }>> = {
  duplicate_id: { weight: 'error', state: 'names occur more than once', hint: RESTORE },
  entity_id: { weight: 'error', state: 'rows have an id that does not match their entity', hint: REBUILD },
  relation_id: {
    weight: 'error',
    state: 'rows have an id that does not match their relation',
    hint: REBUILD,
  },
  chunk_id: { weight: 'error', state: 'chunks have an id that does not start with "chunk-"', hint: RESTORE },
  chunks_count: {
    weight: 'error',
    state: 'documents list another number of chunks than they count',
    hint: RESTORE,
  },
  matrix_length: {
    weight: 'error',
    state: 'the length of the matrix does not match the number of rows',
    hint: REBUILD,
  },
  vector_mismatch: {
    weight: 'error',
    state: 'rows have a vector that differs from the matrix',
    hint: REBUILD,
  },
  bad_vector: {
    weight: 'warning',
    state: 'rows of the matrix are zero or not numbers: no search finds them',
    hint: REBUILD,
  },
};
