import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { GraphCheck, isGraphFile } from '../../../core/lightrag/check.ts';
import { LayoutError } from '../../../core/lightrag/chunk-reader.ts';
import type { FactSink } from '../../../core/lightrag/facts.ts';
import { FaissIndexReader, FaissMetaReader } from '../../../core/lightrag/faiss.ts';
import { Utf8Reader } from '../../../core/lightrag/utf8-reader.ts';
import { generate } from '../../../demo/generate.ts';
import { Severity_Value } from '../../../gen/lightkeeper/v1/types_pb.ts';
import { feedIn, flawOf } from '../../support/chunks.ts';

/** Three unit vectors, as `faiss.write_index` of faiss-cpu 1.15.1 writes an IndexFlatIP. */
const WRITTEN = Buffer.from(
  '4978464903000000030000000000000000001000000000000000100000000000010000000009000000000000000000803f' +
    '0000000000000000000000000000803f0000000000000000000000000000803f',
  'hex',
);
const EMPTY = Buffer.from(
  '497846490300000000000000000000000000100000000000000010000000000001000000000000000000000000',
  'hex',
);

const place = mkdtempSync(join(tmpdir(), 'lightkeeper-faiss-'));
after(() => rmSync(place, { recursive: true }));
await generate(place, { seed: 5, documents: 3, dimension: 8 });
const WHOLE = withFaiss(new Map(readdirSync(place).map((name) => [name, readFileSync(join(place, name))])));

function index(dimension: number, floats: readonly number[]): Buffer {
  const head = Buffer.from(EMPTY);
  head.writeInt32LE(dimension, 4);
  head.writeBigInt64LE(BigInt(floats.length / dimension), 8);
  head.writeBigUInt64LE(BigInt(floats.length), 37);
  return Buffer.concat([head, Buffer.from(Float32Array.from(floats).buffer)]);
}

function edited(edit: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.from(WRITTEN);
  edit(bytes);
  return bytes;
}

/** Returns what a reader reports of a file, however it comes in chunks. */
function report(make: (facts: FactSink) => FaissIndexReader | FaissMetaReader, bytes: Buffer): unknown[] {
  const reports = [1, 7, 1 << 20].map((step) => {
    const told: unknown[] = [];
    const facts: FactSink = {
      name: () => {},
      flaw: (code, name) => void told.push(`${code} ${name}`),
      vectors: (...numbers) => void told.push(numbers),
    };
    const flaw = flawOf(() => feedIn(new Utf8Reader(make(facts)), bytes, step));
    return flaw === undefined ? told : [flaw];
  });
  for (const one of reports) assert.deepEqual(one, reports[0]);
  return reports[0] ?? [];
}

const reportIndex = (bytes: Buffer) => report((facts) => new FaissIndexReader(facts), bytes);
const reportMeta = (text: string, namespace = 'chunks') =>
  report((facts) => new FaissMetaReader(facts, namespace), Buffer.from(text));

describe('a reader of a Faiss index', () => {
  it('accepts a written one, and what Faiss accepts besides', () => {
    assert.deepEqual(index(3, [1, 0, 0, 0, 1, 0, 0, 0, 1]), WRITTEN);
    assert.deepEqual(reportIndex(EMPTY), [[0, 3, 0]]);
    const others = [
      Buffer.concat([WRITTEN, Buffer.from('more')]),
      edited((bytes) => bytes.write('IxF2')),
      edited((bytes) => bytes.write('IxFl')),
      edited((bytes) => bytes.writeInt32LE(1, 33)),
      edited((bytes) => bytes.fill(0, 16, 32)),
    ];
    for (const bytes of [WRITTEN, ...others]) assert.deepEqual(reportIndex(bytes), [[3, 3, 0]]);
  });

  it('reports every prefix as cut', () => {
    assert.deepEqual(reportIndex(Buffer.alloc(0)), ['empty']);
    for (let length = 1; length < WRITTEN.length; length++)
      assert.deepEqual(reportIndex(WRITTEN.subarray(0, length)), ['cut'], `${length}`);
  });

  it('refuses what is no flat index', () => {
    const wrong = [
      Buffer.alloc(81),
      Buffer.from('{"embedding_dim": 3, "data": [], "matrix": ""}'),
      edited((bytes) => bytes.write('IwFl')),
      edited((bytes) => bytes.writeInt32LE(0, 4)),
      edited((bytes) => bytes.writeInt32LE(-3, 4)),
      edited((bytes) => bytes.writeBigInt64LE(2n, 8)),
      edited((bytes) => bytes.writeBigInt64LE(-1n, 8)),
      edited((bytes) => bytes.writeUInt8(2, 32)),
      edited((bytes) => bytes.writeInt32LE(-1, 33)),
      edited((bytes) => bytes.writeBigUInt64LE(8n, 37)),
      edited((bytes) => bytes.writeBigUInt64LE(2n ** 63n, 37)),
    ];
    for (const bytes of wrong) assert.deepEqual(reportIndex(bytes), ['malformed'], bytes.toString('hex'));
  });
});

