import { extractions, queryEntries } from '../cache.ts';
import { type Corpus, corpusOf } from '../corpus.ts';
import { DOCUMENT_LIMIT, documentOf, joinedSources, SEPARATOR } from '../document.ts';
import { type GraphEdge, type GraphNode, graphEdges, graphNodes } from '../graphml.ts';
import {
  docStatus,
  entityChunks,
  fullDocs,
  fullEntities,
  fullRelations,
  relationChunks,
  textChunks,
} from '../kv.ts';
import type { VectorKey } from '../random.ts';
import { chunkRows, embedding, entityRows, type Row, relationRows } from '../vdb.ts';
import { edgeKey } from './graph.ts';
import type { KvName, Memory, Value, VdbName } from './memory.ts';

/** Most descriptions that LightRAG joins before it asks a model for a summary. */
const DESCRIPTIONS_MAX = 6;
const FILE_PATHS_MAX = 3;
/** Fields of a pending document's status. */
const PENDING_FIELDS = 'content_summary content_length created_at updated_at file_path track_id'.split(' ');

const CACHE = 'kv_store_llm_response_cache.json';
const STATUS = 'kv_store_doc_status.json';
type Entry = readonly [key: string, value: object];

/** The ingest of one document and everything extracted from it into an instance's memory. */
export class DocumentIngest {
  readonly number: number;
  /** Id of the document. */
  readonly id: string;
  readonly #memory: Memory;
  /** A corpus in which only this document remains. */
  readonly #corpus: Corpus;

  constructor(memory: Memory, seed: number) {
    this.number = nextNumber(memory);
    if (this.number >= DOCUMENT_LIMIT) throw new RangeError(`Cannot ingest document ${this.number}`);
    this.#memory = memory;
    const deleted = Array.from({ length: this.number - 1 }, (_, index) => index + 1);
    const { dimension } = memory;
    const contents = { seed, dimension, vectorField: hasVectorField(memory), deleted, queries: [] };
    this.id = documentOf(seed, this.number).id;
    this.#corpus = corpusOf({ ...contents, ingested: this.number });
  }

