import { hash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inflateSync } from 'node:zlib';

/** What was found wrong, as `rule: item`; warnings are what real directories show too. */
export interface Findings {
  readonly errors: string[];
  readonly warnings: string[];
}

type Value = Readonly<Record<string, unknown>>;
type Store = ReadonlyMap<string, Value>;

interface Vdb {
  readonly dimension: number;
  readonly rows: readonly Value[];
  readonly matrix: Buffer;
}

interface Element {
  /** The id of a node, both ends of an edge. */
  readonly ids: readonly string[];
  readonly data: Readonly<Record<string, string>>;
}

interface Graph {
  readonly nodes: readonly Element[];
  readonly edges: readonly Element[];
}

interface Directory {
  readonly docs: Store;
  readonly chunks: Store;
  readonly status: Store;
  readonly cache: Store;
  readonly fullEntities: Store;
  readonly fullRelations: Store;
  readonly entityChunks: Store;
  readonly relationChunks: Store;
  readonly entities: Vdb;
  readonly relationships: Vdb;
  readonly vdbChunks: Vdb;
  readonly graph: Graph;
}

const STAMPS = ['create_time', 'update_time', '_id'];
const CACHE_KEYS = ['return', 'cache_type', 'chunk_id', 'original_prompt', 'queryparam', ...STAMPS];
const CHUNK_KEYS = ['tokens', 'content', 'chunk_order_index', 'full_doc_id', 'file_path', 'llm_cache_list'];
const SUMMARY_KEYS = [
  'content_summary',
  'content_length',
  'created_at',
  'updated_at',
  'file_path',
  'track_id',
];
/** The keys of a document and of its status, in 1.4.9.11 and in 1.5.7. */
const DOCUMENT_KEYS = [
  ['content', 'file_path', ...STAMPS],
  ['content', 'file_path', 'parse_format', 'content_hash', 'process_options', 'chunk_options', ...STAMPS],
];
const STATUS_KEYS = [
  ['status', 'chunks_count', 'chunks_list', ...SUMMARY_KEYS, 'metadata'],
  ['status', ...SUMMARY_KEYS, 'content_hash', 'metadata', 'chunks_count', 'chunks_list'],
];
/** The number of a write in a row of 1.5.7, which is larger than a JavaScript number can hold. */
const SEQUENCE = /"__write_seq__": (\d+)/g;
const VDB_KEYS = {
  entities: ['entity_name', 'content', 'source_id', 'file_path'],
  relationships: ['src_id', 'tgt_id', 'source_id', 'content', 'file_path'],
  chunks: ['content', 'full_doc_id', 'file_path'],
};
/** The least cosine between a `vector` and its matrix row. */
const COSINE_MIN = 0.99;
/** The least share of elements of which the float16 of the matrix is the `vector`. */
const EQUAL_SHARE_MIN = 0.967;

/** Checks `dir` against every rule of LIGHTRAG.md, and its files byte by byte against the layouts there. */
export async function check(dir: string, { vectorField = true } = {}): Promise<Findings> {
  const findings: Findings = { errors: [], warnings: [] };
  const directory = await readDirectory(dir, vectorField);
  checkVectors(directory, vectorField, findings.errors);
  checkGraph(directory, findings.errors);
  checkChunks(directory, findings.errors);
  checkSources(directory, findings.errors);
  collectWarnings(directory, findings.warnings);
  return findings;
}

async function readDirectory(dir: string, vectorField: boolean): Promise<Directory> {
  const kv = (name: string, ...layouts: string[][]): Promise<Store> =>
    readKv(join(dir, `kv_store_${name}.json`), layouts);
  // A merged entry has lost its time of creation.
  const chunkIds = [
    ['chunk_ids', 'count', ...STAMPS],
    ['chunk_ids', 'count', ...STAMPS.slice(1)],
  ];
  const vdb = (name: keyof typeof VDB_KEYS): Promise<Vdb> => {
    const tail = [...VDB_KEYS[name], ...(vectorField ? ['vector'] : [])];
    const heads = [
      ['__id__', '__created_at__'],
      ['__id__', '__created_at__', '__write_seq__'],
    ];
    // A row of an entity that was made anew without a deleted document begins with its content.
    const rebuilt = ['content', ...tail.filter((key) => key !== 'content')];
    const layouts = heads.flatMap((head) => [
      [...head, ...tail],
      [...head, ...rebuilt],
    ]);
    return readVdb(join(dir, `vdb_${name}.json`), layouts);
  };
  return {
    docs: await kv('full_docs', ...DOCUMENT_KEYS),
    chunks: await kv('text_chunks', [...CHUNK_KEYS, ...STAMPS]),
    status: await kv('doc_status', ...STATUS_KEYS),
    cache: await kv('llm_response_cache', CACHE_KEYS),
    fullEntities: await kv('full_entities', ['entity_names', 'count', ...STAMPS]),
    fullRelations: await kv('full_relations', ['relation_pairs', 'count', ...STAMPS]),
    entityChunks: await kv('entity_chunks', ...chunkIds),
    relationChunks: await kv('relation_chunks', ...chunkIds),
    entities: await vdb('entities'),
    relationships: await vdb('relationships'),
    vdbChunks: await vdb('chunks'),
    graph: await readGraph(join(dir, 'graph_chunk_entity_relation.graphml')),
  };
}

