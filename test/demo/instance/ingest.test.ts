import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Edition } from '../../../demo/document.ts';
import { FILE_NAMES, generate, rowCounts } from '../../../demo/generate.ts';
import { addQuery, DocumentIngest } from '../../../demo/instance/ingest.ts';
import { load } from '../../../demo/instance/load.ts';
import type { Memory } from '../../../demo/instance/memory.ts';
import { NEWEST } from '../../../demo/version.ts';
import { check } from '../../support/independent-check.ts';
import { tempFolder } from '../../support/place.ts';

const LESSONS = 120;
const EDITION = { seed: 5, version: NEWEST };

function learn(memory: Memory, edition: Edition): void {
  const lesson = new DocumentIngest(memory, edition);
  lesson.enqueue();
  lesson.setStatus('processing');
  lesson.addChunks();
  lesson.extract();
  lesson.setStatus('processed');
}

describe('an ingest of the stand-in', () => {
  for (const { documents, seed, vectorField, version } of [
    { documents: 0, seed: 5, vectorField: true, version: NEWEST },
    { documents: 30, seed: 5, vectorField: true, version: NEWEST },
    { documents: 30, seed: 5, vectorField: true, version: '1.4.9.11' },
    { documents: 30, seed: 99, vectorField: false, version: '1.4.9.11' },
  ] as const) {
    it(`fits the state after ${documents} documents (seed ${seed}, ${version})`, async (t) => {
      const dir = await tempFolder(t);
      const state = await generate(dir, { seed: 5, documents, dimension: 8, vectorField, version });
      const memory = await load(dir, undefined);
      for (let i = 0; i < LESSONS; i++) {
        learn(memory, { seed, version });
        addQuery(memory, { seed, version });
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
      const lesson = new DocumentIngest(memory, EDITION);
      lesson.enqueue();
      lesson.extract();
      const once = memory.digest();
      new DocumentIngest(memory, EDITION).extract();
      assert.equal(memory.digest(), once, `document ${lesson.number}`);
      lesson.setStatus('processed');
    }
  });

  it('adds a cache entry for each question', async (t) => {
    const dir = await tempFolder(t);
    await generate(dir, { seed: 5, documents: 4, dimension: 8 });
    const memory = await load(dir, undefined);
    const { size } = memory.store('kv_store_llm_response_cache.json');
    for (let i = 0; i < 5; i++) addQuery(memory, EDITION);
    assert.equal(memory.store('kv_store_llm_response_cache.json').size, size + 10);
  });
});
