import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { generate } from '../../demo/generate.ts';
import { hasFields, type Json, listOf, oneDocument, Place, suite } from '../support/cli-place.ts';

const RESULT = { grade: 'word', findings: 'list', stats: 'map', durationMs: 'long', dir: 'text' } as const;
const STATS = {
  documents: 'long',
  chunks: 'long',
  entities: 'long',
  relations: 'long',
  vectors: 'long',
  dimension: 'number',
  unfinished: 'long',
  processed: 'long',
} as const;

/** `validate --json`, which must end with this code. */
async function validate(place: Place, code: number, ...args: string[]): Promise<Json> {
  const outcome = await place.run(['validate', '--dir', place.dir, '--json', ...args]);
  assert.equal(outcome.code, code, `${outcome.stdout}${outcome.stderr}`);
  return oneDocument(outcome);
}

function codes(result: Json): unknown[] {
  return listOf(result, 'findings').map(({ code, object }) => `${code} ${object}`);
}

suite('validate', () => {
  it('prints a grade, findings and statistics', async () => {
    const place = new Place();
    await generate(place.dir, { seed: 2, documents: 4, dimension: 8 });
    const result = await validate(place, 0);
    hasFields(result, RESULT);
    hasFields(result.stats, STATS);
    assert.deepEqual([result.grade, result.findings, (result.stats as Json).documents], ['VALID', [], '4']);
    const plain = await place.run(['validate', '--dir', place.dir]);
    assert.match(plain.stdout, /^VALID: .*: 4 documents, \d+ entities, \d+ relations, \d+ vectors, in /);
    assert.deepEqual(readdirSync(place.root).sort(), ['home', 'rag', 'run'], 'it makes nothing');
  });

  it('exits 3 for a broken graph and says where and what to do', async () => {
    const place = new Place();
    await generate(place.dir, { seed: 2, documents: 4, dimension: 8 });
    truncateSync(join(place.dir, 'graph_chunk_entity_relation.graphml'), 0);
    const result = await validate(place, 3);
    assert.equal(result.grade, 'INVALID');
    assert.deepEqual(codes(result), ['empty_file graph_chunk_entity_relation.graphml']);
    const plain = await place.run(['validate', '--dir', place.dir]);
    assert.equal(plain.code, 3);
    assert.match(
      plain.stdout,
      /^INVALID: .*\nerror empty_file ".*": .*\n {2}hint: .*restore an earlier point/,
    );
  });

  it('reports invalid UTF-8 anywhere in a file', async () => {
    const place = new Place();
    for (const [name, bytes] of [
      ['kv_store_a.json', Buffer.from('{"a\xff": {}}', 'latin1')],
      [
        'kv_store_b.json',
        Buffer.concat([Buffer.from('{"a": "'), Buffer.from([0xe4, 0xb8]), Buffer.from('"}')]),
      ],
      ['kv_store_c.json', Buffer.from('{"中": "é𝄞"}')],
    ] as const)
      place.write(name, bytes);
    assert.deepEqual(codes(await validate(place, 3)), [
      'malformed_file kv_store_a.json',
      'malformed_file kv_store_b.json',
    ]);
  });

  it('reports that a directory without a graph needs no check', async () => {
    const place = new Place();
    place.write('a.txt', 'a');
    const result = await validate(place, 0);
    assert.deepEqual([result.grade, codes(result)], ['VALID', [`no_graph ${place.dir}`]]);
  });

  it('grades a directory TORN that changes while it is read', async () => {
    const place = new Place();
    await generate(place.dir, { seed: 2, documents: 4, dimension: 8 });
    let n = 0;
    const writing = setInterval(() => place.write('kv_store_n.json', `{"n": "${n++}"}`), 5);
    const result = await validate(place, 3).finally(() => clearInterval(writing));
    assert.equal(result.grade, 'TORN');
    assert.equal(codes(result).includes('changed_while_read kv_store_n.json'), true);
  });

  it('checks the directory alone, or each workspace too with --split', async () => {
    const place = new Place();
    mkdirSync(join(place.dir, 'one'));
    writeFileSync(join(place.dir, 'one/kv_store_full_docs.json'), '{');
    place.write('kv_store_full_docs.json', '{}');
    const alone = await validate(place, 0);
    assert.deepEqual([alone.grade, codes(alone)], ['UNGRADED', ['workspaces_unchecked one']]);
    const split = listOf(await validate(place, 3, '--split'), 'graphs');
    assert.deepEqual(
      split.map(({ dir, grade }) => [dir, grade]),
      [
        [place.dir, 'VALID'],
        [join(place.dir, 'one'), 'INVALID'],
      ],
    );
  });

  it('needs an existing directory', async () => {
    const place = new Place();
    await place.fails(['validate'], 2);
    await place.fails(['validate', '--dir', place.path('none')], 1);
  });
});

suite('verify --level graph', () => {
  it('names the snapshots with a broken graph', async () => {
    const place = new Place();
    await generate(place.dir, { seed: 2, documents: 4, dimension: 8 });
    const whole = await place.snapshot();
    const before = await place.json(['verify', '--level', 'graph']);
    assert.deepEqual([before.level, before.findings, before.checkedSnapshots], ['GRAPH', [], 1]);
    truncateSync(join(place.dir, 'vdb_chunks.json'), 1000);
    const broken = await place.snapshot({}, '--no-grade');
    const after = listOf(await place.json(['verify', '--level', 'graph'], 3), 'findings');
    assert.deepEqual(
      after.map(({ code, object, snapshots }) => [code, object, snapshots]),
      [['cut_file', 'vdb_chunks.json', [broken.snapshotId]]],
    );
    await place.json(['verify', '--level', 'graph', '--snapshot', String(whole.snapshotId)]);
    await place.json(['verify', '--level', 'bytes']);
  });

  it('lists warnings and exits 0', async () => {
    const place = new Place();
    await generate(place.dir, { seed: 2, documents: 4, dimension: 8 });
    const path = join(place.dir, 'kv_store_full_docs.json');
    const documents = JSON.parse(readFileSync(path, 'utf8')) as Json;
    writeFileSync(path, JSON.stringify({ ...documents, 'custom-chunks': { content: 'x' } }));
    const { snapshotId } = await place.snapshot();
    const [found, ...more] = listOf(await place.json(['verify', '--level', 'graph']), 'findings');
    assert.deepEqual([found?.code, found?.snapshots, more], ['document_without_status', [snapshotId], []]);
  });
});
