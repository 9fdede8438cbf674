import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { type CheckContext, GraphCheck, isGraphFile } from '../../../core/lightrag/check.ts';
import { LayoutError } from '../../../core/lightrag/chunk-reader.ts';
import { gradeAlone } from '../../../core/lightrag/grade.ts';
import { generate } from '../../../demo/generate.ts';
import { random } from '../../../demo/random.ts';
import { type Finding, Grade_Value, Severity_Value } from '../../../gen/lightkeeper/v1/types_pb.ts';
import { feedIn } from '../../support/chunks.ts';

type Files = Map<string, Buffer>;
type Records = Record<string, Record<string, unknown>>;

interface Vdb {
  embedding_dim: number;
  data: Record<string, unknown>[];
  matrix: string;
}

const GRAPH = 'graph_chunk_entity_relation.graphml';
const STATUS = 'kv_store_doc_status.json';
const DOCUMENTS = 'kv_store_full_docs.json';
const ENTITY_NAMES = 'kv_store_full_entities.json';
const RELATION_NAMES = 'kv_store_full_relations.json';
const CHUNKS = 'kv_store_text_chunks.json';
const [VDB_CHUNKS, VDB_ENTITIES, VDB_RELATIONS] = [
  'vdb_chunks.json',
  'vdb_entities.json',
  'vdb_relationships.json',
];
const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
const ROUNDS = 150;
const ALONE: CheckContext = {};

const place = mkdtempSync(join(tmpdir(), 'lightkeeper-check-'));
after(() => rmSync(place, { recursive: true }));
await generate(place, { seed: 4, documents: 6, dimension: 16 });
const WHOLE: Files = new Map(readdirSync(place).map((name) => [name, readFileSync(join(place, name))]));

/** Runs all checks on files that come in chunks of some bytes. */
function check(files: Files, context: CheckContext = ALONE, step = 1 << 20) {
  const graph = new GraphCheck();
  const feed = (name: string, reader: ReturnType<GraphCheck['reader']>) => {
    feedIn(reader, files.get(name) as Buffer, step);
  };
  for (const name of [...files.keys()].filter(isGraphFile)) {
    try {
      feed(name, graph.reader(name));
      graph.finished(name);
    } catch (error) {
      assert.equal(error instanceof LayoutError, true, String((error as Error).stack));
      graph.failed(name, error as LayoutError);
    }
  }
  for (let again = graph.compare(context); again.length > 0; again = graph.compare(context))
    for (const name of again) feed(name, graph.rereader(name));
  return { findings: graph.findings().map(({ finding }) => finding), stats: graph.stats };
}

/** Codes of errors, with a mark, and of warnings. */
function codes(findings: readonly Finding[]): string[] {
  const heavy = findings.filter(({ severity }) => severity !== Severity_Value.INFO);
  const marked = heavy.map(({ code, severity }) => `${severity === Severity_Value.ERROR ? '!' : ''}${code}`);
  return [...new Set(marked)].sort();
}

function changed(name: string, edit: (bytes: Buffer) => Buffer | string | undefined): Files {
  const files = new Map(WHOLE);
  const after = edit(Buffer.from(WHOLE.get(name) ?? assert.fail(name)));
  if (after === undefined) files.delete(name);
  else files.set(name, Buffer.from(after));
  return files;
}

function records(name: string, edit: (records: Records, ids: string[]) => void): Files {
  return changed(name, (bytes) => {
    const value = JSON.parse(bytes.toString()) as Records;
    edit(value, Object.keys(value));
    return JSON.stringify(value, null, 2);
  });
}

function vectors(name: string, edit: (vdb: Vdb) => void): Files {
  return changed(name, (bytes) => {
    const vdb = JSON.parse(bytes.toString()) as Vdb;
    edit(vdb);
    return JSON.stringify(vdb);
  });
}

/** Takes a row away, with its part of the matrix. */
function dropRow({ embedding_dim, data }: Vdb, matrix: Buffer, row: number): string {
  data.splice(row, 1);
  const length = embedding_dim * 4;
  return Buffer.concat([matrix.subarray(0, row * length), matrix.subarray((row + 1) * length)]).toString(
    'base64',
  );
}

