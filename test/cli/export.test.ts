import assert from 'node:assert/strict';
import { readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { generate } from '../../demo/generate.ts';
import { type Json, listOf, oneDocument, Place, suite } from '../support/cli-place.ts';

const DOCUMENTS = 'kv_store_full_docs.json';
const CHUNKS = 'kv_store_text_chunks.json';

type Records = Record<string, Record<string, unknown>>;

function recordsOf(place: Place, name: string): Records {
  return JSON.parse(readFileSync(join(place.dir, name), 'utf8')) as Records;
}

suite('export', () => {
  it('returns a deleted document from the snapshot before', async () => {
    const place = new Place();
    await generate(place.dir, { seed: 3, documents: 5, dimension: 8 });
    const documents = recordsOf(place, DOCUMENTS);
    const chunks = recordsOf(place, CHUNKS);
    const before = await place.snapshot();
    const [id = '', ...others] = Object.keys(documents);
    place.write(
      DOCUMENTS,
      JSON.stringify(Object.fromEntries(others.map((other) => [other, documents[other]]))),
    );
    place.write('kv_store_doc_status.json', '{}');
    await place.snapshot({}, '--no-grade');
    const gone = await place.fails(['export', '--document', id, '--store', place.store], 1);
    assert.match(String(gone.message), /does not contain it/);
    const words = ['export', '--document', id, '--snapshot', String(before.snapshotId).slice(0, 8)];
    const answer = await place.json(words);
    assert.deepEqual([answer.documentId, answer.snapshotId], [id, before.snapshotId]);
    assert.deepEqual(answer.document, documents[id]);
    assert.equal((answer.status as Json).status, 'processed');
    const wanted = Object.entries(chunks)
      .filter(([, chunk]) => chunk.full_doc_id === id)
      .map(([chunkId, chunk]) => ({ id: chunkId, ...chunk }) as Record<string, unknown>)
      .sort((a, b) => Number(a.chunk_order_index) - Number(b.chunk_order_index));
    assert.equal(wanted.length > 0, true);
    assert.deepEqual(listOf(answer, 'chunks'), wanted);
    // It is JSON without being asked for it.
    const plain = await place.run([...words, '--store', place.store]);
    assert.deepEqual(oneDocument(plain), answer);
  });

  it('names the broken file of a snapshot', async () => {
    const place = new Place();
    await generate(place.dir, { seed: 3, documents: 5, dimension: 8 });
    truncateSync(join(place.dir, DOCUMENTS), 100);
    await place.snapshot({}, '--no-grade');
    const { message } = await place.fails(['export', '--document', 'doc-1', '--store', place.store], 1);
    assert.match(String(message), /"kv_store_full_docs\.json" in it is malformed: .* it ends in the middle/);
  });

  it('needs the id of a document in the snapshot', async () => {
    const place = new Place();
    await place.snapshot({ a: 'a' });
    await place.fails(['export', '--store', place.store], 2);
    await place.fails(['export', '--document', 'doc-1', '--store', place.store], 1);
  });
});
