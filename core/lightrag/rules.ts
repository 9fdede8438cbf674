import type { TableName } from './facts.ts';

/** The files of a graph that checks compare, without what all their names share. */
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
 * How bad it is to break a rule. Under way: an error only while the instance is known to be idle. A sign: nothing bad by
 * itself, but what a moment between two files of a flush looks like.
 */
export type Weight = 'error' | 'warning' | 'under way' | 'sign';

/** All names of one table must be in another. */
export interface Rule {
  readonly code: string;
  readonly weight: Weight;
  readonly items: TableName;
  readonly from: GraphFile;
  readonly known: TableName;
  readonly to: GraphFile;
  /** What an item is and does, in the plural. */
  readonly state: string;
  readonly hint: string;
}

const REBUILD =
  'the graph is the authority: have the instance rebuild its vectors, or restore an earlier point';
const RESTORE = 'restore an earlier point, or ingest the documents concerned again';
const STAYS = 'nothing need be done if it stays: it is embedded again when it changes';
const ASK = 'let the instance finish; if it stays, ingest the documents concerned again';

function rule(
  code: string,
  weight: Weight,
  [items, from]: readonly [TableName, GraphFile],
  [known, to]: readonly [TableName, GraphFile],
  [state, hint]: readonly [string, string],
): Rule {
  return { code, weight, items, from, known, to, state, hint };
}

/** What holds between the files of a LightRAG directory: docs/design.md says how that was found. */
export const RULES: readonly Rule[] = [
  rule(
    'vector_without_node',
    'error',
    ['entityVectors', 'entityVectors'],
    ['nodes', 'graph'],
    ['vectors are of entities that are not in the graph', REBUILD],
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
    ['vectors are of relations that are not in the graph', REBUILD],
  ),
  rule(
    'edge_without_end',
    'error',
    ['ends', 'graph'],
    ['nodes', 'graph'],
    ['ends of edges are no nodes', RESTORE],
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
    ['vectors are of chunks that are not there', RESTORE],
  ),
  rule(
    'chunk_without_document',
    'error',
    ['chunkDocuments', 'chunks'],
    ['documents', 'documents'],
    ['documents that chunks belong to are not there', RESTORE],
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
    ['chunks of processed documents are not there', RESTORE],
  ),
  rule(
    'edge_source_missing',
    'error',
    ['edgeSources', 'graph'],
    ['chunks', 'chunks'],
    ['chunks that edges come from are not there', RESTORE],
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
    ['documents that were begun are not there', ASK],
  ),
  rule(
    'node_source_missing',
    'warning',
    ['nodeSources', 'graph'],
    ['chunks', 'chunks'],
    ['chunks that nodes come from are not there', ASK],
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
    ['entities of documents are not in the graph', ASK],
  ),
  rule(
    'named_relation_missing',
    'warning',
    ['namedRelations', 'namedRelations'],
    ['edges', 'graph'],
    ['relations of documents are not in the graph', ASK],
  ),
  rule(
    'node_not_named',
    'warning',
    ['nodes', 'graph'],
    ['namedEntities', 'namedEntities'],
    ['nodes are of no document', ASK],
  ),
  rule(
    'answer_missing',
    'warning',
    ['chunkAnswers', 'chunks'],
    ['answers', 'answers'],
    [
      'answers of the model that chunks came from are not in the cache',
      'nothing need be done: they are asked for again when they are needed',
    ],
  ),
  rule(
    'entity_differs',
    'sign',
    ['entityStates', 'entityVectors'],
    ['nodeStates', 'graph'],
    ['vectors were made of another state of their entity', STAYS],
  ),
  rule(
    'relation_differs',
    'sign',
    ['relationStates', 'relationVectors'],
    ['edgeStates', 'graph'],
    ['vectors were made of another state of their relation', STAYS],
  ),
];

/** Codes of rules that are only signs. */
export const SIGNS: ReadonlySet<string> = new Set(
  RULES.filter(({ weight }) => weight === 'sign').map(({ code }) => code),
);

/** The tables that each file gives, by its path. */
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

/** Where names that must be one of their kind come from. */
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

/** A file that the names of another one imply. */
export interface Implied {
  readonly table: TableName;
  readonly in: GraphFile;
  readonly file: GraphFile;
  readonly state: string;
}

/** Files whose absence is a finding, and why. */
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

/** What may be wrong with a record by itself. */
export const FLAWS: Readonly<Record<string, { weight: 'error' | 'warning'; state: string; hint: string }>> = {
  duplicate_id: { weight: 'error', state: 'names are there more than once', hint: RESTORE },
  entity_id: { weight: 'error', state: 'rows have an id that is not that of their entity', hint: REBUILD },
  relation_id: {
    weight: 'error',
    state: 'rows have an id that is not that of their relation',
    hint: REBUILD,
  },
  chunk_id: { weight: 'error', state: 'chunks have an id of another form', hint: RESTORE },
  chunks_count: { weight: 'error', state: 'documents count other chunks than they list', hint: RESTORE },
  matrix_length: { weight: 'error', state: 'the matrix is not as long as the rows say', hint: REBUILD },
  vector_mismatch: {
    weight: 'error',
    state: 'rows have a vector that is not that of the matrix',
    hint: REBUILD,
  },
  bad_vector: {
    weight: 'warning',
    state: 'rows of the matrix are zero or no numbers: they are never found',
    hint: REBUILD,
  },
};
