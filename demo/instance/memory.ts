import { createHash, hash } from 'node:crypto';
import { kvFile } from '../kv.ts';
import { CACHE, FILE_NAMES, type FileName } from '../write-order.ts';
import { emptyGraph, type Graph, graphText } from './graph.ts';
import { type Vectors, vectorsText } from './vectors.ts';

export type Value = Readonly<Record<string, unknown>>;
/** A `kv_store_*.json` file in memory. */
export type Store = Map<string, Value>;

export type KvName = Extract<FileName, `kv_${string}`>;
export type VdbName = Extract<FileName, `vdb_${string}`>;
export const GRAPH_NAME = 'graph_chunk_entity_relation.graphml';

export const KV_NAMES = FILE_NAMES.filter((name): name is KvName => name.startsWith('kv_'));
export const VDB_NAMES = FILE_NAMES.filter((name): name is VdbName => name.startsWith('vdb_'));

/** What the loaded files contain about an entity. Null marks what another file refers to but is missing. */
export interface Answer {
  readonly entity: string;
  readonly type: string | null;
  /** Description in the graph. */
  readonly description: string | null;
  /** Content of its vector's row. */
  readonly content: string | null;
  readonly chunks: readonly { id: string; document: string | null; content: string | null }[];
  readonly relations: readonly { entity: string; description: string; content: string | null }[];
}

/** The data of a running instance; its files are only copies. */
export class Memory {
  /** Dimensions of a vector. */
  readonly dimension: number;
  readonly graph: Graph;
  readonly #stores: ReadonlyMap<KvName, Store>;
  readonly #vectors: ReadonlyMap<VdbName, Vectors>;
  /** Files with names that LightRAG does not use; they are never written. */
  readonly #others: ReadonlyMap<string, Store>;

  /** Makes a memory; missing files are empty. */
  constructor(
    dimension: number,
    stores: ReadonlyMap<string, Store>,
    vectors: ReadonlyMap<VdbName, Vectors>,
    graph: Graph = emptyGraph(),
  ) {
    this.dimension = dimension;
    this.graph = graph;
    this.#stores = new Map(KV_NAMES.map((name) => [name, stores.get(name) ?? new Map()]));
    const none = (): Vectors => ({ dimension, rest: {}, rows: new Map() });
    this.#vectors = new Map(VDB_NAMES.map((name) => [name, vectors.get(name) ?? none()]));
    this.#others = new Map([...stores].filter(([name]) => !this.#stores.has(name as KvName)));
  }

  store(name: KvName): Store {
    return this.#stores.get(name) as Store;
  }

  vectors(name: VdbName): Vectors {
    return this.#vectors.get(name) as Vectors;
  }

  /** Yields the text of a file with its current content. */
  text(name: FileName): Generator<string> {
    if (name === GRAPH_NAME) return graphText(this.graph);
    const vectors = this.#vectors.get(name as VdbName);
    return vectors === undefined ? kvFile([...this.store(name as KvName)]) : vectorsText(vectors);
  }

  /** Removes all but the cache and the files of others. */
  clear(): void {
    for (const [name, store] of this.#stores) if (name !== CACHE) store.clear();
    for (const { rows } of this.#vectors.values()) rows.clear();
    this.graph.nodes.clear();
    this.graph.edges.clear();
  }

  /** Returns the SHA-256 of all data as hex digits. Memories with equal digests give equal answers. */
  digest(): string {
    const sum = createHash('sha256');
    const texts: [string, Iterable<string>][] = FILE_NAMES.map((name) => [name, this.text(name)]);
    for (const [name, store] of this.#others) texts.push([name, kvFile(store)]);
    for (const [name, text] of texts.sort(([a], [b]) => (a < b ? -1 : 1))) {
      sum.update(`${name}\0`);
      for (const piece of text) sum.update(piece);
      sum.update('\0');
    }
    return sum.digest('hex');
  }

  /** Returns the documents with their status. */
  documents(): { id: string; status: unknown; file_path: unknown; chunks_count: unknown }[] {
    const statuses = [...this.store('kv_store_doc_status.json')];
    return statuses.map(([id, { status, file_path, chunks_count }]) => {
      return { id, status, file_path, chunks_count: chunks_count ?? null };
    });
  }

  /** Number of queries so far, counted in the cache, which only grows. */
  get asked(): number {
    const keys = [...this.store(CACHE).keys()];
    return keys.filter((key) => key.includes(':query:')).length;
  }

  /** Returns what the loaded files contain about an entity; undefined if neither graph nor vectors contain it. */
  answer(entity: string): Answer | undefined {
    const node = this.graph.nodes.get(entity)?.attributes;
    const content = this.#content('vdb_entities.json', `ent-${hash('md5', entity)}`);
    if (node === undefined && content === null) return undefined;
    const listed = this.store('kv_store_entity_chunks.json').get(entity)?.chunk_ids;
    const ids = Array.isArray(listed) ? listed.map(String) : (node?.source_id?.split('<SEP>') ?? []);
    const chunks = ids.map((id) => {
      const document = this.store('kv_store_text_chunks.json').get(id)?.full_doc_id;
      const text = this.#content('vdb_chunks.json', id);
      return { id, document: typeof document === 'string' ? document : null, content: text };
    });
    const { entity_type: type = null, description = null } = node ?? {};
    return { entity, type, description, content, chunks, relations: this.#relations(entity) };
  }

  #relations(entity: string): Answer['relations'] {
    const touching = [...this.graph.edges.values()].filter(({ ends }) => ends.includes(entity));
    return touching.map(({ ends: [source, target], attributes }) => {
      const ids = [source + target, target + source].map((both) => `rel-${hash('md5', both)}`);
      const found = ids.map((id) => this.#content('vdb_relationships.json', id));
      const content = found[0] ?? found[1] ?? null;
      const other = source === entity ? target : source;
      return { entity: other, description: attributes.description ?? '', content };
    });
  }

  #content(name: VdbName, id: string): string | null {
    const content = this.vectors(name).rows.get(id)?.fields.content;
    return typeof content === 'string' ? content : null;
  }
}
