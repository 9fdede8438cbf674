import { extractions, queryEntries } from '../cache.ts';
import { type Corpus, corpusOf } from '../corpus.ts';
import type { Stage } from '../doc-status.ts';
import {
  DOCUMENT_LIMIT,
  documentOf,
  type Edition,
  filePathOf,
  joinedSources,
  SEPARATOR,
} from '../document.ts';
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
import {
  CACHE,
  CHUNK_VECTORS,
  CHUNKS,
  DOCS,
  ENTITY_CHUNKS,
  ENTITY_NAMES,
  RELATION_CHUNKS,
  RELATION_PAIRS,
  STATUS,
} from '../write-order.ts';
import { edgeKey } from './graph.ts';
import type { KvName, Memory, Value, VdbName } from './memory.ts';

/** Most descriptions that LightRAG joins before it asks a model for a summary. */
const DESCRIPTIONS_MAX = 6;
const FILE_PATHS_MAX = 3;

type Entry = readonly [key: string, value: object];

/** The ingest of one document and everything extracted from it into an instance's memory. */
export class DocumentIngest {
  readonly number: number;
  /** Id of the document. */
  readonly id: string;
  /** Name of its source file. */
  readonly filePath: string;
  readonly #memory: Memory;
  /** A corpus in which only this document remains. */
  readonly #corpus: Corpus;

  /** Begins with the first unfinished document, else with a new one; `failed` ones count only if they are wanted. */
  constructor(memory: Memory, edition: Edition, { failed = false } = {}) {
    const { seed, version } = edition;
    this.number = nextNumber(memory, edition, failed);
    if (this.number >= DOCUMENT_LIMIT) throw new RangeError(`Cannot ingest document ${this.number}`);
    this.#memory = memory;
    const deleted = Array.from({ length: this.number - 1 }, (_, index) => index + 1);
    const { dimension } = memory;
    const contents = { seed, version, dimension, vectorField: hasVectorField(memory), deleted, queries: [] };
    this.id = documentOf(edition, this.number).id;
    this.filePath = filePathOf(this.number);
    this.#corpus = corpusOf({ ...contents, ingested: this.number });
  }

  /** Adds the text of the document. Returns whether it was new. */
  enqueue(): boolean {
    if (this.#memory.store(DOCS).has(this.id)) return false;
    this.#put(DOCS, fullDocs(this.#corpus));
    return true;
  }

  setStatus(stage: Stage): void {
    this.#put(
      STATUS,
      docStatus(this.#corpus, () => stage),
    );
  }

  /** Adds the chunks and their vectors. Nothing is known about them yet. */
  addChunks(): void {
    for (const [key, value] of textChunks(this.#corpus)) {
      this.#put(CHUNKS, [[key, { ...value, llm_cache_list: [] }]]);
    }
    for (const row of chunkRows(this.#corpus)) this.#putRow(CHUNK_VECTORS, row, row.fields, row.vector);
  }

  /** Adds chunks, cache, graph and vectors. Has no effect the second time. */
  extract(): void {
    const document = documentOf(this.#corpus, this.number);
    const cached = extractions(document).map(({ entry }) => entry);
    this.#put(CACHE, cached);
    this.#put(CHUNKS, textChunks(this.#corpus));
    this.#put(ENTITY_NAMES, fullEntities(this.#corpus));
    this.#put(RELATION_PAIRS, fullRelations(this.#corpus));
    this.#putChunkIds(ENTITY_CHUNKS, entityChunks(this.#corpus));
    this.#putChunkIds(RELATION_CHUNKS, relationChunks(this.#corpus));
    for (const node of graphNodes(this.#corpus)) this.#putNode(node);
    for (const edge of graphEdges(this.#corpus)) this.#putEdge(edge);
    for (const row of chunkRows(this.#corpus)) this.#putRow(CHUNK_VECTORS, row, row.fields, row.vector);
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

  /** Puts the row of a relation. */
  // Before 1.5, LightRAG deleted the row of a merged relation and added it again.
  #putRelationRow(row: Row): void {
    const { src_id: source = '', tgt_id: target = '' } = row.fields;
    const attributes = this.#memory.graph.edges.get(edgeKey([source, target]))?.attributes ?? {};
    const origin = originOf(attributes);
    const { keywords = '', description = '' } = attributes;
    const content = `${keywords}\t${source}\n${target}\n${description}`;
    const fields = { ...row.fields, source_id: origin.source_id, content, file_path: origin.file_path };
    if (this.#corpus.version === '1.4.9.11') {
      this.#memory.vectors('vdb_relationships.json').rows.delete(row.id);
    }
    this.#putRow('vdb_relationships.json', row, fields, mergedVector(row.vector, origin.source_id));
  }

  #putRow(name: VdbName, written: Row, fields: Row['fields'], key: VectorKey): void {
    const { id, createdAt, writeSequence } = written;
    const { matrix, vector } = embedding(key, this.#corpus.dimension);
    const sequence = writeSequence === undefined ? {} : { __write_seq__: BigInt(writeSequence) };
    const field = this.#corpus.vectorField ? { vector } : {};
    const row = { __id__: id, __created_at__: createdAt, ...sequence, ...fields, ...field };
    this.#memory.vectors(name).rows.set(id, { fields: row, matrix });
  }
}

/** Adds the keywords and the answer of one query to the cache. */
export function addQuery(memory: Memory, edition: Edition): void {
  const cache = memory.store(CACHE);
  const entries = queryEntries(edition, memory.store(STATUS).size, memory.asked + 1);
  for (const [key, value] of entries) cache.set(key, value as Value);
}

/** Returns the number of the first document that is to be processed, else of a new one. */
function nextNumber(memory: Memory, edition: Edition, wantsFailed: boolean): number {
  const numbers = memory.documents().map(({ file_path }) => numberOf(file_path));
  return openNumber(memory, edition, wantsFailed) ?? Math.max(0, ...numbers) + 1;
}

/** Returns the number of the first unfinished document, or of the first failed one; undefined if there is none. */
// A failed document waits until it is asked for.
function openNumber(memory: Memory, edition: Edition, wantsFailed: boolean): number | undefined {
  const open = memory.documents().find(({ id, status, file_path }) => {
    if (status === 'processed' || (status === 'failed') !== wantsFailed) return false;
    const number = numberOf(file_path);
    // One that another version has named otherwise is left alone.
    return number > 0 && documentOf(edition, number).id === id;
  });
  return open === undefined ? undefined : numberOf(open.file_path);
}

/** Returns the number of a document by the name of its source file; 0 for a file of others. */
function numberOf(filePath: unknown): number {
  return Number(/^notes-(\d+)\.md$/.exec(String(filePath))?.[1] ?? 0);
}

/** Reports whether an instance has a failed document to process again. */
export function hasFailed(memory: Memory, edition: Edition): boolean {
  return openNumber(memory, edition, true) !== undefined;
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
