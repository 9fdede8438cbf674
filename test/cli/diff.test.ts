import assert from 'node:assert/strict';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { deleteDocument, generate, ingest } from '../../demo/generate.ts';
import { readGraph } from '../../demo/instance/graph.ts';
import { hasFields, type Json, listOf, Place, suite } from './program.ts';

const FIXTURES = join(import.meta.dirname, '../../../shared/fixtures');
const GRAPH = 'graph_chunk_entity_relation.graphml';
const CHANGES = {
  addedCount: 'long',
  removedCount: 'long',
  changedCount: 'long',
  added: 'list',
  removed: 'list',
  changed: 'list',
} as const;

const KINDS = ['documents', 'chunks', 'entities', 'relations', 'answers'] as const;
type Fields = Readonly<Record<string, unknown>>;
type Records = ReadonlyMap<string, Fields>;

/** The records of a directory, read the plain way. */
function recordsIn(dir: string): Record<(typeof KINDS)[number], Records> {
  const json = (name: string): Records =>
    new Map(Object.entries(JSON.parse(readFileSync(join(dir, name), 'utf8')) as Record<string, Fields>));
  const { nodes, edges } = readGraph(readFileSync(join(dir, GRAPH), 'utf8'));
  const sorted = (ends: readonly string[]) =>
    [...ends].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))).join('<SEP>');
  return {
    documents: json('kv_store_full_docs.json'),
    chunks: json('kv_store_text_chunks.json'),
    answers: json('kv_store_llm_response_cache.json'),
    entities: new Map([...nodes.values()].map(({ id, attributes }) => [id, attributes])),
    relations: new Map([...edges.values()].map(({ ends, attributes }) => [sorted(ends), attributes])),
  };
}

/** What changed, the slow way, as the command says it. */
function slowDiff(before: Records, after: Records): Json {
  const added = [...after.keys()].filter((name) => !before.has(name));
  const removed = [...before.keys()].filter((name) => !after.has(name));
  const changed = [...after].flatMap(([name, now]) => {
    const old = before.get(name);
    if (old === undefined || JSON.stringify(old) === JSON.stringify(now)) return [];
    const fields = [...new Set([...Object.keys(old), ...Object.keys(now)])];
    return [
      { name, fields: fields.filter((key) => JSON.stringify(old[key]) !== JSON.stringify(now[key])).sort() },
    ];
  });
  return {
    addedCount: String(added.length),
    removedCount: String(removed.length),
    changedCount: String(changed.length),
    added: added.sort(),
    removed: removed.sort(),
    changed: changed.sort((a, b) => (a.name < b.name ? -1 : 1)),
  };
}

function assertDiff(answer: Json, before: string, after: string): void {
  const [old, now] = [recordsIn(before), recordsIn(after)];
  for (const kind of KINDS) assert.deepEqual(answer[kind], slowDiff(old[kind], now[kind]), kind);
  const differs = (name: string) =>
    !existsSync(join(before, name)) ||
    !existsSync(join(after, name)) ||
    !readFileSync(join(before, name)).equals(readFileSync(join(after, name)));
  const names = [...new Set([...readdirSync(before), ...readdirSync(after)])].filter(differs).sort();
  assert.deepEqual(
    listOf(answer, 'files').map(({ path }) => path),
    names,
  );
}

/** The same records in another layout. */
function compact(dir: string, name: string): string {
  return JSON.stringify(JSON.parse(readFileSync(join(dir, name), 'utf8')));
}

function reverseRecords(dir: string, name: string): void {
  const records = Object.entries(JSON.parse(readFileSync(join(dir, name), 'utf8')) as object);
  writeFileSync(join(dir, name), JSON.stringify(Object.fromEntries(records.reverse()), null, 2));
}

suite('diff', () => {
  it('says what an ingest brought, as a slow look at both says it', async () => {
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

  it('of files of many units, with changes at any place in them, agrees with a slow look', async () => {
    const place = new Place();
    let state = await generate(place.dir, { seed: 8, documents: 60, dimension: 8 });
    const states: string[] = [];
    const keep = async () => {
      const to = place.path(`state${states.length}`);
      cpSync(place.dir, to, { recursive: true });
      states.push(to);
      await place.snapshot({}, '--no-grade');
    };
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

  it('of ten states of a real directory agrees with a slow look', {
    skip: existsSync(FIXTURES) ? false : 'needs ../shared/fixtures',
  }, async () => {
    const place = new Place();
    const states = readdirSync(FIXTURES)
      .filter((name) => name.startsWith('gustobot@'))
      .sort();
    for (const state of states) {
      rmSync(place.dir, { recursive: true });
      cpSync(join(FIXTURES, state), place.dir, { recursive: true });
      await place.snapshot({}, '--tag', `state=${state}`, '--no-grade');
    }
    const ids = (await place.ids()).reverse();
    assert.equal(ids.length, states.length);
    for (let i = 1; i < ids.length; i++) {
      const answer = await place.json(['diff', ids[i - 1] ?? '', ids[i] ?? '']);
      assertDiff(answer, join(FIXTURES, states[i - 1] ?? ''), join(FIXTURES, states[i] ?? ''));
    }
  });

  it('compares what it can of points that are not whole, and says what it cannot', async () => {
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

  it('needs two snapshots that are there', async () => {
    const place = new Place();
    await place.snapshot({ a: 'a' });
    await place.fails(['diff', 'latest', '--store', place.store], 2);
    await place.fails(['diff', 'latest', '00000000', '--store', place.store], 1);
  });
});
