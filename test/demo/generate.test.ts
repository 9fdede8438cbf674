import assert from 'node:assert/strict';
import { createHash, hash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import {
  deleteDocument,
  type Generated,
  type GenerateOptions,
  generate,
  growCache,
  ingest,
  rowCounts,
  totalBytes,
  VERSIONS,
} from '../../demo/generate.ts';
import { check } from '../support/independent-check.ts';

const FIXTURE = join(import.meta.dirname, '../../../shared/fixtures/gustobot@10');
const VDB_FILES = ['vdb_entities.json', 'vdb_relationships.json', 'vdb_chunks.json'];
const CACHE_FILE = 'kv_store_llm_response_cache.json';
const WHOLE = { errors: [], warnings: [] };
const SMALL = { seed: 11, documents: 24, dimension: 8 };

const root = await mkdtemp(join(tmpdir(), 'generate-'));
let directories = 0;
after(() => rm(root, { recursive: true }));

async function made(options: GenerateOptions): Promise<{ dir: string; state: Generated }> {
  directories += 1;
  const dir = join(root, String(directories));
  return { dir, state: await generate(dir, options) };
}

async function digests(dir: string): Promise<Map<string, string>> {
  const names = (await readdir(dir)).sort();
  const digest = async (name: string): Promise<string> =>
    createHash('sha256')
      .update(await readFile(join(dir, name)))
      .digest('hex');
  return new Map(await Promise.all(names.map(async (name) => [name, await digest(name)] as const)));
}

async function rowIds(dir: string, name: string): Promise<string[]> {
  const { data } = JSON.parse(await readFile(join(dir, name), 'utf8')) as { data: { __id__: string }[] };
  return data.map((row) => row.__id__);
}

async function kv(dir: string, name: string): Promise<Record<string, Record<string, unknown>>> {
  return JSON.parse(await readFile(join(dir, name), 'utf8'));
}

describe('the independent check', () => {
  it('finds the real directory whole', { skip: !existsSync(FIXTURE) && `no ${FIXTURE}` }, async () => {
    const { errors } = await check(FIXTURE);
    assert.deepEqual(errors, []);
  });

  it('reports a file that is older than the others', async () => {
    const { dir, state } = await made(SMALL);
    await assert.rejects(
      ingest(dir, state, 1, {
        pace: (name) => {
          if (name === 'vdb_chunks.json') throw new Error('killed');
        },
      }),
    );
    const { errors } = await check(dir);
    assert.ok(errors.some((error) => error.startsWith('text_chunks and vdb_chunks')));
  });
});

describe('generate', () => {
  for (const version of VERSIONS) {
    for (const dimension of [1, 8, 33]) {
      it(`makes a whole directory of ${dimension} dimensions as ${version}`, async () => {
        const { dir } = await made({ ...SMALL, dimension, version });
        assert.deepEqual(await check(dir), WHOLE);
      });
    }
  }

  it('makes nothing but the directory for a server without documents', async () => {
    const { dir, state } = await made({ seed: 1, documents: 0 });
    assert.deepEqual(await readdir(dir), []);
    await ingest(dir, state, 1);
    assert.deepEqual(await check(dir), WHOLE);
  });

  it('makes a whole directory of many documents with shared entities', async () => {
    const { dir, state } = await made({ seed: 5, documents: 400, dimension: 4 });
    assert.deepEqual(await check(dir), WHOLE);
    const counts = Object.values(await kv(dir, 'kv_store_entity_chunks.json')).map(({ count }) => count);
    assert.ok(counts.some((count) => Number(count) > 10));
    const { chunks, entities, relationships } = rowCounts(state);
    const rows = await Promise.all(VDB_FILES.map((name) => rowIds(dir, name)));
    assert.deepEqual(
      rows.map((ids) => ids.length),
      [entities, relationships, chunks],
    );
  });

  it('names documents and chunks as the version does and says how large its files are', async () => {
    const old = await made({ ...SMALL, version: '1.4.9.11' });
    for (const [id, { content }] of Object.entries(await kv(old.dir, 'kv_store_full_docs.json'))) {
      assert.equal(id, `doc-${hash('md5', String(content))}`);
    }
    for (const [id, { content }] of Object.entries(await kv(old.dir, 'kv_store_text_chunks.json'))) {
      assert.equal(id, `chunk-${hash('md5', String(content))}`);
    }
    const { dir, state } = await made(SMALL);
    for (const [id, { content, content_hash, file_path }] of Object.entries(
      await kv(dir, 'kv_store_full_docs.json'),
    )) {
      assert.equal(id, `doc-${hash('md5', String(file_path))}`);
      assert.equal(content_hash, hash('md5', String(content)));
    }
    for (const [id, chunk] of Object.entries(await kv(dir, 'kv_store_text_chunks.json'))) {
      assert.equal(id, `${chunk.full_doc_id}-chunk-00${chunk.chunk_order_index}`);
    }
    for (const [name, bytes] of Object.entries(state.files)) {
      assert.equal((await stat(join(dir, name))).size, bytes, name);
    }
    assert.deepEqual(Object.keys(state.files).sort(), (await readdir(dir)).sort());
  });

  it('makes the same bytes of the same seed and others of another', async () => {
    const first = await digests((await made(SMALL)).dir);
    assert.deepEqual(await digests((await made({ ...SMALL, style: 'in-place' })).dir), first);
    for (const [name, digest] of await digests((await made({ ...SMALL, seed: 12 })).dir)) {
      assert.notEqual(digest, first.get(name), name);
    }
  });

  it('leaves the field "vector" out on demand', async () => {
    const { dir } = await made({ ...SMALL, vectorField: false });
    assert.deepEqual(await check(dir, { vectorField: false }), WHOLE);
  });

  it('meets a wanted size', async () => {
    const wanted = 20e6;
    const { dir, state } = await made({ seed: 3, bytes: wanted });
    const bytes = totalBytes(state);
    assert.ok(Math.abs(bytes - wanted) < wanted * 0.15, `${bytes} bytes`);
    assert.deepEqual(await check(dir), WHOLE);
  });

  it('refuses two sizes', async () => {
    await assert.rejects(generate(join(root, 'no'), { seed: 1, documents: 1, bytes: 1 }), RangeError);
  });
});

describe('ingest', () => {
  for (const version of VERSIONS) {
    it(`leaves (${version}) what generating all at once does`, async () => {
      const { dir, state } = await made({ ...SMALL, documents: 20, version });
      await ingest(dir, await ingest(dir, state, 1), 3);
      assert.deepEqual(await check(dir), WHOLE);
      assert.deepEqual(await digests(dir), await digests((await made({ ...SMALL, version })).dir));
    });
  }

  for (const version of VERSIONS) {
    const moves = version === '1.4.9.11';
    it(`appends rows (${version}); merged relations ${moves ? 'move to the end' : 'stay'}`, async () => {
      const { dir, state } = await made({ ...SMALL, documents: 200, version });
      const before = await Promise.all(VDB_FILES.map((name) => rowIds(dir, name)));
      await ingest(dir, state, 20);
      for (const [i, name] of VDB_FILES.entries()) {
        const now = await rowIds(dir, name);
        const old = before[i] ?? [];
        const mayMove = moves && name === 'vdb_relationships.json';
        const stayed = mayMove ? old.filter((id) => now.indexOf(id) <= old.indexOf(id)) : old;
        assert.deepEqual(now.slice(0, stayed.length), stayed, name);
        assert.equal(stayed.length < old.length, mayMove, name);
      }
    });
  }

  it('truncates in place, and says "processed" too early (1.4.9.11)', async () => {
    const { dir, state } = await made({ ...SMALL, version: '1.4.9.11' });
    const statuses: string[] = [];
    const order: string[] = [];
    await ingest(dir, state, 1, {
      pace: async (name, written) => {
        assert.equal((await stat(join(dir, name))).size, written);
        if (written === 0) order.push(name);
        if (name === 'kv_store_text_chunks.json') statuses.push(await lastStatus(dir));
      },
    });
    assert.deepEqual(new Set(statuses), new Set(['processed']));
    assert.deepEqual(order, [
      ...[
        'kv_store_full_docs.json',
        ...Array(3).fill('kv_store_doc_status.json'),
        'kv_store_text_chunks.json',
      ],
      ...['kv_store_full_entities.json', 'kv_store_full_relations.json', 'kv_store_entity_chunks.json'],
      ...['kv_store_relation_chunks.json', CACHE_FILE, ...VDB_FILES, 'graph_chunk_entity_relation.graphml'],
    ]);
  });

  it('writes the graph before the vectors and "processed" last (1.5.7)', async () => {
    const { dir, state } = await made(SMALL);
    const order: string[] = [];
    await ingest(dir, state, 1, {
      pace: (name, written) => {
        if (written === 0) order.push(name);
      },
    });
    assert.deepEqual(order, [
      ...['kv_store_full_docs.json', ...Array(6).fill('kv_store_doc_status.json')],
      ...['kv_store_full_entities.json', 'kv_store_full_relations.json', 'kv_store_doc_status.json'],
      ...['kv_store_text_chunks.json', 'kv_store_entity_chunks.json', 'kv_store_relation_chunks.json'],
      ...[CACHE_FILE, 'graph_chunk_entity_relation.graphml', ...VDB_FILES, 'kv_store_doc_status.json'],
    ]);
  });

  it('renames siblings, and says "processed" last', async () => {
    const { dir, state } = await made(SMALL);
    await ingest(dir, state, 1, {
      pace: async (name) => {
        const siblings = (await readdir(dir)).filter((file) => file.includes('.tmp.'));
        assert.equal(siblings.length, 1);
        assert.match(siblings[0] ?? '', /^[\w.]+\.(json|graphml)\.tmp\.\d+\.\d+\.\d+$/);
        assert.ok((await stat(join(dir, name))).size >= (state.files[name] ?? 0));
        if (name.startsWith('vdb_')) assert.equal(await lastStatus(dir), 'processing');
      },
    });
    assert.equal(await lastStatus(dir), 'processed');
    assert.equal((await readdir(dir)).length, Object.keys(state.files).length);
  });

  async function lastStatus(dir: string): Promise<string> {
    return String(Object.values(await kv(dir, 'kv_store_doc_status.json')).at(-1)?.status);
  }
});

describe('deleteDocument', () => {
  it('takes rows from the middle and leaves the others in their order', async () => {
    const { dir, state } = await made(SMALL);
    const before = await Promise.all(VDB_FILES.map((name) => rowIds(dir, name)));
    let now = await deleteDocument(dir, state, 9);
    assert.deepEqual(await check(dir), WHOLE);
    for (const [i, name] of VDB_FILES.entries()) {
      const left = await rowIds(dir, name);
      assert.ok(left.length < (before[i]?.length ?? 0), name);
      assert.deepEqual(
        left,
        before[i]?.filter((id) => left.includes(id)),
        name,
      );
    }
    now = await deleteDocument(dir, now, 1, { style: 'in-place' });
    assert.deepEqual(await check(dir), WHOLE);
    now = await ingest(dir, now, 2);
    now = await deleteDocument(dir, now, 26);
    assert.deepEqual(await check(dir), WHOLE);
    assert.equal(Object.keys(await kv(dir, 'kv_store_full_docs.json')).length, 23);
    await assert.rejects(deleteDocument(dir, now, 9), RangeError);
  });

  it('can empty a directory', async () => {
    const { dir, state } = await made({ ...SMALL, documents: 2 });
    await deleteDocument(dir, await deleteDocument(dir, state, 2), 1);
    assert.deepEqual(await check(dir), WHOLE);
    assert.equal(await readFile(join(dir, 'kv_store_full_docs.json'), 'utf8'), '{}');
  });
});

describe('growCache', () => {
  it('adds a few KB to the cache and touches nothing else', async () => {
    const { dir, state } = await made(SMALL);
    const before = await digests(dir);
    const old = await readFile(join(dir, CACHE_FILE), 'utf8');
    let now = await growCache(dir, await growCache(dir, state));
    const grown = totalBytes(now) - totalBytes(state);
    assert.ok(grown > 4_000 && grown < 20_000, `${grown} bytes`);
    assert.ok((await readFile(join(dir, CACHE_FILE), 'utf8')).startsWith(old.slice(0, -2)));
    const changed = [...(await digests(dir))].filter(([name, digest]) => before.get(name) !== digest);
    assert.deepEqual(
      changed.map(([name]) => name),
      [CACHE_FILE],
    );
    now = await ingest(dir, now, 1);
    assert.ok((await readFile(join(dir, CACHE_FILE), 'utf8')).startsWith(old.slice(0, -2)));
    assert.deepEqual(await check(dir), WHOLE);
  });
});