function rowOf({ data }: Vdb, id: string): number {
  return data.findIndex(({ __id__ }) => __id__ === id);
}

function withMatrix(name: string, edit: (matrix: Buffer, vdb: Vdb) => Buffer | string): Files {
  return vectors(name, (vdb) => {
    const matrix = edit(Buffer.from(vdb.matrix, 'base64'), vdb);
    vdb.matrix = typeof matrix === 'string' ? matrix : matrix.toString('base64');
  });
}

/** What each damage must be called; an exclamation mark is an error. */
const DAMAGES: readonly [what: string, files: () => Files, wanted: string[]][] = [
  ['a graph of no bytes', () => changed(GRAPH, () => ''), ['!empty_file']],
  ['a cut graph', () => changed(GRAPH, (bytes) => bytes.subarray(0, -20)), ['!cut_file']],
  ['a graph that is not there', () => changed(GRAPH, () => undefined), ['!missing_file']],
  ['vectors of chunks that are not there', () => changed(VDB_CHUNKS, () => undefined), ['!missing_file']],
  ['vectors of entities that are not there', () => changed(VDB_ENTITIES, () => undefined), ['!missing_file']],
  [
    'vectors of relations that are not there',
    () => changed(VDB_RELATIONS, () => undefined),
    ['!missing_file'],
  ],
  ['chunks that are not there', () => changed(CHUNKS, () => undefined), ['!missing_file']],
  ['documents that are not there', () => changed(DOCUMENTS, () => undefined), ['!missing_file']],
  ['statuses that are not there', () => changed(STATUS, () => undefined), ['!missing_file']],
  [
    'all records that are not there',
    () => without(DOCUMENTS, STATUS, CHUNKS, ENTITY_NAMES, RELATION_NAMES),
    ['!missing_file'],
  ],
  [
    'an emptied list of chunks',
    () => changed(CHUNKS, () => '{}'),
    ['!promised_chunk_missing', 'vector_without_chunk'],
  ],
  [
    'vectors that end in a row',
    () => changed(VDB_ENTITIES, (bytes) => bytes.subarray(0, 500)),
    ['!cut_file'],
  ],
  [
    'vectors without their matrix',
    () => vectors(VDB_CHUNKS, (vdb) => void delete (vdb as Partial<Vdb>).matrix),
    ['!malformed_file'],
  ],
  ['a list instead of records', () => changed(CHUNKS, () => '[{}]'), ['!malformed_file']],
  ['an empty list instead of records', () => changed(CHUNKS, () => '[]'), ['!empty_file']],
  [
    'a processed document without its chunks',
    () =>
      records(STATUS, (all, [id = '']) =>
        Object.assign(all[id] ?? {}, { chunks_list: ['chunk-0'], chunks_count: 1 }),
      ),
    ['!promised_chunk_missing'],
  ],
  [
    'a status that is gone',
    () => records(STATUS, (all, [id = '']) => delete all[id]),
    ['!document_without_status'],
  ],
  [
    'a status without its time',
    () => records(STATUS, (all, [id = '']) => delete all[id]?.created_at),
    ['!status_missing'],
  ],
  [
    'a chunk without content',
    () => records(CHUNKS, (all, [id = '']) => Object.assign(all, { [id]: {} })),
    ['!promised_chunk_missing', 'vector_without_chunk'],
  ],
  [
    'a document without content',
    () => records(DOCUMENTS, (all, [id = '']) => Object.assign(all, { [id]: {} })),
    ['!processed_without_document'],
  ],
  [
    'an edge that is there twice',
    () => changed(GRAPH, (bytes) => bytes.toString().replace(/<edge [\s\S]*?<\/edge>/, '$&$&')),
    ['!duplicate_edge'],
  ],
  ['a record of null', () => changed(CHUNKS, () => '{"a": null}'), ['!malformed_file']],
  [
    'a cache that is a list',
    () => changed('kv_store_llm_response_cache.json', () => '[1]'),
    ['!malformed_file'],
  ],
  [
    'a status without a word',
    () => records(STATUS, (all, [id = '']) => delete all[id]?.status),
    ['!status_missing'],
  ],
  [
    'a status that no server knows',
    () => records(STATUS, (all, [id = '']) => Object.assign(all[id] ?? {}, { status: 'PROCESSED' })),
    ['!status_unknown'],
  ],
  [
    'a document that is gone',
    () => records(DOCUMENTS, (all, [id = '']) => delete all[id]),
    ['!processed_without_document'],
  ],
  [
    'a chunk that is gone',
    () => records(CHUNKS, (all, [id = '']) => delete all[id]),
    ['!promised_chunk_missing', 'vector_without_chunk'],
  ],
  [
    'a vector of a chunk that is gone',
    () => withMatrix(VDB_CHUNKS, (matrix, vdb) => dropRow(vdb, matrix, 0)),
    ['!chunk_without_vector'],
  ],
  [
    'a vector of an entity that is gone',
    () => withMatrix(VDB_ENTITIES, (matrix, vdb) => dropRow(vdb, matrix, 3)),
    ['!node_without_vector'],
  ],
  [
    'a vector of a relation that is gone',
    () => withMatrix(VDB_RELATIONS, (matrix, vdb) => dropRow(vdb, matrix, 1)),
    ['!edge_without_vector'],
  ],
  [
    'a vector of an entity that no document names',
    () => vectors(VDB_ENTITIES, ({ data }) => Object.assign(data[0] ?? {}, { entity_name: 'nobody' })),
    ['!node_without_vector', 'entity_id', 'vector_without_node'],
  ],
  [
    'a relation with another id',
    () => vectors(VDB_RELATIONS, ({ data }) => Object.assign(data[0] ?? {}, { __id__: 'rel-0' })),
    ['relation_id'],
  ],
  [
    'a row that is there twice',
    () => vectors(VDB_CHUNKS, ({ data }) => Object.assign(data[1] ?? {}, { __id__: data[0]?.__id__ })),
    ['!chunk_without_vector', '!duplicate_row'],
  ],
  [
    'a matrix that is too short',
    () => withMatrix(VDB_CHUNKS, (matrix) => matrix.subarray(0, -64)),
    ['!matrix_length'],
  ],
  [
    'a matrix that is too long',
    () => withMatrix(VDB_CHUNKS, (matrix) => Buffer.concat([matrix, Buffer.alloc(64, 1)])),
    ['!matrix_length'],
  ],
  [
    'a matrix that ends within a row',
    () => withMatrix(VDB_CHUNKS, (matrix) => Buffer.concat([matrix, Buffer.alloc(4, 1)])),
    ['!malformed_file'],
  ],
  [
    'a matrix that is not base64',
    () => withMatrix(VDB_CHUNKS, (matrix) => matrix.toString('base64').replace('A', '*')),
    ['!malformed_file'],
  ],
  [
    'a matrix of rows that moved',
    () => withMatrix(VDB_CHUNKS, (matrix) => Buffer.concat([matrix.subarray(64), matrix.subarray(0, 64)])),
    ['!matrix_moved', 'vector_mismatch'],
  ],
  [
    'half of a surrogate pair in a text',
    () => changed(VDB_CHUNKS, (bytes) => bytes.toString().replace('"content": "', '"content": "\\\\\\ud83d')),
    ['!lone_surrogate'],
  ],
  [
    'one row with the vector of another',
    () => vectors(VDB_CHUNKS, ({ data }) => Object.assign(data[1] ?? {}, { vector: data[0]?.vector })),
    ['vector_mismatch'],
  ],
  [
    'a row of NaN',
    () =>
      withMatrix(VDB_CHUNKS, (matrix) => {
        matrix.writeFloatLE(Number.NaN, 8);
        return matrix;
      }),
    ['bad_vector'],
  ],
  ['a row of zeros', () => withMatrix(VDB_CHUNKS, (matrix) => matrix.fill(0, 0, 64)), ['bad_vector']],
  [
    'another dimension in one file',
    () =>
      withMatrix(VDB_CHUNKS, (_, vdb) => {
        vdb.embedding_dim = 8;
        for (const row of vdb.data) delete row.vector;
        return Buffer.alloc(vdb.data.length * 32, 1);
      }),
    ['!mixed_dimensions'],
  ],
  [
    'no dimension that can be',
    () =>
      vectors(VDB_CHUNKS, (vdb) => {
        vdb.embedding_dim = -3;
      }),
    ['!malformed_file'],
  ],
  [
    'an edge without its end',
    () =>
      changed(GRAPH, (bytes) => bytes.toString().replace(/<edge source="[^"]*"/, '<edge source="nobody"')),
    ['!edge_without_end', '!vector_without_edge', 'edge_without_vector'],
  ],
  [
    'an unknown file that is cut',
    () => new Map(WHOLE).set('kv_store_other.json', Buffer.from('{"a":')),
    ['!cut_file'],
  ],
];

/** What documented operations leave behind, and what a server makes again. Each is at most a warning. */
const LEFTOVERS: readonly [what: string, files: () => Files, wanted: string[]][] = [
  ['a chunk with an id of any form', () => renamedChunk('doc-7-chunk-000'), []],
  ['a chunk of a document that does not exist', () => renamedChunk('other', 'nowhere'), []],
  [
    'a status that counts no chunks',
    () => records(STATUS, (all, [id = '']) => Object.assign(all[id] ?? {}, { chunks_count: null })),
    [],
  ],
  [
    'edges and nodes with any source',
    () =>
      changed(GRAPH, (bytes) => bytes.toString().replaceAll(/>doc-[0-9a-f]+-chunk-\d+/g, '>manual_creation')),
    [],
  ],
  [
    'a surrogate pair and an escaped backslash in a text',
    () =>
      changed(VDB_CHUNKS, (bytes) =>
        bytes.toString().replace('"content": "', '"content": "\\\\ud800 \\ud83d\\ude00 '),
      ),
    [],
  ],
  [
    'records of null in lists and caches',
    () => {
      const files = changed('kv_store_llm_response_cache.json', () => '{"a": null, "b": [1]}');
      const names = JSON.parse(String(WHOLE.get(ENTITY_NAMES))) as Records;
      return files.set(ENTITY_NAMES, Buffer.from(JSON.stringify({ ...names, 'doc-x': null })));
    },
    [],
  ],
  ['an entity removed by hand', () => withoutEntity(), []],
  [
    'entities whose chunks are not listed',
    () => without('kv_store_entity_chunks.json', 'kv_store_relation_chunks.json'),
    [],
  ],
  [
    'caches of no bytes',
    () => emptied('kv_store_llm_response_cache.json', 'kv_store_entity_chunks.json'),
    [],
  ],
  ['a refused upload', () => addedStatus({ status: 'failed', chunks_list: [], chunks_count: 0 }), []],
  [
    'a document that failed with a list of chunks',
    () => addedStatus({ status: 'failed', chunks_list: ['c-1'], chunks_count: 1 }),
    [],
  ],
  [
    'vectors without chunks after a stop',
    () =>
      withMatrix(VDB_CHUNKS, (matrix, { data }) => {
        data.push({ ...data[0], __id__: 'of-a-failed-document' });
        return Buffer.concat([matrix, matrix.subarray(0, 64)]);
      }),
    ['vector_without_chunk'],
  ],
  [
    'vectors of images without nodes',
    () =>
      withMatrix(VDB_ENTITIES, (matrix, { data }) => {
        data.push({ ...data[0], __id__: `ent-${hash('md5', 'x (image)')}`, entity_name: 'x (image)' });
        return Buffer.concat([matrix, matrix.subarray(0, 64)]);
      }),
    ['vector_without_node'],
  ],
];

function without(...names: string[]): Files {
  return new Map([...WHOLE].filter(([name]) => !names.includes(name)));
}

function emptied(...names: string[]): Files {
  return new Map([...WHOLE].map(([name, bytes]) => [name, names.includes(name) ? Buffer.alloc(0) : bytes]));
}

/** Renames a chunk wherever its id is, and the document that it names. */
function renamedChunk(name: string, document?: string): Files {
  const [id = ''] = Object.keys(JSON.parse(String(WHOLE.get(CHUNKS))) as Records);
  const files = new Map(
    [...WHOLE].map(([path, bytes]) => [path, Buffer.from(bytes.toString().replaceAll(id, name))]),
  );
  if (document === undefined) return files;
  const chunks = JSON.parse(String(files.get(CHUNKS))) as Records;
  Object.assign(chunks[name] ?? {}, { full_doc_id: document });
  return files.set(CHUNKS, Buffer.from(JSON.stringify(chunks)));
}

function addedStatus(status: Record<string, unknown>): Files {
  return records(STATUS, (all) => Object.assign(all, { 'dup-1': { ...Object.values(all)[0], ...status } }));
}

/** Takes an entity out of the graph and the vectors, with its edges, as a deletion by hand does. */
function withoutEntity(): Files {
  const graph = String(WHOLE.get(GRAPH));
  const [, name = ''] = /<node id="([^"]*)"/.exec(graph) ?? [];
  const files = changed(GRAPH, () =>
    graph
      .replaceAll(/<node id="([^"]*)">[\s\S]*?<\/node>\n/g, (all, id) => (id === name ? '' : all))
      .replaceAll(/<edge source="([^"]*)" target="([^"]*)">[\s\S]*?<\/edge>\n/g, (all, a, b) =>
        a === name || b === name ? '' : all,
      ),
  );
  for (const file of [VDB_ENTITIES, VDB_RELATIONS]) {
    const left = withMatrix(file, (matrix, vdb) => {
      let kept = matrix;
      const isOf = (row: Record<string, unknown>) => [row.entity_name, row.src_id, row.tgt_id].includes(name);
      for (let row = vdb.data.length - 1; row >= 0; row--)
        if (isOf(vdb.data[row] ?? {})) kept = Buffer.from(dropRow(vdb, kept, row), 'base64');
      return kept;
    });
    files.set(file, left.get(file) as Buffer);
  }
  return files;
}

