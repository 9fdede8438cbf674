import { hash } from 'node:crypto';
import { SEPARATOR } from '../document.ts';
import { edgeKey } from './graph.ts';
import type { KvName, Memory, Value, VdbName } from './memory.ts';

const entityRow = (name: string): string => `ent-${hash('md5', name)}`;
const sourcesOf = (text: string | undefined): string[] => (text ? text.split(SEPARATOR) : []);

/** Deletes a document with its chunks and what only they mentioned. Returns whether it existed. */
// What other documents mention stays, with their sources. Cached model answers stay too.
export function deleteDocument(memory: Memory, id: string): boolean {
  if (!memory.store('kv_store_full_docs.json').delete(id)) return false;
  memory.store('kv_store_doc_status.json').delete(id);
  memory.store('kv_store_full_entities.json').delete(id);
  memory.store('kv_store_full_relations.json').delete(id);
  const gone = dropChunks(memory, id);
  deleteEntities(memory, gone);
  deleteRelations(memory, gone);
  return true;
}

function dropChunks(memory: Memory, id: string): Set<string> {
  const chunks = memory.store('kv_store_text_chunks.json');
  const gone = new Set(
    [...chunks].flatMap(([chunk, { full_doc_id }]) => (full_doc_id === id ? [chunk] : [])),
  );
  for (const chunk of gone) {
    chunks.delete(chunk);
    memory.vectors('vdb_chunks.json').rows.delete(chunk);
  }
  return gone;
}

function deleteEntities(memory: Memory, gone: ReadonlySet<string>): void {
  const { nodes } = memory.graph;
  for (const [name, node] of nodes) {
    const left = without(node.attributes.source_id, gone);
    if (left === undefined) continue;
    if (left === '') {
      nodes.delete(name);
      memory.vectors('vdb_entities.json').rows.delete(entityRow(name));
      memory.store('kv_store_entity_chunks.json').delete(name);
      continue;
    }
    nodes.set(name, { ...node, attributes: { ...node.attributes, source_id: left } });
    setSources(memory, 'vdb_entities.json', entityRow(name), left);
    dropIds(memory, 'kv_store_entity_chunks.json', name, gone);
  }
}

function deleteRelations(memory: Memory, gone: ReadonlySet<string>): void {
  const { nodes, edges } = memory.graph;
  for (const [key, edge] of edges) {
    const { ends, attributes } = edge;
    const [source, target] = ends;
    const left = ends.every((end) => nodes.has(end)) ? without(attributes.source_id, gone) : '';
    if (left === undefined) continue;
    const rows = [source + target, target + source].map((both) => `rel-${hash('md5', both)}`);
    const name = [...ends].sort().join(SEPARATOR);
    if (left === '') {
      edges.delete(edgeKey(ends));
      for (const row of rows) memory.vectors('vdb_relationships.json').rows.delete(row);
      memory.store('kv_store_relation_chunks.json').delete(name);
      continue;
    }
    edges.set(key, { ...edge, attributes: { ...attributes, source_id: left } });
    for (const row of rows) setSources(memory, 'vdb_relationships.json', row, left);
    dropIds(memory, 'kv_store_relation_chunks.json', name, gone);
  }
}

/** Returns the sources without those that are gone; undefined if all remain. */
function without(sources: string | undefined, gone: ReadonlySet<string>): string | undefined {
  const all = sourcesOf(sources);
  const left = all.filter((chunk) => !gone.has(chunk));
  return left.length === all.length ? undefined : left.join(SEPARATOR);
}

function setSources(memory: Memory, name: VdbName, id: string, sources: string): void {
  const { rows } = memory.vectors(name);
  const row = rows.get(id);
  if (row !== undefined) rows.set(id, { ...row, fields: { ...row.fields, source_id: sources } });
}

function dropIds(memory: Memory, name: KvName, key: string, gone: ReadonlySet<string>): void {
  const entry: Value | undefined = memory.store(name).get(key);
  if (!Array.isArray(entry?.chunk_ids)) return;
  const ids = entry.chunk_ids.filter((id) => !gone.has(String(id)));
  memory.store(name).set(key, { ...entry, chunk_ids: ids, count: ids.length });
}
