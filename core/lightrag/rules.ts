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

/** Files that a server cannot make again: the others are caches, or are derived from these. */
export const IRREPLACEABLE: readonly GraphFile[] = [
  'documents',
  'statuses',
  'chunks',
  'chunkVectors',
  'entityVectors',
  'relationVectors',
  'graph',
];

/**
 * Class of a rule.
 *
 * "load": a server refuses to load the file, or silently discards what is in it. "promise": something that a processed
 * document lists is lacking. "leftover": documented operations leave it behind. "note": nothing is lost, and nothing
 * can be done.
 */
// The classes were found by running servers of three versions through every documented operation and 114 kinds of
// damage.
export type RuleClass = 'load' | 'promise' | 'leftover' | 'note';

/** The wording of a finding. */
interface Wording {
  /** What is wrong with the items, in the plural. */
  readonly state: string;
  readonly hint: string;
}

/**
 * Which of the names that the other table lacks are promised.
 *
 * "all": each. "entities" and "relations": those that processed documents list and no open document explains.
 */
export type Promised = 'all' | 'entities' | 'relations' | { readonly table: TableName };

/** A rule: all names of one table must be in another. */
export interface Rule {
  readonly code: string;
  readonly items: TableName;
  readonly from: GraphFile;
  readonly known: TableName;
  readonly to: GraphFile;
  /** Names that need not be in the other table. */
  readonly except?: TableName;
  readonly promised?: Promised;
  /** Wording where the promise is broken. */
  readonly broken?: Wording;
  /** Class and wording of lacking names that nothing promises; undefined if they are no finding. */
  readonly left?: Wording & { readonly class: 'leftover' | 'note' };
}

const RESTORE = 'restore an earlier point, or delete the affected documents and ingest them again';
const REPROCESS =
  'let the instance process its unfinished documents again (POST /documents/reprocess_failed); otherwise no action is needed';
const NO_ACTION = 'no action is needed';

