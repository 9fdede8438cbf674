import { hash } from 'node:crypto';
import { type RemovalStage, removalRecord } from '../doc-status.ts';
import { SEPARATOR } from '../document.ts';
import {
  CHUNK_VECTORS,
  CHUNKS,
  DOCS,
  ENTITY_CHUNKS,
  ENTITY_NAMES,
  type FileName,
  RELATION_CHUNKS,
  RELATION_PAIRS,
  type Removal,
  STATUS,
} from '../write-order.ts';
import { edgeKey } from './graph.ts';
import type { KvName, Memory, Value, VdbName } from './memory.ts';

const entityRow = (name: string): string => `ent-${hash('md5', name)}`;
const relationRows = ([source, target]: readonly [string, string]): string[] =>
  [source + target, target + source].map((both) => `rel-${hash('md5', both)}`);
const pairName = (ends: readonly string[]): string => [...ends].sort().join(SEPARATOR);
const sourcesOf = (text: string | undefined): string[] => (text ? text.split(SEPARATOR) : []);

/** The deletion of one document and what only it mentions, part by part. */
// What other documents mention stays, with their sources. Cached model answers stay too.
export class DocumentRemoval {
  readonly #memory: Memory;
  readonly #id: string;
  /** Ids of the document's chunks. */
  readonly #chunks: ReadonlySet<string>;
  readonly #cacheIds: readonly string[];

  constructor(memory: Memory, id: string) {
    this.#memory = memory;
    this.#id = id;
    const own = [...memory.store(CHUNKS)].filter(([, { full_doc_id }]) => full_doc_id === id);
    this.#chunks = new Set(own.map(([chunk]) => chunk));
    this.#cacheIds = own.flatMap(([, { llm_cache_list }]) => (llm_cache_list ?? []) as string[]);
  }

  /** Reports whether the document exists. */
  static exists(memory: Memory, id: string): boolean {
    return memory.store(STATUS).has(id) || memory.store(DOCS).has(id);
  }

  /** Records how far the deletion has come. */
  record(stage: RemovalStage): void {
    const statuses = this.#memory.store(STATUS);
    const at = Math.floor(Date.now() / 1000);
    const cacheIds = this.#cacheIds;
    const record = removalRecord(this.#id, statuses.get(this.#id) ?? {}, { stage, cacheIds, at });
    statuses.set(this.#id, record);
  }

  /** Removes one part from memory, and returns the files that this outdates. */
  remove(removal: Removal): readonly FileName[] {
    switch (removal) {
      case 'own':
        return this.#removeOwn();
      case 'shared':
        return this.#removeMentions();
      case 'chunks':
        for (const chunk of this.#chunks) {
          this.#memory.store(CHUNKS).delete(chunk);
          this.#memory.vectors(CHUNK_VECTORS).rows.delete(chunk);
        }
        return [CHUNKS, CHUNK_VECTORS];
      case 'names':
        return this.#forget(ENTITY_NAMES, RELATION_PAIRS);
      case 'document':
        return this.#forget(DOCS, STATUS);
    }
  }

  #forget(...names: readonly KvName[]): readonly KvName[] {
    return names.filter((name) => this.#memory.store(name).delete(this.#id));
  }

  /** Removes what only this document mentions, and its chunks from the lists of the rest. */
  #removeOwn(): readonly FileName[] {
    const { nodes, edges } = this.#memory.graph;
    for (const [name, { attributes }] of nodes) {
      const left = this.#without(attributes.source_id);
      if (left === undefined) continue;
      if (left !== '') this.#dropIds(ENTITY_CHUNKS, name);
      else {
        nodes.delete(name);
        this.#memory.vectors('vdb_entities.json').rows.delete(entityRow(name));
        this.#memory.store(ENTITY_CHUNKS).delete(name);
      }
    }
    for (const { ends, attributes } of [...edges.values()]) {
      const left = ends.every((end) => nodes.has(end)) ? this.#without(attributes.source_id) : '';
      if (left === undefined) continue;
      if (left !== '') this.#dropIds(RELATION_CHUNKS, pairName(ends));
      else {
        edges.delete(edgeKey(ends));
        const { rows } = this.#memory.vectors('vdb_relationships.json');
        for (const row of relationRows(ends)) rows.delete(row);
        this.#memory.store(RELATION_CHUNKS).delete(pairName(ends));
      }
    }
    return [ENTITY_CHUNKS, RELATION_CHUNKS];
  }

  /** Removes the document's chunks from the sources of what others mention too. */
  #removeMentions(): readonly FileName[] {
    const { nodes, edges } = this.#memory.graph;
    const changed = new Set<FileName>();
    for (const [name, node] of nodes) {
      const source_id = this.#without(node.attributes.source_id);
      if (source_id === undefined) continue;
      nodes.set(name, { ...node, attributes: { ...node.attributes, source_id } });
      this.#setSources('vdb_entities.json', entityRow(name), source_id);
      changed.add(ENTITY_CHUNKS).add('vdb_entities.json');
    }
    for (const [key, edge] of edges) {
      const source_id = this.#without(edge.attributes.source_id);
      if (source_id === undefined) continue;
      edges.set(key, { ...edge, attributes: { ...edge.attributes, source_id } });
      for (const row of relationRows(edge.ends)) this.#setSources('vdb_relationships.json', row, source_id);
      changed.add(RELATION_CHUNKS).add('vdb_relationships.json');
    }
    return [...changed];
  }

  /** Returns the sources without the document's chunks; undefined if all remain. */
  #without(sources: string | undefined): string | undefined {
    const all = sourcesOf(sources);
    const left = all.filter((chunk) => !this.#chunks.has(chunk));
    return left.length === all.length ? undefined : left.join(SEPARATOR);
  }

  /** Changes the sources of a row. */
  // A rebuilt row of an entity begins with its content.
  #setSources(name: VdbName, id: string, source_id: string): void {
    const { rows } = this.#memory.vectors(name);
    const row = rows.get(id);
    if (row === undefined) return;
    const { __id__, __created_at__, __write_seq__, content, ...rest } = row.fields;
    const written = __write_seq__ === undefined ? {} : { __write_seq__ };
    const fields =
      name === 'vdb_entities.json' ? { __id__, __created_at__, ...written, content, ...rest } : row.fields;
    rows.set(id, { ...row, fields: { ...fields, source_id } });
  }

  #dropIds(name: KvName, key: string): void {
    const entry: Value | undefined = this.#memory.store(name).get(key);
    if (!Array.isArray(entry?.chunk_ids)) return;
    const ids = entry.chunk_ids.filter((id) => !this.#chunks.has(String(id)));
    this.#memory.store(name).set(key, { ...entry, chunk_ids: ids, count: ids.length });
  }
}
