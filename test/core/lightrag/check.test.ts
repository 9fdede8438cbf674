import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { type CheckContext, GraphCheck, isGraphFile } from '../../../core/lightrag/check.ts';
import { LayoutError } from '../../../core/lightrag/chunk-reader.ts';
import { gradeOf } from '../../../core/lightrag/grade.ts';
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
const CHUNKS = 'kv_store_text_chunks.json';
const [VDB_CHUNKS, VDB_ENTITIES, VDB_RELATIONS] = [
  'vdb_chunks.json',
  'vdb_entities.json',
  'vdb_relationships.json',
];
const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
const ROUNDS = 150;
const UNKNOWN: CheckContext = { idle: undefined };

const place = mkdtempSync(join(tmpdir(), 'lightkeeper-check-'));
after(() => rmSync(place, { recursive: true }));
await generate(place, { seed: 4, documents: 6, dimension: 16 });
const WHOLE: Files = new Map(readdirSync(place).map((name) => [name, readFileSync(join(place, name))]));

/** Runs all checks on files that come in chunks of some bytes. */
function check(files: Files, context: CheckContext = UNKNOWN, step = 1 << 20) {
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
  for (const name of graph.compare(context)) feed(name, graph.nameReader(name));
  return { findings: graph.findings(), stats: graph.stats };
}

/** Codes of errors, with a mark, and of warnings. */
function codes(findings: readonly Finding[]): string[] {
  const heavy = findings.filter(({ severity }) => severity !== Severity_Value.INFO);
  const marked = heavy.map(({ code, severity }) => `${severity === Severity_Value.ERROR ? '!' : ''}${code}`);
  return [...new Set(marked)].sort();
}

/** Signs of a moment between two files, with the names concerned. */
function signs(findings: readonly Finding[]): [code: string, keys: string[]][] {
  return findings
    .filter(({ severity }) => severity === Severity_Value.INFO)
    .map(({ code, keys }) => [code, keys]);
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
  ['a graph that is not there', () => changed(GRAPH, () => undefined), ['missing_file']],
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
    'a document that counts wrong',
    () => records(STATUS, (all, [id = '']) => Object.assign(all[id] ?? {}, { chunks_count: 99 })),
    ['!chunks_count'],
  ],
  [
    'a status that is gone',
    () => records(STATUS, (all, [id = '']) => delete all[id]),
    ['!document_without_status'],
  ],
  [
    'a document that is gone',
    () => records('kv_store_full_docs.json', (all, [id = '']) => delete all[id]),
    ['!chunk_without_document', 'status_without_document'],
  ],
  [
    'a chunk that is gone',
    () => records(CHUNKS, (all, [id = '']) => delete all[id]),
    ['!edge_source_missing', '!promised_chunk_missing', '!vector_without_chunk', 'node_source_missing'],
  ],
  [
    'a chunk of another name',
    () =>
      records(CHUNKS, (all, [id = '']) => {
        all.other = all[id] as Record<string, unknown>;
      }),
    ['!chunk_id', '!chunk_without_vector'],
  ],
  [
    'a vector of a chunk that is gone',
    () => withMatrix(VDB_CHUNKS, (matrix, vdb) => dropRow(vdb, matrix, 0)),
    ['!chunk_without_vector'],
  ],
  [
    'a vector of an entity that is gone',
    () => withMatrix(VDB_ENTITIES, (matrix, vdb) => dropRow(vdb, matrix, 3)),
    ['node_without_vector'],
  ],
  [
    'a vector of a relation that is gone',
    () => withMatrix(VDB_RELATIONS, (matrix, vdb) => dropRow(vdb, matrix, 1)),
    ['!edge_without_vector'],
  ],
  [
    'a vector of an entity that is not',
    () => vectors(VDB_ENTITIES, ({ data }) => Object.assign(data[0] ?? {}, { entity_name: 'nobody' })),
    ['!entity_id', '!vector_without_node', 'node_without_vector'],
  ],
  [
    'a relation with another id',
    () => vectors(VDB_RELATIONS, ({ data }) => Object.assign(data[0] ?? {}, { __id__: 'rel-0' })),
    ['!relation_id'],
  ],
  [
    'a row that is there twice',
    () => vectors(VDB_CHUNKS, ({ data }) => Object.assign(data[1] ?? {}, { __id__: data[0]?.__id__ })),
    ['!chunk_without_vector', '!duplicate_id'],
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
    ['!vector_mismatch'],
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
    [
      '!edge_without_chunks',
      '!edge_without_end',
      '!edge_without_vector',
      '!relation_chunks_without_edge',
      '!vector_without_edge',
      'named_relation_missing',
    ],
  ],
  [
    'an edge from a chunk that is not',
    () =>
      changed(GRAPH, (bytes) => {
        const at = bytes.indexOf('<edge ');
        const source = /<data key="(d\d+)">chunk-/.exec(bytes.subarray(at).toString()) ?? [];
        return Buffer.concat([
          bytes.subarray(0, at),
          Buffer.from(
            bytes
              .subarray(at)
              .toString()
              .replace(source[0] ?? '-', `<data key="${source[1]}">chunk-0`),
          ),
        ]);
      }),
    ['!edge_source_missing'],
  ],
  [
    'a node from a chunk that is not',
    () => changed(GRAPH, (bytes) => bytes.toString().replace(/>chunk-/, '>chunk-0')),
    ['node_source_missing'],
  ],
  [
    'an entity of chunks that is not a node',
    () =>
      records('kv_store_entity_chunks.json', (all, [id = '']) => {
        all.nobody = all[id] as Record<string, unknown>;
      }),
    ['!entity_chunks_without_node'],
  ],
  [
    'an entity without its chunks',
    () => records('kv_store_entity_chunks.json', (all, [id = '']) => delete all[id]),
    ['node_without_chunks'],
  ],
  [
    'an answer that is gone',
    () =>
      records('kv_store_llm_response_cache.json', (all) => {
        for (const id of Object.keys(all)) delete all[id];
      }),
    ['answer_missing'],
  ],
  [
    'an unknown file that is cut',
    () => new Map(WHOLE).set('kv_store_other.json', Buffer.from('{"a":')),
    ['!cut_file'],
  ],
];