/** The rules between the files of a LightRAG directory. Absent files count as empty ones. */
export const RULES: readonly Rule[] = [
  {
    // `processed` is written last since 1.5, and after the chunks in every version.
    code: 'promised_chunk_missing',
    items: 'promised',
    from: 'statuses',
    known: 'chunks',
    to: 'chunks',
    promised: 'all',
    broken: { state: 'processed documents list chunks that do not exist', hint: RESTORE },
  },
  {
    // A failed upload has a status and no text; a processed document always has both.
    code: 'processed_without_document',
    items: 'processed',
    from: 'statuses',
    known: 'documents',
    to: 'documents',
    promised: 'all',
    broken: { state: 'processed documents have no text', hint: RESTORE },
  },
  {
    // insert_custom_chunks writes a text without a status; a document with entities went through the pipeline.
    code: 'document_without_status',
    items: 'documents',
    from: 'documents',
    known: 'statuses',
    to: 'statuses',
    promised: { table: 'entityDocuments' },
    broken: {
      state: 'documents with entities have no status: the instance does not list them',
      hint: RESTORE,
    },
    left: {
      class: 'leftover',
      state: 'documents have no status: the instance does not list them',
      hint: 'ingest them again if they are missed',
    },
  },
  {
    // Vectors of a document whose embedding failed are lacking until it is processed again.
    code: 'chunk_without_vector',
    items: 'chunks',
    from: 'chunks',
    known: 'chunkVectors',
    to: 'chunkVectors',
    promised: { table: 'promised' },
    broken: { state: 'chunks of processed documents have no vector', hint: RESTORE },
    left: { class: 'leftover', state: 'chunks of unfinished documents have no vector', hint: REPROCESS },
  },
  {
    // A stop while a document is merged saves its vectors and not its nodes; RAG-Anything leaves vectors of images,
    // tables and equations without nodes.
    code: 'vector_without_node',
    items: 'entityVectors',
    from: 'entityVectors',
    known: 'nodes',
    to: 'graph',
    promised: 'entities',
    broken: { state: 'entities of processed documents have a vector and no node', hint: RESTORE },
    left: {
      class: 'leftover',
      state: 'vectors belong to entities that are not in the graph',
      hint: REPROCESS,
    },
  },
  {
    // An end of a relation that was never an entity is of type UNKNOWN and has no vector.
    code: 'node_without_vector',
    items: 'nodes',
    from: 'graph',
    known: 'entityVectors',
    to: 'entityVectors',
    except: 'untypedNodes',
    promised: 'entities',
    broken: { state: 'entities of processed documents have a node and no vector', hint: RESTORE },
    left: { class: 'leftover', state: 'nodes have no vector', hint: REPROCESS },
  },
  {
    code: 'vector_without_edge',
    items: 'relationVectors',
    from: 'relationVectors',
    known: 'edges',
    to: 'graph',
    promised: 'relations',
    broken: { state: 'relations of processed documents have a vector and no edge', hint: RESTORE },
    left: {
      class: 'leftover',
      state: 'vectors belong to relations that are not in the graph',
      hint: REPROCESS,
    },
  },
  {
    // Graph and key-value files are written before the vectors: a failed embedding leaves edges without them.
    code: 'edge_without_vector',
    items: 'edges',
    from: 'graph',
    known: 'relationVectors',
    to: 'relationVectors',
    promised: 'relations',
    broken: { state: 'relations of processed documents have an edge and no vector', hint: RESTORE },
    left: { class: 'leftover', state: 'edges have no vector', hint: REPROCESS },
  },
  {
    // networkx writes the nodes of all edges.
    code: 'edge_without_end',
    items: 'ends',
    from: 'graph',
    known: 'nodes',
    to: 'graph',
    promised: 'all',
    broken: { state: 'edges end at nodes that do not exist', hint: RESTORE },
  },
  {
    // A stop saves the vectors of a failed document and not its chunks.
    code: 'vector_without_chunk',
    items: 'chunkVectors',
    from: 'chunkVectors',
    known: 'chunks',
    to: 'chunks',
    left: { class: 'leftover', state: 'vectors belong to chunks that do not exist', hint: REPROCESS },
  },
  {
    // insert_custom_kg accepts any source; RAG-Anything stores chunks without documents.
    code: 'chunk_without_document',
    items: 'chunkDocuments',
    from: 'chunks',
    known: 'documents',
    to: 'documents',
    left: { class: 'note', state: 'chunks name documents that do not exist', hint: NO_ACTION },
  },
  {
    // Failed, duplicate and refused uploads have a status alone.
    code: 'status_without_document',
    items: 'statuses',
    from: 'statuses',
    known: 'documents',
    to: 'documents',
    except: 'processed',
    left: {
      class: 'note',
      state: 'unfinished documents have a status and no text',
      hint: 'delete them in the instance, or upload them again',
    },
  },
];

/** The file that defines each table that a rule or a promise uses. */
const FILE_OF: Readonly<Record<TableName, GraphFile>> = {
  documents: 'documents',
  statuses: 'statuses',
  processed: 'statuses',
  promised: 'statuses',
  openChunks: 'statuses',
  chunks: 'chunks',
  chunkDocuments: 'chunks',
  chunkVectors: 'chunkVectors',
  entityVectors: 'entityVectors',
  relationVectors: 'relationVectors',
  nodes: 'graph',
  untypedNodes: 'graph',
  edges: 'graph',
  ends: 'graph',
  entityDocuments: 'namedEntities',
  namedEntities: 'namedEntities',
  relationDocuments: 'namedRelations',
  namedRelations: 'namedRelations',
};

/** Returns the file that defines a table. */
export function fileOf(table: TableName): GraphFile {
  return FILE_OF[table];
}

/** Tables that each file defines, by the file's path. */
export const TABLES_OF: ReadonlyMap<string, readonly TableName[]> = tablesOf();