async function readKv(path: string, layouts: readonly string[][]): Promise<Store> {
  const text = await readFile(path, 'utf8');
  const parsed = JSON.parse(text) as Record<string, Value>;
  if (JSON.stringify(parsed, null, 2) !== text) throw new Error(`${path} is not laid out as by json.dump`);
  const known = layouts.map((keys) => keys.join());
  for (const [key, value] of Object.entries(parsed)) {
    if (!known.includes(Object.keys(value).join())) throw new Error(`${path}: other keys in ${key}`);
  }
  return new Map(Object.entries(parsed));
}

async function readVdb(path: string, layouts: readonly string[][]): Promise<Vdb> {
  const text = (await readFile(path, 'utf8')).replaceAll(SEQUENCE, '"__write_seq__": "$1"');
  const known = layouts.map((keys) => keys.join());
  const parsed = JSON.parse(text) as { embedding_dim: number; data: Value[]; matrix: string };
  if (pythonJson(parsed) !== text) throw new Error(`${path} is not laid out as by json.dump`);
  if (Object.keys(parsed).join() !== 'embedding_dim,data,matrix') throw new Error(`${path}: other keys`);
  for (const row of parsed.data) {
    if (!known.includes(Object.keys(row).join())) throw new Error(`${path}: other keys in ${row.__id__}`);
  }
  return {
    dimension: parsed.embedding_dim,
    rows: parsed.data,
    matrix: Buffer.from(parsed.matrix, 'base64'),
  };
}

/** `value` as Python's json.dumps(ensure_ascii=False) writes it. */
function pythonJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(
    ([key, member]) => `${JSON.stringify(key)}: ${pythonJson(member)}`,
  );
  return `{${members.join(', ')}}`;
}

async function readGraph(path: string): Promise<Graph> {
  const text = await readFile(path, 'utf8');
  const key =
    /<key id="(d\d+)" for="(?:node|edge)" attr\.name="(\w+)" attr\.type="(?:string|long|double)"\/>\n/g;
  const names = new Map([...text.matchAll(key)].map(([, id, name]) => [id as string, name as string]));
  const data = '(?: {2}<data key="d\\d+">[^<>]*</data>\\n)*';
  const node = new RegExp(`<node id="([^"<>]*)">\\n(${data})</node>\\n`, 'g');
  const edge = new RegExp(`<edge source="([^"<>]*)" target="([^"<>]*)">\\n(${data})</edge>\\n`, 'g');
  const rest = text.replaceAll(key, '').replaceAll(node, '').replaceAll(edge, '');
  if (!/^<\?xml [^>]*\?>\n<graphml [^>]*><graph edgedefault="undirected"><\/graph><\/graphml>$/.test(rest)) {
    throw new Error(`${path} is not laid out as by networkx: ${rest.slice(0, 400)}`);
  }
  return {
    nodes: [...text.matchAll(node)].map(([, id, inner]) => elementOf([id], inner, names)),
    edges: [...text.matchAll(edge)].map(([, from, to, inner]) => elementOf([from, to], inner, names)),
  };
}

function elementOf(
  ids: readonly (string | undefined)[],
  inner: string | undefined,
  names: ReadonlyMap<string, string>,
): Element {
  const data: Record<string, string> = {};
  for (const [, key, value] of (inner ?? '').matchAll(/<data key="(d\d+)">([^<>]*)</g)) {
    data[names.get(key as string) ?? `undeclared ${key}`] = unescaped(value);
  }
  return { ids: ids.map(unescaped), data };
}

function unescaped(text: string | undefined): string {
  const characters: Record<string, string> = { lt: '<', gt: '>', quot: '"', amp: '&' };
  return (text ?? '').replaceAll(
    /&(\w+);/g,
    (_, name: string) => characters[name] ?? `unknown entity ${name}`,
  );
}