/** Makes a document unfinished: what it lists is no promise any more. */
function unfinished(files: Files, id: string): Files {
  const statuses = JSON.parse(String(files.get(STATUS))) as Records;
  Object.assign(statuses[id] ?? {}, { status: 'processing' });
  return new Map(files).set(STATUS, Buffer.from(JSON.stringify(statuses)));
}

describe('the check of a LightRAG directory', () => {
  it('finds nothing in a whole one, in chunks of any size, and counts its records', () => {
    for (const step of [1 << 20, 997]) {
      const { findings, stats } = check(WHOLE, ALONE, step);
      assert.deepEqual(codes(findings), []);
      const { data } = JSON.parse(String(WHOLE.get(VDB_ENTITIES))) as Vdb;
      assert.deepEqual([stats.documents, stats.entities, stats.dimension], [6n, BigInt(data.length), 16]);
    }
  });

  for (const [what, files, wanted] of DAMAGES) {
    it(`reports ${what}`, () => {
      const { findings } = check(files());
      assert.deepEqual(
        codes(findings),
        wanted.sort(),
        JSON.stringify(findings.map(({ message }) => message)),
      );
      const grade = wanted.some((code) => code.startsWith('!')) ? Grade_Value.INVALID : Grade_Value.DEGRADED;
      assert.equal(gradeAlone(findings, true), grade);
      for (const { hint, object, count } of findings)
        assert.equal(hint !== '' && object !== '' && count > 0, true);
    });
  }

  for (const [what, files, wanted] of LEFTOVERS) {
    it(`does not report ${what} as an error`, () => {
      const { findings } = check(files());
      assert.deepEqual(codes(findings), wanted, JSON.stringify(findings.map(({ message }) => message)));
      const grade = wanted.length === 0 ? Grade_Value.VALID : Grade_Value.DEGRADED;
      assert.equal(gradeAlone(findings, true), grade);
    });
  }

  it('promises nothing of what an open document lists, and everything of others', () => {
    const names = JSON.parse(String(WHOLE.get(ENTITY_NAMES))) as Record<string, { entity_names: string[] }>;
    const { data } = JSON.parse(String(WHOLE.get(VDB_ENTITIES))) as Vdb;
    const listing = (name: unknown) =>
      Object.keys(names).filter((id) => names[id]?.entity_names.includes(String(name)));
    const row = data.findIndex(({ entity_name }) => listing(entity_name).length === 1);
    const [id = ''] = listing(data[row]?.entity_name);
    const lost = withMatrix(VDB_ENTITIES, (matrix, vdb) => dropRow(vdb, matrix, row));
    assert.deepEqual(codes(check(lost).findings), ['!node_without_vector']);
    const found = check(unfinished(lost, id));
    assert.deepEqual(codes(found.findings), ['node_without_vector']);
    assert.deepEqual([found.stats.unfinished, found.stats.processed], [1n, 5n]);
    const [other = ''] = Object.keys(names).filter((one) => one !== id);
    assert.deepEqual(codes(check(unfinished(lost, other)).findings), ['!node_without_vector']);
  });

  it('promises nothing whose source chunks belong to an open document', () => {
    const { data } = JSON.parse(String(WHOLE.get(VDB_RELATIONS))) as Vdb;
    const { source_id } = data[0] as { source_id: string };
    const statuses = JSON.parse(String(WHOLE.get(STATUS))) as Record<string, { chunks_list: string[] }>;
    const owner = (chunk: string) =>
      Object.keys(statuses).find((id) => statuses[id]?.chunks_list.includes(chunk));
    const [chunk = ''] = source_id.split('<SEP>');
    const lost = withMatrix(VDB_RELATIONS, (matrix, vdb) => dropRow(vdb, matrix, 0));
    const open = unfinished(lost, owner(chunk) ?? '');
    // No file lists the pair for the open document: only its chunk shows whose it is.
    const unlisted = JSON.parse(String(open.get(RELATION_NAMES))) as Records;
    delete unlisted[owner(chunk) ?? ''];
    unlisted[Object.keys(statuses).find((id) => id !== owner(chunk)) ?? ''] = {
      relation_pairs: [[data[0]?.src_id, data[0]?.tgt_id]],
    };
    open.set(RELATION_NAMES, Buffer.from(JSON.stringify(unlisted)));
    assert.deepEqual(codes(check(open).findings), ['edge_without_vector']);
  });

  it('goes by the sources of relations where no file lists the names of documents', () => {
    const files = without(ENTITY_NAMES, RELATION_NAMES);
    assert.deepEqual(codes(check(files).findings), ['names_lost']);
    const lost = withMatrix(VDB_RELATIONS, (matrix, vdb) => dropRow(vdb, matrix, 0)).get(VDB_RELATIONS);
    assert.deepEqual(codes(check(files.set(VDB_RELATIONS, lost as Buffer)).findings), [
      '!edge_without_vector',
      'names_lost',
    ]);
  });

  it('accepts an end of a relation that was never an entity', () => {
    const typed = withMatrix(VDB_ENTITIES, (matrix, vdb) => dropRow(vdb, matrix, 3));
    const { data } = JSON.parse(String(WHOLE.get(VDB_ENTITIES))) as Vdb;
    const graph = String(WHOLE.get(GRAPH));
    const [, key = ''] = /<key id="(d\d+)" for="node" attr.name="entity_type"/.exec(graph) ?? [];
    const at = graph.indexOf(`<node id="${data[3]?.entity_name}">`);
    const untyped = graph.slice(at).replace(new RegExp(`(<data key="${key}">)[^<]*`), '$1UNKNOWN');
    typed.set(GRAPH, Buffer.from(graph.slice(0, at) + untyped));
    assert.deepEqual(codes(check(typed).findings), []);
  });

  it('lists the affected keys and their count', () => {
    const files = records(CHUNKS, (all, ids) => {
      for (const id of ids.slice(0, 5)) delete all[id];
    });
    const gone = Object.keys(JSON.parse(String(WHOLE.get(CHUNKS))) as Records).slice(0, 5);
    const found = check(files).findings.find(({ code }) => code === 'vector_without_chunk');
    assert.deepEqual([found?.count, found?.keys], [5, gone.sort()]);
    assert.match(
      found?.message ?? '',
      /^vectors belong to chunks that do not exist \(5\): (?:"doc-\w+-chunk-\d+", ){3}…$/,
    );
  });

  it('reports a file that the last usable state had, unless the graph was cleared', () => {
    const before = new Set(WHOLE.keys());
    const files = changed(VDB_ENTITIES, () => undefined);
    const open = Object.keys(JSON.parse(String(WHOLE.get(STATUS))) as Records).reduce(unfinished, files);
    assert.deepEqual(codes(check(open).findings).includes('!missing_file'), false);
    assert.deepEqual(codes(check(open, { before }).findings).includes('!missing_file'), true);
    const cleared: Files = new Map([DOCUMENTS, STATUS, CHUNKS].map((name) => [name, Buffer.from('{}')]));
    assert.deepEqual(codes(check(cleared, { before }).findings), []);
    assert.deepEqual(codes(check(new Map(), { before }).findings), []);
  });

  it('names the documents that a broken promise concerns', () => {
    const [id = ''] = Object.keys(JSON.parse(String(WHOLE.get(CHUNKS))) as Records);
    const { full_doc_id } = (JSON.parse(String(WHOLE.get(CHUNKS))) as Records)[id] as { full_doc_id: string };
    const { findings } = check(withMatrix(VDB_CHUNKS, (matrix, vdb) => dropRow(vdb, matrix, rowOf(vdb, id))));
    assert.match(findings[0]?.message ?? '', new RegExp(`"${id}"; documents concerned: "${full_doc_id}"$`));
  });

  it('accepts unknown files, keys and layouts of other versions', () => {
    const files = new Map(WHOLE);
    files.set('kv_store_new.json', Buffer.from('{"a": [1, {"b": null}], "c": "d"}'));
    files.set('_lightrag_config/anchor.json', Buffer.from('["x", 1]'));
    files.set('vdb_other.json', Buffer.from('{"embedding_dim": 4}'));
    files.set('notes.json', Buffer.from('{'));
    files.set(
      VDB_CHUNKS,
      vectors(VDB_CHUNKS, (vdb) => Object.assign(vdb, { later: { data: [{ __id__: 'x' }] } })).get(
        VDB_CHUNKS,
      ) as Buffer,
    );
    assert.deepEqual(codes(check(files).findings), []);
  });

  it(`never throws on mutated bytes (seed ${SEED})`, () => {
    const draw = random(SEED);
    const names = [...WHOLE.keys()];
    for (let round = 0; round < ROUNDS; round++) {
      const name = names[draw(names.length)] as string;
      const bytes = Buffer.from(WHOLE.get(name) as Buffer);
      const at = draw(bytes.length);
      const length = 1 + draw(40);
      const other = WHOLE.get(names[draw(names.length)] as string) as Buffer;
      const ways = [
        () => bytes.fill(draw(256), at, at + length),
        () => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]),
        () => Buffer.concat([bytes.subarray(0, at), other.subarray(draw(other.length)), bytes.subarray(at)]),
        () => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at - length), bytes.subarray(at)]),
      ];
      const damaged = (ways[draw(ways.length)] as (typeof ways)[number])();
      const files = new Map(WHOLE).set(name, damaged);
      // However the chunks fall, the same is found.
      assert.deepEqual(
        codes(check(files).findings),
        codes(check(files, ALONE, 1 + draw(5000)).findings),
        name,
      );
    }
  });

  it('reports every cut file as cut, with its length', () => {
    for (const [name, bytes] of WHOLE) {
      const end = bytes.toString('latin1').trimEnd().length;
      const step = Math.max(1, Math.floor(end / 150));
      for (let length = 0; length < end; length += step) {
        const [found, ...more] = check(new Map([[name, bytes.subarray(0, length)]])).findings.filter(
          ({ code }) => code !== 'missing_file',
        );
        assert.deepEqual(
          [found?.code, more],
          [length === 0 ? 'empty_file' : 'cut_file', []],
          `${name} at ${length}: ${found?.message}`,
        );
      }
    }
  });
});
