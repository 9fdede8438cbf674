import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { FILE_NAMES, generate, rowCounts } from '../../../demo/generate.ts';
import { addQuery, DocumentIngest } from '../../../demo/instance/ingest.ts';
import { load } from '../../../demo/instance/load.ts';
import type { Memory } from '../../../demo/instance/memory.ts';
import { check } from '../../support/independent-check.ts';
import { tempFolder } from '../../support/place.ts';

const LESSONS = 120;

function learn(memory: Memory, seed: number): void {
  const lesson = new DocumentIngest(memory, seed);
  lesson.enqueue();
  lesson.setStatus('processing');
  lesson.extract();
  lesson.setStatus('processed');
}

describe('an ingest of the stand-in', () => {
  for (const { documents, seed, vectorField } of [
    { documents: 0, seed: 5, vectorField: true },
    { documents: 30, seed: 5, vectorField: true },
    { documents: 30, seed: 99, vectorField: false },
  ]) {
    it(`fits the state after ${documents} documents (seed ${seed})`, async (t) => {
      const dir = await tempFolder(t);
      const state = await generate(dir, { seed: 5, documents, dimension: 8, vectorField });
      const memory = await load(dir, undefined);
      for (let i = 0; i < LESSONS; i++) {
        learn(memory, seed);
        addQuery(memory, seed);
      }
      for (const name of FILE_NAMES) await writeFile(join(dir, name), [...memory.text(name)].join(''));
      assert.deepEqual(await check(dir, { vectorField }), { errors: [], warnings: [] });
      assert.equal((await load(dir, undefined)).digest(), memory.digest());
      if (seed !== 5) return;
      const { chunks, entities, relationships } = rowCounts({ ...state, ingested: documents + LESSONS });
      const names = ['vdb_chunks.json', 'vdb_entities.json', 'vdb_relationships.json'] as const;
      assert.deepEqual(
        names.map((name) => memory.vectors(name).rows.size),
        [chunks, entities, relationships],
      );
    });
  }

  it('is the same when a document is resumed', async (t) => {
    const dir = await tempFolder(t);
    await generate(dir, { seed: 5, documents: 40, dimension: 8 });
    const memory = await load(dir, undefined);
    for (let i = 0; i < 20; i++) {
      const lesson = new DocumentIngest(memory, 5);
      lesson.enqueue();
      lesson.extract();
      const once = memory.digest();
      new DocumentIngest(memory, 5).extract();
      assert.equal(memory.digest(), once, `document ${lesson.number}`);
      lesson.setStatus('processed');
    }
  });

  it('adds a cache entry for each question', async (t) => {
    const dir = await tempFolder(t);
    await generate(dir, { seed: 5, documents: 4, dimension: 8 });
    const memory = await load(dir, undefined);
    const { size } = memory.store('kv_store_llm_response_cache.json');
    for (let i = 0; i < 5; i++) addQuery(memory, 5);
    assert.equal(memory.store('kv_store_llm_response_cache.json').size, size + 10);
  });
});