function checkVectors(
  { entities, relationships, vdbChunks }: Directory,
  vectorField: boolean,
  errors: string[],
): void {
  for (const vdb of [entities, relationships, vdbChunks]) {
    const { dimension, rows, matrix } = vdb;
    if (dimension !== entities.dimension) errors.push(`dimension: ${dimension}`);
    if (matrix.length !== rows.length * dimension * 4) errors.push(`matrix bytes: ${matrix.length}`);
    const ids = new Set(rows.map((row) => row.__id__));
    if (ids.size !== rows.length) errors.push(`ids unique: ${rows.length - ids.size} are not`);
    if (vectorField) checkEqualVectors(vdb, errors);
  }
  for (const row of entities.rows) {
    if (row.__id__ !== `ent-${hash('md5', text(row, 'entity_name'))}`)
      errors.push(`entity id: ${row.__id__}`);
  }
  for (const row of relationships.rows) {
    const source = text(row, 'src_id');
    const target = text(row, 'tgt_id');
    const ids = [source + target, target + source].map((joined) => `rel-${hash('md5', joined)}`);
    if (!ids.includes(text(row, '__id__'))) errors.push(`relation id: ${row.__id__}`);
  }
}

function checkEqualVectors({ dimension, rows, matrix }: Vdb, errors: string[]): void {
  let equal = 0;
  for (const [index, row] of rows.entries()) {
    const packed = inflateSync(Buffer.from(text(row, 'vector'), 'base64'));
    if (packed.length !== dimension * 2) errors.push(`vector length: ${row.__id__}`);
    let [dot, left, right] = [0, 0, 0];
    for (let i = 0; i < dimension; i += 1) {
      const exact = matrix.readFloatLE((index * dimension + i) * 4);
      const half = halfAt(packed, i * 2);
      dot += exact * half;
      left += exact * exact;
      right += half * half;
      // Half of the last bit of a float16 of this size is as far as rounding goes.
      const ulp = 2 ** Math.max(Math.floor(Math.log2(Math.abs(exact))) - 10, -24);
      if (Math.abs(exact - half) <= ulp / 2) equal += 1;
    }
    if (!(dot / Math.sqrt(left * right) >= COSINE_MIN)) errors.push(`cosine: ${row.__id__}`);
    if (Math.abs(left - 1) > 1e-5) errors.push(`length 1: ${row.__id__}`);
  }
  if (equal < rows.length * dimension * EQUAL_SHARE_MIN) errors.push(`float16 of the matrix: ${equal} equal`);
}

function halfAt(bytes: Buffer, offset: number): number {
  const word = bytes.readUInt16LE(offset);
  const exponent = (word >> 10) & 31;
  const fraction = word & 1023;
  const size = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  return word & 0x8000 ? -size : size;
}

function checkGraph(
  { graph, entities, relationships, entityChunks, relationChunks }: Directory,
  errors: string[],
): void {
  const nodes = graph.nodes.map((node) => node.ids[0] as string);
  const edges = graph.edges.map((edge) => pairKey(edge.ids));
  sameSet(
    nodes,
    entities.rows.map((row) => text(row, 'entity_name')),
    'nodes and vdb_entities',
    errors,
  );
  const related = relationships.rows.map((row) => pairKey([text(row, 'src_id'), text(row, 'tgt_id')]));
  sameSet(edges, related, 'edges and vdb_relationships', errors);
  sameSet(edges, [...relationChunks.keys()], 'edges and relation_chunks', errors);
  within(
    graph.edges.flatMap((edge) => edge.ids),
    new Set(nodes),
    'ends of edges',
    errors,
  );
  within(entityChunks.keys(), new Set(nodes), 'entity_chunks in the graph', errors);
  for (const { ids, data } of graph.nodes) {
    if (data.entity_id !== ids[0]) errors.push(`entity_id: ${ids[0]}`);
  }
}

