import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { deleteDocument, generate, growCache, ingest, VERSIONS, type Version } from '../../demo/generate.ts';
import { load } from '../../demo/instance/load.ts';
import type { FileName } from '../../demo/write-order.ts';
import { type DirectoryShape, directoryShape } from '../support/directory-shape.ts';
import { tempFolder } from '../support/place.ts';
import { startStandIn } from '../support/standin.ts';

const FIXTURES = join(import.meta.dirname, '../../../shared/fixtures');
const skip = existsSync(FIXTURES) ? false : 'needs ../shared/fixtures';
/** A directory that a server of a version left after documents alone, and others with more kinds of records. */
// The server that wrote `gustobot@10` laid out its files as 1.4.9.11 does, and had many documents and queries.
const REAL: Readonly<Record<Version, { plain: string; others: string[] }>> = {
  '1.5.7': {
    plain: 'real-1.5.7-clear-documents',
    others: ['SIGTERM-2600', 'fail-400', 'edit-entity', 'refused-graphml_control_char_U_0007'].map(
      (name) => `real-1.5.7-${name}`,
    ),
  },
  '1.4.9.11': { plain: 'gustobot@10', others: ['real-1.4.9.11-fail-delete-failed', 'wild-failed-embedding'] },
};
const GRAPH = 'graph_chunk_entity_relation.graphml';
/** Directories that no server loads. */
const REFUSED = /refused/;

/** Returns the layouts that real servers of a version write, and the records that they write into them. */
async function realShape(
  version: Version,
): Promise<{ plain: DirectoryShape; records: Map<string, Set<string>> }> {
  const { plain, others } = REAL[version];
  const shapes = await Promise.all([plain, ...others].map((name) => directoryShape(join(FIXTURES, name))));
  const records = new Map<string, Set<string>>();
  for (const shape of shapes) {
    for (const [name, file] of Object.entries(shape)) {
      records.set(name, new Set([...(records.get(name) ?? []), ...file.records]));
    }
  }
  // A server has one class for both.
  const [entities, relations] = ['entity', 'relation'].map((kind) => `kv_store_${kind}_chunks.json`) as [
    string,
    string,
  ];
  records.set(relations, new Set([...(records.get(relations) ?? []), ...(records.get(entities) ?? [])]));
  return { plain: shapes[0] as DirectoryShape, records };
}

/** Compares a directory with those of real servers. */
async function assertReal(dir: string, version: Version): Promise<void> {
  const { plain, records } = await realShape(version);
  const shape = await directoryShape(dir);
  assert.deepEqual(Object.keys(shape), Object.keys(plain));
  for (const [name, file] of Object.entries(shape)) {
    assert.equal(file.layout, plain[name]?.layout, name);
    for (const record of file.records) {
      assert.ok(records.get(name)?.has(record), `${name}: ${version} writes no ${record}`);
    }
    for (const record of plain[name]?.records ?? []) {
      assert.ok(file.records.includes(record), `${name}: nothing like ${record}`);
    }
  }
}

describe('a directory beside those of real servers', { skip }, () => {
  for (const version of VERSIONS) {
    it(`is laid out by the generator as by ${version}`, async (t) => {
      const dir = await tempFolder(t);
      let state = await generate(dir, { seed: 21, documents: 30, dimension: 8, version });
      await assertReal(dir, version);
      state = await ingest(dir, state, 3);
      state = await deleteDocument(dir, state, 7);
      await growCache(dir, state);
      await assertReal(dir, version);
    });

    it(`is laid out by the stand-in as by ${version}`, async (t) => {
      const dir = join(await tempFolder(t), 'rag');
      const flags = ['--pause', '0', '--documents', '0', '--core-version', version];
      const { ask, stop } = await startStandIn(t, dir, flags);
      assert.deepEqual(await readdir(dir), []);
      for (let i = 0; i < 30; i++) assert.equal((await ask('POST /documents')).status, 200);
      const [first] = (await ask('GET /documents')).body.documents as { id: string }[];
      const name = /<node id="([^"&]+)"/.exec(await readFile(join(dir, GRAPH), 'utf8'))?.[1] ?? '';
      assert.equal((await ask(`GET /query?entity=${encodeURIComponent(name)}`)).status, 200);
      await assertReal(dir, version);
      assert.equal((await ask(`DELETE /documents?id=${first?.id}`)).status, 200);
      await ask('POST /documents?fail=1');
      await ask('POST /documents');
      await assertReal(dir, version);
      assert.equal((await stop()).code, 0);
      await assertReal(dir, version);
    });
  }
});

describe('the memory of an instance', { skip }, () => {
  it('writes every real directory back byte for byte', async () => {
    const real = (await readdir(FIXTURES)).filter((name) => name.startsWith('real-') && !REFUSED.test(name));
    assert.ok(real.length > 10, `${real.length} directories`);
    for (const directory of ['gustobot@10', ...real]) {
      const dir = join(FIXTURES, directory);
      const memory = await load(dir, undefined);
      for (const name of (await readdir(dir)) as FileName[]) {
        const written = [...memory.text(name)].join('');
        assert.ok(written === (await readFile(join(dir, name), 'utf8')), `${directory}/${name}`);
      }
    }
  });
});