describe('a reader of the rows of a Faiss index', () => {
  it('counts rows, and reports those without an id or a name', () => {
    assert.deepEqual(reportMeta('{}'), [[0, 0, 0]]);
    const text = `{"0": {"__id__": "a", "x": [{"__id__": 1}]}, "1": {"content": "b"}, "2": {"__id__": null}}`;
    assert.deepEqual(reportMeta(text), ['row_without_id row 1', 'row_without_id row 2', [3, 0, 0]]);
    const named = '{"0": {"__id__": "e", "entity_name": "E"}, "1": {"__id__": "f"}}';
    assert.deepEqual(reportMeta(named, 'entities'), ['row_without_name row 1', [2, 0, 0]]);
    const pairs = '{"0": {"__id__": "e", "src_id": "E", "tgt_id": "F"}, "1": {"__id__": "f", "src_id": "E"}}';
    assert.deepEqual(reportMeta(pairs, 'relationships'), ['row_without_name row 1', [2, 0, 0]]);
  });

  it('refuses what the server cannot load', () => {
    const wrong = [
      'null',
      '[]',
      '7',
      '"x"',
      '{"a": {}}',
      '{"-1": {}}',
      '{"1.0": {}}',
      '{"0": null}',
      '{"0": []}',
    ];
    wrong.push(
      '{"0": "x"}',
      '{"0": {"__id__": "a\u0007"}}',
      '\ufeff{}',
      '{} x',
      `{"${'1'.repeat(70_000)}": {}}`,
    );
    for (const text of wrong) assert.deepEqual(reportMeta(text), ['malformed'], text.slice(0, 50));
    assert.deepEqual(reportMeta(''), ['empty']);
    assert.deepEqual(reportMeta('{"0": {'), ['cut']);
  });
});

/** Puts Faiss indexes in place of the files of vectors. */
function withFaiss(files: Map<string, Buffer>): Map<string, Buffer> {
  for (const namespace of ['chunks', 'entities', 'relationships']) {
    const text = files.get(`vdb_${namespace}.json`)?.toString('utf8') ?? assert.fail(namespace);
    files.delete(`vdb_${namespace}.json`);
    const vectors = JSON.parse(text) as { embedding_dim: number; data: object[]; matrix: string };
    const matrix = Buffer.from(vectors.matrix, 'base64');
    const floats = new Float32Array(
      matrix.buffer.slice(matrix.byteOffset, matrix.byteOffset + matrix.length),
    );
    files.set(`faiss_index_${namespace}.index`, index(vectors.embedding_dim, [...floats]));
    const rows = Object.fromEntries(vectors.data.map((row, i) => [String(i), row]));
    files.set(`faiss_index_${namespace}.index.meta.json`, Buffer.from(JSON.stringify(rows)));
  }
  return files;
}

/** Returns the findings above INFO in some files, as code and object. */
function findingsIn(files: ReadonlyMap<string, Buffer>): string[] {
  const check = new GraphCheck();
  for (const [name, bytes] of files) {
    if (!isGraphFile(name)) continue;
    try {
      feedIn(new Utf8Reader(check.reader(name)), bytes, 997);
      check.finished(name);
    } catch (error) {
      assert.equal(error instanceof LayoutError, true, String(error));
      check.failed(name, error as LayoutError);
    }
  }
  for (let again = check.compare(); again.length > 0; again = check.compare())
    for (const name of again) feedIn(check.rereader(name), files.get(name) ?? assert.fail(name));
  const heavy = check.findings().filter(({ finding }) => finding.severity !== Severity_Value.INFO);
  return heavy.map(({ finding: { code, object } }) => `${code} ${object}`).sort();
}

describe('the check of a directory with Faiss indexes', () => {
  const [INDEX, META] = ['faiss_index_entities.index', 'faiss_index_entities.index.meta.json'];
  const changed = (name: string, edit: (bytes: Buffer) => Buffer | undefined): Map<string, Buffer> => {
    const files = new Map(WHOLE);
    const after = edit(files.get(name) ?? assert.fail(name));
    if (after === undefined) files.delete(name);
    else files.set(name, after);
    return files;
  };
  const withRows = (edit: (rows: Record<string, unknown>) => void) =>
    changed(META, (bytes) => {
      const rows = JSON.parse(bytes.toString()) as Record<string, unknown>;
      edit(rows);
      return Buffer.from(JSON.stringify(rows));
    });

  it('finds nothing in a whole one', () => assert.deepEqual(findingsIn(WHOLE), []));

  it('reports an index or rows that cannot be read', () => {
    for (const name of [INDEX, META])
      for (const [edit, code] of [
        [(bytes: Buffer) => bytes.subarray(0, 0), 'empty_file'],
        [(bytes: Buffer) => bytes.subarray(0, -2), 'cut_file'],
        [(bytes: Buffer) => Buffer.concat([Buffer.alloc(8), bytes.subarray(8)]), 'malformed_file'],
      ] as const)
        assert.deepEqual(findingsIn(changed(name, edit)), [`${code} ${name}`]);
  });

  it('reports an index without its rows, and rows without their index', () => {
    for (const name of [INDEX, META])
      assert.deepEqual(
        findingsIn(changed(name, () => undefined)).filter((finding) => finding.includes('faiss')),
        [`missing_file ${name}`],
      );
  });

  it('reports more or fewer rows than vectors', () => {
    const fewer = withRows((rows) => delete rows['0']);
    const more = withRows((rows) => Object.assign(rows, { 99: { __id__: 'x', entity_name: 'x' } }));
    for (const files of [fewer, more]) assert.deepEqual(findingsIn(files), [`matrix_length ${INDEX}`]);
  });

  it('reports an index of another dimension', () => {
    const { length } = Object.keys(JSON.parse(String(WHOLE.get(META))) as object);
    const other = changed(INDEX, () =>
      index(
        4,
        Array.from({ length: 4 * length }, () => 0.5),
      ),
    );
    assert.deepEqual(findingsIn(other), ['mixed_dimensions faiss_index_chunks.index']);
  });
});