function tablesOf(): Map<string, TableName[]> {
  const tables = new Map<string, TableName[]>();
  for (const [table, file] of Object.entries(FILE_OF) as [TableName, GraphFile][])
    tables.set(GRAPH_FILES[file], [...(tables.get(GRAPH_FILES[file]) ?? []), table]);
  return tables;
}

/** Tables whose names must be unique in their file. */
export const UNIQUE: readonly TableName[] = [
  'documents',
  'statuses',
  'chunks',
  'chunkVectors',
  'entityVectors',
  'relationVectors',
  'nodes',
  'edges',
];

/** A flaw of a single record. */
export type Flaw = Wording & { readonly class: RuleClass };

/** Flaws of single records, by their code. */
export const FLAWS: Readonly<Record<string, Flaw>> = {
  // A server raises on it at its start.
  status_missing: {
    class: 'load',
    state: 'documents have a record without a status, summary, length or time',
    hint: RESTORE,
  },
  // Every listing of documents ends with HTTP 500.
  status_unknown: { class: 'load', state: 'documents have a status that no server knows', hint: RESTORE },
  // Searches that meet them end with HTTP 500, and flushes fail.
  row_without_id: { class: 'load', state: 'rows have no id', hint: RESTORE },
  row_without_name: { class: 'load', state: 'rows name no entity or relation', hint: RESTORE },
  // A longer matrix ends searches with HTTP 500; rows beyond a shorter one are never found.
  matrix_length: {
    class: 'load',
    state: 'the length of the matrix does not match the number of rows',
    hint: RESTORE,
  },
  // networkx then reads a graph of another kind, on which every call for edges fails.
  duplicate_edge: { class: 'load', state: 'pairs have more than one edge', hint: RESTORE },
  // The file loads, and every later flush of it fails.
  lone_surrogate: { class: 'load', state: 'rows have a text that is no Unicode', hint: RESTORE },
  // Of two rows with one id a server finds only one.
  duplicate_row: { class: 'load', state: 'rows have the id of another row', hint: RESTORE },
  // Every search finds the wrong rows.
  matrix_moved: {
    class: 'load',
    state: 'rows of the matrix belong to other rows of the file',
    hint: RESTORE,
  },
  // Old custom graphs hold a pair in both orders; of equal ids a server uses the last.
  duplicate_id: {
    class: 'leftover',
    state: 'names occur more than once',
    hint: 'delete the duplicates in the instance',
  },
  // The server finds a row by the id that it computes from the name.
  entity_id: {
    class: 'leftover',
    state: 'rows have an id that does not match their entity: the instance cannot change them',
    hint: NO_ACTION,
  },
  relation_id: {
    class: 'leftover',
    state: 'rows have an id that does not match their relation: the instance cannot change them',
    hint: NO_ACTION,
  },
  chunks_count: {
    class: 'note',
    state: 'documents list another number of chunks than they count',
    hint: NO_ACTION,
  },
  // No harm was seen: searches use the matrix alone.
  vector_mismatch: {
    class: 'leftover',
    state: 'rows have a vector that differs from the matrix',
    hint: 'let the instance embed the affected documents again',
  },
  bad_vector: {
    class: 'leftover',
    state: 'rows of the matrix are zero or not numbers: no search finds them',
    hint: 'let the instance embed the affected documents again',
  },
};

/** Codes of errors that never stand: what cannot be loaded is of no use, however old it is. */
export const LOAD_CODES: ReadonlySet<string> = new Set([
  'empty_file',
  'cut_file',
  'malformed_file',
  'mixed_dimensions',
  'unreadable',
  ...Object.entries(FLAWS).flatMap(([code, flaw]) => (flaw.class === 'load' ? [code] : [])),
]);

/** Files of which an empty one is read as a file without records, with no loss. */
export const MAY_BE_EMPTY: ReadonlySet<string> = new Set([
  GRAPH_FILES.answers,
  GRAPH_FILES.chunkedEntities,
  GRAPH_FILES.chunkedRelations,
  GRAPH_FILES.namedEntities,
  GRAPH_FILES.namedRelations,
]);
