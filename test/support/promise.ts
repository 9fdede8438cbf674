import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

// The promise of a processed document, stated a second time without the checks of the product: whole files in memory,
// sets of strings.

type Row = Readonly<Record<string, unknown>>;
type Table = Readonly<Record<string, Row>>;

function kv(dir: string, name: string): Table {
  const path = join(dir, `kv_store_${name}.json`);
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Table) : {};
}

function rows(dir: string, name: string): readonly Row[] {
  const path = join(dir, `vdb_${name}.json`);
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as { data: Row[] }).data : [];
}

/** A node or edge by its name, with its attributes. */
type Elements = Map<string, Readonly<Record<string, string>>>;

function pair(a: unknown, b: unknown): string {
  return [String(a), String(b)].sort((x, y) => Buffer.compare(Buffer.from(x), Buffer.from(y))).join('<SEP>');
}

function text(xml: string): string {
  const characters: Record<string, string> = { lt: '<', gt: '>', quot: '"', amp: '&', apos: "'" };
  return xml.replaceAll(/&(\w+);/g, (whole, name: string) => characters[name] ?? whole);
}

function readGraph(dir: string): { nodes: Elements; edges: Elements } {
  const path = join(dir, 'graph_chunk_entity_relation.graphml');
  const xml = existsSync(path) ? readFileSync(path, 'utf8') : '';
  const names = new Map(
    [...xml.matchAll(/<key id="(\w+)"[^>]* attr\.name="(\w+)"/g)].map(([, id, name]) => [id, name]),
  );
  const attributes = (inner = '') =>
    Object.fromEntries(
      [...inner.matchAll(/<data key="(\w+)">([^<]*)</g)].map(([, key, value]) => [
        names.get(key),
        text(value ?? ''),
      ]),
    );
  const nodes: Elements = new Map();
  const edges: Elements = new Map();
  for (const [, id = '', inner] of xml.matchAll(/<node id="([^"]*)">([\s\S]*?)<\/node>/g))
    nodes.set(text(id), attributes(inner));
  for (const [, a = '', b = '', inner] of xml.matchAll(
    /<edge source="([^"]*)" target="([^"]*)">([\s\S]*?)<\/edge>/g,
  ))
    edges.set(pair(text(a), text(b)), attributes(inner));
  return { nodes, edges };
}

const parts = (value: unknown) => (typeof value === 'string' ? value.split('<SEP>') : []);
const list = (value: unknown) => (Array.isArray(value) ? value : []);

/** Returns what processed documents promise and one side lacks, a line each. Throws for files that do not parse. */
export function brokenPromises(dir: string): string[] {
  const statuses = kv(dir, 'doc_status');
  const [documents, chunks] = [kv(dir, 'full_docs'), kv(dir, 'text_chunks')];
  const { nodes, edges } = readGraph(dir);
  const isProcessed = (id: string) => statuses[id]?.status === 'processed';
  const chunksOf = (wanted: boolean) =>
    Object.keys(statuses)
      .filter((id) => isProcessed(id) === wanted)
      .flatMap((id) => list(statuses[id]?.chunks_list) as string[]);
  const promised = new Set(chunksOf(true));
  const open = new Set(chunksOf(false));
  for (const [id, { full_doc_id }] of Object.entries(chunks))
    if (!isProcessed(String(full_doc_id))) open.add(id);
  const chunkVectors = new Set(rows(dir, 'chunks').map(({ __id__ }) => String(__id__)));
  const broken: string[] = [];
  for (const id of promised) {
    if (chunks[id] === undefined) broken.push(`chunk ${id} is promised and not there`);
    else if (!chunkVectors.has(id)) broken.push(`chunk ${id} has no vector`);
  }
  for (const id of Object.keys(statuses).filter(isProcessed))
    if (documents[id] === undefined) broken.push(`document ${id} is processed and not there`);
  const compare = (
    what: string,
    { names, elements, vectors }: { names: Table; elements: Elements; vectors: ReadonlyMap<string, Row> },
  ) => {
    const named = (wanted: boolean) =>
      new Set(
        Object.entries(names)
          .filter(([id]) => isProcessed(id) === wanted)
          .flatMap(([, { entity_names, relation_pairs }]) => [
            ...(list(entity_names) as string[]),
            ...(list(relation_pairs) as [string, string][]).map(([a, b]) => pair(a, b)),
          ]),
      );
    const openNames = named(false);
    for (const name of named(true)) {
      const sources = [...parts(elements.get(name)?.source_id), ...parts(vectors.get(name)?.source_id)];
      if (openNames.has(name) || sources.some((chunk) => open.has(chunk))) continue;
      const isUntyped = what === 'entity' && (elements.get(name)?.entity_type ?? 'UNKNOWN') === 'UNKNOWN';
      if (elements.has(name) && !vectors.has(name) && !isUntyped)
        broken.push(`${what} ${name} has no vector`);
      if (vectors.has(name) && !elements.has(name)) broken.push(`${what} ${name} is not in the graph`);
    }
  };
  const byName = (name: string, of: (row: Row) => string) =>
    new Map(rows(dir, name).map((row) => [of(row), row]));
  compare('entity', {
    names: kv(dir, 'full_entities'),
    elements: nodes,
    vectors: byName('entities', ({ entity_name }) => String(entity_name)),
  });
  compare('relation', {
    names: kv(dir, 'full_relations'),
    elements: edges,
    vectors: byName('relationships', ({ src_id, tgt_id }) => pair(src_id, tgt_id)),
  });
  return broken;
}
