import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readGraph } from '../../demo/instance/graph.ts';
import { type Json, listOf } from './cli-place.ts';

/** The file of the graph. */
export const GRAPH = 'graph_chunk_entity_relation.graphml';
const KINDS = ['documents', 'chunks', 'entities', 'relations', 'answers'] as const;
type Fields = Readonly<Record<string, unknown>>;
type Records = ReadonlyMap<string, Fields>;

/** What was read of a state that stays as it is, by its path. */
const READ = new Map<string, unknown>();

function once<T>(what: string, path: string, read: () => T): T {
  const key = `${what} ${path}`;
  if (!READ.has(key)) READ.set(key, read());
  return READ.get(key) as T;
}

function jsonIn(dir: string, name: string): Records {
  return once('json', join(dir, name), () => readJson(dir, name));
}

function readJson(dir: string, name: string): Records {
  if (!existsSync(join(dir, name))) return new Map();
  return new Map(Object.entries(JSON.parse(readFileSync(join(dir, name), 'utf8')) as Record<string, Fields>));
}

function sorted(ends: readonly string[]): string {
  return [...ends].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))).join('<SEP>');
}

/** The records of a directory, read the plain way. */
function recordsIn(dir: string): Record<(typeof KINDS)[number], Records> {
  return once('records', dir, () => readRecords(dir));
}

function readRecords(dir: string): Record<(typeof KINDS)[number], Records> {
  const json = (name: string) => jsonIn(dir, name);
  const { nodes, edges } = readGraph(readFileSync(join(dir, GRAPH), 'utf8'));
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

/** The rows of a file of vectors, read the plain way: what each is of, its fields, and its vector. */
export function rowsIn(dir: string, name: string): Rows {
  return once('rows', join(dir, name), () => readRows(dir, name));
}

/** Rows of a file of vectors, and their vectors as texts, by what they are of. */
export interface Rows {
  readonly rows: Records;
  readonly vectors: ReadonlyMap<string, string>;
}

function readRows(dir: string, name: string): Rows {
  const rows = new Map<string, Fields>();
  const vectors = new Map<string, string>();
  if (!existsSync(join(dir, name))) return { rows, vectors };
  const file = JSON.parse(readFileSync(join(dir, name), 'utf8')) as {
    embedding_dim: number;
    data: { [field: string]: string }[];
    matrix: string;
  };
  const matrix = Buffer.from(file.matrix, 'base64');
  for (const [i, { vector, ...row }] of file.data.entries()) {
    const { __id__: id = '', entity_name: entity, src_id: source = '', tgt_id: target = '' } = row;
    const of = name === RELATION_VECTORS ? sorted([source, target]) : (entity ?? id);
    rows.set(of, row);
    const floats = () =>
      Array.from({ length: file.embedding_dim }, (_, k) =>
        matrix.readFloatLE((i * file.embedding_dim + k) * 4).toFixed(3),
      );
    vectors.set(of, vector ?? floats().join(' '));
  }
  return { rows, vectors };
}

const RELATION_VECTORS = 'vdb_relationships.json';
/** Files of vectors, by the field of a diff that is about them. */
export const VECTORS = {
  chunkVectors: 'vdb_chunks.json',
  entityVectors: 'vdb_entities.json',
  relationVectors: RELATION_VECTORS,
} as const;

/** Counts of the records of files, by their names, as the command says them. */
function slowCounts(before: string, after: string): Map<string, Json> {
  const all = new Map<string, Json>();
  const enter = (name: string, pairs: readonly (readonly [Records, Records])[], reembedded = 0) => {
    const diffs = pairs.map(([old, now]) => slowDiff(old, now));
    const sum = (field: string) =>
      String(diffs.reduce((total, diff) => total + Number(diff[`${field}Count`]), 0));
    all.set(name, {
      added: sum('added'),
      removed: sum('removed'),
      changed: sum('changed'),
      reembedded: String(reembedded),
    });
  };
  for (const name of new Set([...readdirSync(before), ...readdirSync(after)])) {
    if (name.startsWith('kv_store_')) enter(name, [[jsonIn(before, name), jsonIn(after, name)]]);
    if (name === GRAPH) {
      const [old, now] = [recordsIn(before), recordsIn(after)];
      enter(name, [
        [old.entities, now.entities],
        [old.relations, now.relations],
      ]);
    }
    if (!name.startsWith('vdb_')) continue;
    const [old, now] = [rowsIn(before, name), rowsIn(after, name)];
    enter(name, [[old.rows, now.rows]], reembeddedIn(before, after, name).length);
  }
  return all;
}

function reembeddedIn(before: string, after: string, name: string): string[] {
  const [old, now] = [rowsIn(before, name), rowsIn(after, name)];
  return [...now.vectors].flatMap(([of, vector]) => {
    const was = old.vectors.get(of);
    return was === undefined || was === vector ? [] : [of];
  });
}

function assertVectors(answer: Json, before: string, after: string): void {
  for (const [kind, name] of Object.entries(VECTORS)) {
    const { addedCount, removedCount } = slowDiff(rowsIn(before, name).rows, rowsIn(after, name).rows);
    const reembedded = reembeddedIn(before, after, name).sort();
    const reembeddedCount = String(reembedded.length);
    assert.deepEqual(answer[kind], { addedCount, removedCount, reembeddedCount, reembedded }, kind);
  }
}

/** Fails unless a diff of two states says what reading both of them says. */
export function assertDiff(answer: Json, before: string, after: string): void {
  const [old, now] = [recordsIn(before), recordsIn(after)];
  for (const kind of KINDS) assert.deepEqual(answer[kind], slowDiff(old[kind], now[kind]), kind);
  assertVectors(answer, before, after);
  const counts = slowCounts(before, after);
  for (const { path, records } of listOf(answer, 'files'))
    assert.deepEqual(records, counts.get(String(path)), String(path));
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