  /** Adds the text of the document with status `pending`. */
  enqueue(): void {
    this.#put('kv_store_full_docs.json', fullDocs(this.#corpus));
    for (const [id, status] of docStatus(this.#corpus, 0) as Iterable<[string, Value]>) {
      const fields = PENDING_FIELDS.map((name) => [name, status[name]]);
      this.#put(STATUS, [[id, { status: 'pending', ...Object.fromEntries(fields) }]]);
    }
  }

  setStatus(status: 'processing' | 'processed'): void {
    this.#put(STATUS, docStatus(this.#corpus, status === 'processing' ? 0 : Number.POSITIVE_INFINITY));
  }

  /** Adds chunks, cache, graph and vectors. Has no effect the second time. */
  extract(): void {
    const document = documentOf(this.#corpus.seed, this.number);
    const cached = extractions(document).map(({ entry }) => entry);
    this.#put(CACHE, cached);
    this.#put('kv_store_text_chunks.json', textChunks(this.#corpus));
    this.#put('kv_store_full_entities.json', fullEntities(this.#corpus));
    this.#put('kv_store_full_relations.json', fullRelations(this.#corpus));
    this.#putChunkIds('kv_store_entity_chunks.json', entityChunks(this.#corpus));
    this.#putChunkIds('kv_store_relation_chunks.json', relationChunks(this.#corpus));
    for (const node of graphNodes(this.#corpus)) this.#putNode(node);
    for (const edge of graphEdges(this.#corpus)) this.#putEdge(edge);
    for (const row of chunkRows(this.#corpus)) this.#putRow('vdb_chunks.json', row, row.fields, row.vector);
    for (const row of entityRows(this.#corpus)) this.#putEntityRow(row);
    for (const row of relationRows(this.#corpus)) this.#putRelationRow(row);
  }

  #put(name: KvName, entries: Iterable<Entry>): void {
    const store = this.#memory.store(name);
    for (const [key, value] of entries) store.set(key, value as Value);
  }

  #putChunkIds(name: KvName, entries: Iterable<Entry>): void {
    const store = this.#memory.store(name);
    for (const [key, value] of entries as Iterable<[string, Value]>) {
      const listed = store.get(key)?.chunk_ids;
      if (!Array.isArray(listed)) {
        store.set(key, value);
        continue;
      }
      const ids = joined(listed.map(String), value.chunk_ids as string[]);
      if (ids.length === listed.length) continue;
      // A merge drops the time of creation.
      store.set(key, { chunk_ids: ids, count: ids.length, update_time: value.update_time, _id: key });
    }
  }

  #putNode(node: GraphNode): void {
    const { nodes } = this.#memory.graph;
    nodes.set(node.id, { ...node, attributes: merged(nodes.get(node.id)?.attributes, node.attributes) });
  }

  #putEdge(edge: GraphEdge): void {
    const { edges } = this.#memory.graph;
    const key = edgeKey(edge.ends);
    const known = edges.get(key);
    const attributes = merged(known?.attributes, edge.attributes);
    edges.set(key, { ends: known?.ends ?? edge.ends, attributes });
  }

  /** Puts the row of an entity after its node. */
  // A merged entity is embedded anew with its description in the graph.
  #putEntityRow(row: Row): void {
    const name = row.fields.entity_name as string;
    const { description = '', ...attributes } = this.#memory.graph.nodes.get(name)?.attributes ?? {};
    const origin = originOf(attributes);
    const fields = { ...row.fields, content: `${name}\n${description}`, ...origin };
    this.#putRow('vdb_entities.json', row, fields, mergedVector(row.vector, origin.source_id));
  }

  /** Puts the row of a relation at the end. */
  // LightRAG deletes the row of a merged relation and adds it again.
  #putRelationRow(row: Row): void {
    const { src_id: source = '', tgt_id: target = '' } = row.fields;
    const attributes = this.#memory.graph.edges.get(edgeKey([source, target]))?.attributes ?? {};
    const origin = originOf(attributes);
    const { keywords = '', description = '' } = attributes;
    const content = `${keywords}\t${source}\n${target}\n${description}`;
    const fields = { ...row.fields, source_id: origin.source_id, content, file_path: origin.file_path };
    this.#memory.vectors('vdb_relationships.json').rows.delete(row.id);
    this.#putRow('vdb_relationships.json', row, fields, mergedVector(row.vector, origin.source_id));
  }

  #putRow(name: VdbName, { id, createdAt }: Row, fields: Row['fields'], key: VectorKey): void {
    const { matrix, vector } = embedding(key, this.#corpus.dimension);
    const field = this.#corpus.vectorField ? { vector } : {};
    const row = { __id__: id, __created_at__: createdAt, ...fields, ...field };
    this.#memory.vectors(name).rows.set(id, { fields: row, matrix });
  }
}

/** Adds the keywords and the answer of one query to the cache. */
export function addQuery(memory: Memory, seed: number): void {
  const cache = memory.store(CACHE);
  const entries = queryEntries(seed, memory.store(STATUS).size, memory.asked + 1);
  for (const [key, value] of entries) cache.set(key, value as Value);
}

/** Returns the number of the first unfinished document, else of a new one. */
function nextNumber(memory: Memory): number {
  let last = 0;
  for (const { status, file_path } of memory.documents()) {
    const [, digits = '0'] = /^notes-(\d+)\.md$/.exec(String(file_path)) ?? [];
    if (status !== 'processed' && Number(digits) > 0) return Number(digits);
    last = Math.max(last, Number(digits));
  }
  return last + 1;
}

function hasVectorField(memory: Memory): boolean {
  const [row] = memory.vectors('vdb_chunks.json').rows.values();
  return row === undefined || 'vector' in row.fields;
}

function joined(known: readonly string[], added: readonly string[]): string[] {
  return [...new Set([...known, ...added])];
}

const partsOf = (text: string | undefined): string[] => (text ? text.split(SEPARATOR) : []);

const originOf = ({ source_id = '', file_path = '' }: GraphNode['attributes']) => ({ source_id, file_path });

/** Merges the attributes of two documents. */
function merged(known: GraphNode['attributes'] | undefined, added: GraphNode['attributes']) {
  if (known === undefined) return added;
  const sources = joined(partsOf(known.source_id), partsOf(added.source_id));
  if (sources.length === partsOf(known.source_id).length) return known;
  const descriptions = joined(partsOf(known.description), partsOf(added.description));
  const paths = joined(partsOf(known.file_path), partsOf(added.file_path)).slice(0, FILE_PATHS_MAX);
  const weight = Number(known.weight) + Number(added.weight);
  return {
    ...known,
    ...(added.weight === undefined ? {} : { weight: weight.toFixed(1) }),
    ...(added.created_at === undefined ? {} : { created_at: added.created_at }),
    description:
      descriptions.length > DESCRIPTIONS_MAX
        ? descriptions.slice(-2).join(' ')
        : descriptions.join(SEPARATOR),
    source_id: joinedSources(sources),
    file_path: paths.join(SEPARATOR),
  };
}

/** Returns the vector key of something merged, which depends on the number of its sources. */
function mergedVector([kind, index, place]: VectorKey, sources: string): VectorKey {
  const count = partsOf(sources).length;
  return count === 1 ? [kind, index, place] : [kind, index, place + count];
}