describe('the check of a LightRAG directory', () => {
  it('finds nothing in a whole one, in chunks of any size, and counts its records', () => {
    for (const step of [1 << 20, 997]) {
      const { findings, stats } = check(WHOLE, UNKNOWN, step);
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
      assert.equal(gradeOf(findings), grade);
      for (const { hint, object, count } of findings)
        assert.equal(hint !== '' && object !== '' && count > 0, true);
    });
  }

  it("reports a vector whose description or sources differ from the graph's", () => {
    assert.deepEqual(signs(check(WHOLE).findings), []);
    const { data } = JSON.parse(String(WHOLE.get(VDB_ENTITIES))) as Vdb;
    const [row] = data as { entity_name: string }[];
    const name = row?.entity_name ?? assert.fail();
    for (const field of ['content', 'source_id']) {
      const files = vectors(VDB_ENTITIES, ({ data: rows }) => {
        if (rows[0] !== undefined) rows[0][field] = `${rows[0][field]} and more`;
      });
      const { findings } = check(files);
      assert.deepEqual([codes(findings), signs(findings)], [[], [['entity_differs', [name]]]]);
    }
    const other = vectors(VDB_ENTITIES, ({ data: rows }) => {
      if (rows[0] !== undefined) rows[0].content = 'of another version';
    });
    assert.deepEqual(signs(check(other).findings), [], 'content of another form says nothing');
    const relation = vectors(VDB_RELATIONS, ({ data: rows }) => {
      if (rows[0] !== undefined) rows[0].source_id = 'chunk-0';
    });
    assert.deepEqual(
      signs(check(relation).findings).map(([code, keys]) => [code, keys.length]),
      [['relation_differs', 1]],
    );
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
      /^vectors belong to chunks that do not exist \(5\): "chunk-\w+", "chunk-\w+", "chunk-\w+", …$/,
    );
  });

  it('reports unfinished work as an error only if the instance was idle', () => {
    const files = withMatrix(VDB_ENTITIES, (matrix, vdb) => dropRow(vdb, matrix, 3));
    assert.deepEqual(codes(check(files, { idle: false }).findings), ['node_without_vector']);
    assert.deepEqual(codes(check(files, { idle: true }).findings), ['!node_without_vector']);
  });

  it('reports a missing file only if the state before had it', () => {
    const files = changed(VDB_RELATIONS, () => undefined);
    assert.deepEqual(codes(check(files, { idle: true, before: new Set() }).findings), ['missing_file']);
    assert.deepEqual(codes(check(files, { idle: true, before: new Set(WHOLE.keys()) }).findings), [
      '!missing_file',
    ]);
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
        codes(check(files, UNKNOWN, 1 + draw(5000)).findings),
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
