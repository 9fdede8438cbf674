import type { Stage } from './doc-status.ts';
import type { Version } from './version.ts';

/** The names of all files, kv first and the graph last. */
export const FILE_NAMES = [
  'kv_store_full_docs.json',
  'kv_store_doc_status.json',
  'kv_store_text_chunks.json',
  'kv_store_llm_response_cache.json',
  'kv_store_full_entities.json',
  'kv_store_full_relations.json',
  'kv_store_entity_chunks.json',
  'kv_store_relation_chunks.json',
  'vdb_entities.json',
  'vdb_relationships.json',
  'vdb_chunks.json',
  'graph_chunk_entity_relation.graphml',
] as const;

/** A file of a LightRAG directory. */
export type FileName = (typeof FILE_NAMES)[number];

export const DOCS = 'kv_store_full_docs.json';
export const STATUS = 'kv_store_doc_status.json';
export const CHUNKS = 'kv_store_text_chunks.json';
export const CACHE = 'kv_store_llm_response_cache.json';
export const ENTITY_NAMES = 'kv_store_full_entities.json';
export const RELATION_PAIRS = 'kv_store_full_relations.json';
export const ENTITY_CHUNKS = 'kv_store_entity_chunks.json';
export const RELATION_CHUNKS = 'kv_store_relation_chunks.json';
export const GRAPH = 'graph_chunk_entity_relation.graphml';
export const CHUNK_VECTORS = 'vdb_chunks.json';

const VECTORS = ['vdb_entities.json', 'vdb_relationships.json', CHUNK_VECTORS] as const;

/** Files that are made of the documents' chunks. */
export const DERIVED: readonly FileName[] = [
  ENTITY_NAMES,
  RELATION_PAIRS,
  ENTITY_CHUNKS,
  RELATION_CHUNKS,
  ...VECTORS,
  GRAPH,
];

/** What has become of a document that is deleted, in order. */
// A server removes its data part by part: what only it mentions, the mentions by others, its chunks, its names,
// its text.
export type Removal = 'own' | 'shared' | 'chunks' | 'names' | 'document';

/** A step of a server: the rewrite of a file, or the time in which it computes embeddings. */
export type Step =
  | { readonly kind: 'file'; readonly name: FileName }
  | { readonly kind: 'status'; readonly stage: Stage }
  | { readonly kind: 'embed' };

/** Steps of a deletion after a removal from memory. */
export interface RemovalSteps {
  /** What is removed; undefined for nothing. If nothing is `shared`, its steps are left out. */
  readonly removal: Removal | undefined;
  readonly steps: readonly Step[];
}

const files = (...names: readonly FileName[]): Step[] => names.map((name) => ({ kind: 'file', name }));
const stages = (...list: readonly Stage[]): Step[] => list.map((stage) => ({ kind: 'status', stage }));
const EMBED: Step = { kind: 'embed' };

/** Steps of an ingest before anything of the document is in the graph. */
const PREPARED: Readonly<Record<Version, readonly Step[]>> = {
  '1.5.7': [...files(DOCS), ...stages('pending', 'parsing', 'parsed', 'analyzing', 'analyzed', 'processing')],
  '1.4.9.11': [...files(DOCS), ...stages('pending', 'processing')],
};

/** Steps of an ingest once its entities and relations are known. */
const MERGED: Readonly<Record<Version, readonly Step[]>> = {
  '1.5.7': [
    ...files(ENTITY_NAMES, RELATION_PAIRS),
    ...stages('merging'),
    ...files(CHUNKS, ENTITY_CHUNKS, RELATION_CHUNKS, CACHE, GRAPH),
    // Vectors are computed within the flush, which takes seconds with a real endpoint.
    EMBED,
    ...files(...VECTORS),
    ...stages('processed'),
  ],
  '1.4.9.11': [
    EMBED,
    // A document became processed before its data was on disk.
    ...stages('processed'),
    ...files(CHUNKS, ENTITY_NAMES, RELATION_PAIRS, ENTITY_CHUNKS, RELATION_CHUNKS, CACHE),
    ...files(...VECTORS, GRAPH),
  ],
};

const DELETION: Readonly<Record<Version, readonly RemovalSteps[]>> = {
  '1.5.7': [
    { removal: undefined, steps: stages('collected', 'prepared') },
    // Nothing is to be embedded, so that the vectors come first.
    { removal: 'own', steps: files(ENTITY_CHUNKS, RELATION_CHUNKS, ...VECTORS, GRAPH) },
    {
      removal: 'shared',
      steps: [
        ...files(ENTITY_CHUNKS, RELATION_CHUNKS, CHUNK_VECTORS, GRAPH),
        EMBED,
        ...files('vdb_entities.json', 'vdb_relationships.json'),
      ],
    },
    { removal: undefined, steps: stages('derived_committed') },
    { removal: 'chunks', steps: [...files(CHUNK_VECTORS, CHUNKS), ...stages('anchors_pending')] },
    { removal: 'names', steps: [...files(ENTITY_NAMES, RELATION_PAIRS), ...stages('completed')] },
    { removal: 'document', steps: files(DOCS, STATUS, ...VECTORS, GRAPH) },
  ],
  '1.4.9.11': [
    { removal: 'chunks', steps: files(CHUNKS) },
    { removal: 'own', steps: files(ENTITY_CHUNKS, RELATION_CHUNKS, ...VECTORS, GRAPH) },
    { removal: 'shared', steps: [EMBED] },
    { removal: 'names', steps: [] },
    {
      removal: 'document',
      steps: files(
        DOCS,
        STATUS,
        ENTITY_NAMES,
        RELATION_PAIRS,
        ENTITY_CHUNKS,
        RELATION_CHUNKS,
        ...VECTORS,
        GRAPH,
      ),
    },
  ],
};

/** Files that clearing removes; the server removes the vectors and the graph before it empties the kv files. */
export const REMOVED_BY_CLEAR: readonly FileName[] = [...VECTORS, GRAPH];

/** Files that clearing empties, in order. The cache stays. */
export const EMPTIED_BY_CLEAR: readonly FileName[] = [
  CHUNKS,
  DOCS,
  ENTITY_NAMES,
  RELATION_PAIRS,
  ENTITY_CHUNKS,
  RELATION_CHUNKS,
  STATUS,
];

/** Returns the steps of an ingest before and after its entities and relations are known. */
export function ingestSteps(version: Version): { prepared: readonly Step[]; merged: readonly Step[] } {
  return { prepared: PREPARED[version], merged: MERGED[version] };
}

/** Returns the steps of a document's deletion. */
export function deletionSteps(version: Version): readonly RemovalSteps[] {
  return DELETION[version];
}

/** Returns the files that a server saves when it is stopped, if they are outdated. */
// Since 1.5 these are the vectors that it has not yet computed; before, nothing but the cache.
export function savedAtStop(version: Version): readonly FileName[] {
  return version === '1.4.9.11' ? [CACHE] : [...VECTORS, CACHE];
}