function checkChunks({ docs, chunks, status, vdbChunks }: Directory, errors: string[]): void {
  sameSet(
    chunks.keys(),
    vdbChunks.rows.map((row) => text(row, '__id__')),
    'text_chunks and vdb_chunks',
    errors,
  );
  within(docs.keys(), status, 'full_docs in doc_status', errors);
  for (const row of vdbChunks.rows) {
    const chunk = chunks.get(text(row, '__id__'));
    for (const field of VDB_KEYS.chunks)
      if (row[field] !== chunk?.[field]) errors.push(`${field}: ${row.__id__}`);
  }
  for (const [id, chunk] of chunks) {
    const place = String(chunk.chunk_order_index).padStart(3, '0');
    const ids = [
      `chunk-${hash('md5', text(chunk, 'content'))}`,
      `${text(chunk, 'full_doc_id')}-chunk-${place}`,
    ];
    if (!ids.includes(id)) errors.push(`chunk id: ${id}`);
    if (!docs.has(text(chunk, 'full_doc_id'))) errors.push(`full_doc_id: ${id}`);
  }
  for (const [id, value] of status) {
    const list = strings(value, 'chunks_list');
    if (value.status !== 'pending' && !docs.has(id)) errors.push(`doc_status without full_docs: ${id}`);
    if (value.status !== 'processed') continue;
    within(list, chunks, `chunks_list of ${id}`, errors);
    if (value.chunks_count !== list.length) errors.push(`chunks_count: ${id}`);
  }
}

function checkSources(directory: Directory, errors: string[]): void {
  const { graph, chunks, entityChunks, relationChunks, fullEntities, fullRelations } = directory;
  for (const { ids, data } of graph.edges) {
    const known = strings(relationChunks.get(pairKey(ids)), 'chunk_ids');
    const sources = data.source_id?.split('<SEP>') ?? [];
    within(sources, chunks, `source_id of edge ${ids}`, errors);
    within(sources, new Set(known), `relation_chunks of ${ids}`, errors);
  }
  for (const store of [entityChunks, relationChunks]) {
    for (const [key, value] of store) {
      if (value.count !== strings(value, 'chunk_ids').length) errors.push(`count: ${key}`);
    }
  }
  for (const key of relationChunks.keys()) {
    if (key !== pairKey(key.split('<SEP>'))) errors.push(`sorted pair: ${key}`);
  }
  for (const [id, value] of fullEntities) {
    if (value.count !== strings(value, 'entity_names').length) errors.push(`full_entities count: ${id}`);
  }
  for (const [id, value] of fullRelations) {
    if (value.count !== (value.relation_pairs as []).length) errors.push(`full_relations count: ${id}`);
  }
}

function collectWarnings(directory: Directory, warnings: string[]): void {
  const { graph, chunks, cache, docs, entityChunks, fullEntities, fullRelations } = directory;
  const nodes = new Set(graph.nodes.map((node) => node.ids[0] as string));
  const edges = new Set(graph.edges.map((edge) => pairKey(edge.ids)));
  const named = new Set([...fullEntities.values()].flatMap((value) => strings(value, 'entity_names')));
  const pairs = [...fullRelations.values()].flatMap((value) => value.relation_pairs as string[][]);
  for (const { ids, data } of graph.nodes) {
    within(data.source_id?.split('<SEP>') ?? [], chunks, `source_id of node ${ids}`, warnings);
  }
  sameSet(nodes, entityChunks.keys(), 'nodes and entity_chunks', warnings);
  sameSet(nodes, named, 'nodes and full_entities', warnings);
  sameSet(edges, new Set(pairs.map(pairKey)), 'edges and full_relations', warnings);
  within(fullEntities.keys(), docs, 'documents of full_entities', warnings);
  within(fullRelations.keys(), docs, 'documents of full_relations', warnings);
  for (const value of [...entityChunks.values(), ...directory.relationChunks.values()]) {
    within(strings(value, 'chunk_ids'), chunks, `chunk_ids of ${value._id}`, warnings);
  }
  for (const [id, chunk] of chunks)
    within(strings(chunk, 'llm_cache_list'), cache, `cache of ${id}`, warnings);
}

function sameSet(left: Iterable<string>, right: Iterable<string>, rule: string, found: string[]): void {
  const [lefts, rights] = [[...left], [...right]];
  if (new Set(lefts).size !== lefts.length) found.push(`${rule}: not unique`);
  within(lefts, new Set(rights), rule, found);
  within(rights, new Set(lefts), rule, found);
}

function within(
  items: Iterable<string>,
  known: { has(item: string): boolean },
  rule: string,
  found: string[],
): void {
  for (const item of items) if (!known.has(item)) found.push(`${rule}: ${item}`);
}

function pairKey(ends: readonly string[]): string {
  return [...ends].sort().join('<SEP>');
}

function text(value: Value, name: string): string {
  return value[name] as string;
}

function strings(value: Value | undefined, name: string): readonly string[] {
  return (value?.[name] ?? []) as string[];
}
