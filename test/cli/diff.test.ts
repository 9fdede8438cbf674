import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { deflateSync, inflateSync } from 'node:zlib';
import { deleteDocument, generate, ingest } from '../../demo/generate.ts';
import { hasFields, type Json, listOf, Place, suite } from '../support/cli-place.ts';
import { assertDiff, GRAPH, rowsIn, VECTORS } from '../support/independent-diff.ts';

const CHANGES = {
  addedCount: 'long',
  removedCount: 'long',
  changedCount: 'long',
  added: 'list',
  removed: 'list',
  changed: 'list',
} as const;

/** The same records in another layout. */
function compact(dir: string, name: string): string {
  return JSON.stringify(JSON.parse(readFileSync(join(dir, name), 'utf8')));
}

function reverseRecords(dir: string, name: string): void {
  const records = Object.entries(JSON.parse(readFileSync(join(dir, name), 'utf8')) as object);
  writeFileSync(join(dir, name), JSON.stringify(Object.fromEntries(records.reverse()), null, 2));
}

interface VectorsFile {
  embedding_dim: number;
  data: { vector?: string }[];
  matrix: string;
}

function editVectors(dir: string, name: string, edit: (file: VectorsFile) => void): void {
  const file = JSON.parse(readFileSync(join(dir, name), 'utf8')) as VectorsFile;
  edit(file);
  // As Python writes it, but for characters beyond ASCII, which the generator does not make.
  const text = (value: unknown) => JSON.stringify(value).replaceAll('":', '": ').replaceAll(',"', ', "');
  const rows = file.data.map(text).join(', ');
  writeFileSync(
    join(dir, name),
    `{"embedding_dim": ${file.embedding_dim}, "data": [${rows}], "matrix": "${file.matrix}"}`,
  );
}

function turnMatrix(dir: string, name: string, factor: number, which: (row: number) => boolean): void {
  editVectors(dir, name, (file) => {
    const matrix = Buffer.from(file.matrix, 'base64');
    for (let at = 0; at < matrix.length; at += 4)
      if (which(Math.floor(at / 4 / file.embedding_dim)))
        matrix.writeFloatLE(matrix.readFloatLE(at) * factor, at);
    file.matrix = matrix.toString('base64');
  });
}

/** Other vectors for some rows, in the rows and in the matrix. */
function turnVectors(dir: string, name: string, which: (row: number) => boolean): void {
  turnMatrix(dir, name, -1, which);
  editVectors(dir, name, ({ data }) => {
    for (const [i, row] of data.entries()) {
      if (!which(i)) continue;
      const halves = inflateSync(Buffer.from(row.vector ?? '', 'base64'));
      for (let at = 1; at < halves.length; at += 2) halves.writeUInt8(halves.readUInt8(at) ^ 0x80, at);
      row.vector = deflateSync(halves).toString('base64');
    }
  });
}

/** Takes points of a place, and keeps a copy of each state. */
function keeping(place: Place): { states: string[]; keep: () => Promise<void> } {
  const states: string[] = [];
  const keep = async () => {
    const to = place.path(`state${states.length}`);
    cpSync(place.dir, to, { recursive: true });
    states.push(to);
    await place.snapshot({}, '--no-grade');
  };
  return { states, keep };
}

suite('diff', () => {
  it('reports what an ingest added, as an independent comparison does', async () => {
    const place = new Place();
    const state = await generate(place.dir, { seed: 6, documents: 8, dimension: 8 });
    await place.snapshot();
    const before = place.path('before');
    cpSync(place.dir, before, { recursive: true });
    await ingest(place.dir, state, 2);
    await place.snapshot();
    const [second = '', first = ''] = await place.ids();
    const answer = await place.json(['diff', first.slice(0, 8), 'latest']);
    assert.deepEqual([answer.fromSnapshotId, answer.toSnapshotId, answer.findings], [first, second, []]);
    for (const kind of ['documents', 'chunks', 'entities', 'relations']) hasFields(answer[kind], CHANGES);
    assertDiff(answer, before, place.dir);
    assert.equal((answer.documents as Json).addedCount, '2');
    const [graph] = listOf(answer, 'files').filter(({ path }) => path === GRAPH);
    assert.deepEqual([graph?.kind, Number(graph?.newUnits) > 0], ['CHANGED', true]);
    const back = await place.json(['diff', second, first]);
    assert.deepEqual((back.documents as Json).removed, (answer.documents as Json).added);
    const same = await place.json(['diff', first, first]);
    assert.deepEqual([same.files, (same.entities as Json).changedCount], [[], '0']);
    const plain = await place.run(['diff', first, second, '--store', place.store]);
    assert.match(plain.stdout, /^FILE .*\n(?:.*\n)*documents: \+2 −0 ~0\n {2}\+ doc-/);
  });

  it('of large files changed at any place agrees with an independent comparison', async () => {
    const place = new Place();
    let state = await generate(place.dir, { seed: 8, documents: 60, dimension: 8 });
    const { states, keep } = keeping(place);
    await keep();
    for (const number of [1, 30, 59]) {
      state = await deleteDocument(place.dir, state, number);
      await keep();
    }
    state = await ingest(place.dir, state, 3);
    await keep();
    writeFileSync(join(place.dir, 'kv_store_full_docs.json'), compact(place.dir, 'kv_store_full_docs.json'));
    await keep();
    reverseRecords(place.dir, 'kv_store_text_chunks.json');
    await keep();
    const ids = (await place.ids()).reverse();
    for (const [from, to] of [
      [0, 1],
      [1, 2],
      [2, 4],
      [4, 5],
      [5, 6],
      [6, 0],
    ] as const)
      assertDiff(
        await place.json(['diff', ids[from] ?? '', ids[to] ?? '']),
        states[from] ?? '',
        states[to] ?? '',
      );
  });

  it('reports recomputed vectors in every layout of the rows', async () => {
    const place = new Place();
    // Rows of 1.5 hold a number that JSON.parse would round when they are edited.
    const old = { version: '1.4.9.11', seed: 9, documents: 60, dimension: 768 } as const;
    const state = await generate(place.dir, old);
    const { states, keep } = keeping(place);
    const entities = VECTORS.entityVectors;
    await keep();
    turnVectors(place.dir, entities, (i) => i % 7 === 0);
    await keep();
    // The last bits of a matrix, as a restart leaves them.
    turnMatrix(place.dir, entities, 1 + 1e-7, () => true);
    await keep();
    // Rows of an old version: their vectors are in the matrix alone.
    editVectors(place.dir, entities, ({ data }) => {
      for (const row of data) delete row.vector;
    });
    await keep();
    turnMatrix(place.dir, entities, 1 + 1e-7, (i) => i % 2 === 0);
    turnMatrix(place.dir, entities, -1, (i) => i % 50 === 3);
    await keep();
    await ingest(place.dir, state, 1);
    await keep();
    rmSync(join(place.dir, entities));
    await keep();
    const ids = (await place.ids()).reverse();
    const answers: Json[] = [];
    for (const [i, id] of ids.slice(1).entries()) {
      const answer = await place.json(['diff', ids[i] ?? '', id]);
      if (i !== 1 && i !== 2) assertDiff(answer, states[i] ?? '', states[i + 1] ?? '');
      answers.push(answer);
    }
    const count = rowsIn(states[0] ?? '', entities).rows.size;
    assert.ok(count > 150, `there are ${count} entities`);
    const counts = answers.map(({ entityVectors }) => Number((entityVectors as Json).reembeddedCount));
    assert.deepEqual(counts.slice(0, 2), [Math.ceil(count / 7), 0]);
    assert.equal(counts[3], Math.ceil((count - 3) / 50));
    const [noise] = listOf(answers[1] ?? {}, 'files');
    assert.deepEqual(
      [noise?.path, noise?.records],
      [entities, { added: '0', removed: '0', changed: '0', reembedded: '0' }],
    );
    const plain = await place.run(['diff', ids[0] ?? '', ids[1] ?? '', '--store', place.store]);
    assert.match(plain.stdout, /^vdb_entities\.json .* {2}\d+ embedded again$/m);
    assert.match(plain.stdout, /^vectors of entities: \+0 −0, \d+ embedded again\n {2}~ /m);
  });

  it('compares the readable files of a broken snapshot and lists the others', async () => {
    const place = new Place();
    await generate(place.dir, { seed: 6, documents: 3, dimension: 8 });
    await place.snapshot();
    truncateSync(join(place.dir, GRAPH), 500);
    mkdirSync(join(place.dir, 'new'));
    await place.snapshot({ 'new/a': 'a' }, '--no-grade');
    const [second = '', first = ''] = await place.ids();
    const answer = await place.json(['diff', first, second]);
    assert.deepEqual(
      listOf(answer, 'findings').map(({ code, object }) => [code, object]),
      [['not_compared', GRAPH]],
    );
    assert.deepEqual(
      listOf(answer, 'files').map(({ path, kind }) => [path, kind]),
      [
        [GRAPH, 'CHANGED'],
        ['new', 'ADDED'],
        ['new/a', 'ADDED'],
      ],
    );
    assert.equal((answer.documents as Json).addedCount, '0');
  });

  it('needs two existing snapshots', async () => {
    const place = new Place();
    await place.snapshot({ a: 'a' });
    await place.fails(['diff', 'latest', '--store', place.store], 2);
    await place.fails(['diff', 'latest', '00000000', '--store', place.store], 1);
  });
});
