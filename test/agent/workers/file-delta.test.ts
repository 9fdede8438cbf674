import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { FileDelta } from '../../../agent/workers/file-delta.ts';
import { GraphCheck } from '../../../core/lightrag/check.ts';
import { LayoutError } from '../../../core/lightrag/chunk-reader.ts';
import type { FileFacts } from '../../../core/lightrag/facts-codec.ts';
import { Utf8Reader } from '../../../core/lightrag/utf8-reader.ts';
import { generate } from '../../../demo/generate.ts';
import { random } from '../../../demo/random.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
const ROUNDS = 120;
const DIMENSION = 8;
const GRAPH = 'graph_chunk_entity_relation.graphml';

const place = mkdtempSync(join(tmpdir(), 'lightkeeper-patch-'));
after(() => rmSync(place, { recursive: true }));
await generate(place, { seed: 5, documents: 12, dimension: DIMENSION });

type Draw = (below: number) => number;

/** A file as records in order. */
interface Layout {
  readonly records: readonly string[];
  /** What makes something else of the records between two, which themselves become these. */
  readonly wrap: readonly [(first: string) => string, (last: string) => string];
  /** The file with these records, and where in it each begins. */
  write(records: readonly string[]): { text: string; starts: number[] };
}

function joined(head: string, records: readonly string[], between: string, tail: string) {
  const starts: number[] = [];
  let text = head;
  for (const [i, record] of records.entries()) {
    if (i > 0) text += between;
    starts.push(text.length);
    text += record;
  }
  return { text: text + tail, starts };
}

function kvLayout(text: string): Layout {
  return {
    records: text.slice(1, -2).split(/,(?=\n {2}")/),
    wrap: [(first) => `${first.slice(0, -1)}, "n": {"z": 1`, (last) => `${last}}}`],
    write: (records) => joined('{', records, ',', '\n}'),
  };
}

function graphLayout(text: string): Layout {
  const [first, end] = [text.indexOf('<node '), text.indexOf('</graph>')];
  const [, key = ''] =
    /<key id="(\w+)" for="node" attr.name="description"/.exec(text) ?? assert.fail('no key');
  return {
    records: text.slice(first, end).split(/(?=<(?:node|edge) )/),
    wrap: [(one) => `${one}<node id="w"><data key="${key}">`, (last) => `${last}</data></node>`],
    write: (records) => joined(text.slice(0, first), records, '', text.slice(end)),
  };
}

/** A row of the matrix goes with the text of its row, whatever else of that changes. */
function vectorLayout(text: string): Layout {
  const file = JSON.parse(text) as { data: { vector: string }[]; matrix: string };
  const matrix = Buffer.from(file.matrix, 'base64');
  const begin = text.indexOf('[') + 1;
  const records = text.slice(begin, text.indexOf('], "matrix"')).split(/, (?=\{"__id__")/);
  const rows = new Map(
    file.data.map(({ vector }, i) => [vector, matrix.subarray(i * DIMENSION * 4, (i + 1) * DIMENSION * 4)]),
  );
  const rowOf = (record: string) =>
    rows.get(/"vector": "([^"]*)"/.exec(record)?.[1] ?? '') ?? Buffer.alloc(0);
  return {
    records,
    wrap: [(first) => `${first.slice(0, -1)}, "n": [{}`, (last) => `${last}]}`],
    write: (now) => {
      const floats = Buffer.concat(now.map(rowOf)).toString('base64');
      return joined(text.slice(0, begin), now, ', ', `], "matrix": "${floats}"}`);
    },
  };
}

function layoutOf(path: string): Layout {
  const text = readFileSync(join(place, path), 'latin1');
  if (path === GRAPH) return graphLayout(text);
  return path.startsWith('vdb_') ? vectorLayout(text) : kvLayout(text);
}

/** Another state of records: some went, some came, some say something else, some stand elsewhere. */
function edited(records: readonly string[], draw: Draw): string[] {
  const now = [...records];
  for (let edits = 1 + draw(4); edits > 0; edits--) {
    const at = draw(now.length);
    const record = now[at] ?? '';
    const digits = [...record.matchAll(/[0-9a-f]{6}/g)];
    const { index = 0 } = digits[draw(digits.length)] ?? {};
    const other = `${record.slice(0, index)}${(draw(1 << 24) | (1 << 23)).toString(16)}${record.slice(index + 6)}`;
    const edit = draw(6);
    if (edit === 0 && now.length > 2) now.splice(at, 1);
    else if (edit === 1) now.splice(draw(now.length), 0, ...now.splice(at, 1));
    else if (edit === 2) now[at] = other;
    else if (edit === 3) now.push(other);
    else if (edit === 4) now[at] = record.replaceAll(/ [a-z]+ /g, (word) => (draw(3) === 0 ? ' x ' : word));
    else if (draw(8) === 0) now.push(record);
  }
  return now;
}

function wrap(records: string[], { wrap: [open, close] }: Layout, draw: Draw): void {
  const first = draw(records.length - 1);
  const last = first + 1 + draw(records.length - first - 1);
  records[first] = open(records[first] ?? '');
  records[last] = close(records[last] ?? '');
}

interface Shared {
  readonly from: number;
  readonly otherFrom: number;
  readonly length: number;
}

/** Stretches of text that two states have in common, at least two records each, cut anywhere in the records. */
function sharedOf(
  [old, oldStarts]: readonly [readonly string[], readonly number[]],
  [now, starts]: readonly [readonly string[], readonly number[]],
  draw: Draw,
): Shared[] {
  const found: Shared[] = [];
  for (let at = 0; at < now.length; at++) {
    const first = old.indexOf(now[at] ?? '');
    let length = 0;
    while (first >= 0 && now[at + length] !== undefined && now[at + length] === old[first + length])
      length += 1;
    if (length < 3) continue;
    const [from = 0, otherFrom = 0] = [oldStarts[first], starts[at]];
    const bytes = (oldStarts[first + length - 1] ?? 0) + (old[first + length - 1] ?? '').length - from;
    const [skip, drop] = [draw((old[first] ?? '').length), draw((old[first + length - 1] ?? '').length)];
    found.push({ from: from + skip, otherFrom: otherFrom + skip, length: bytes - skip - drop });
    at += length - 1;
  }
  // What is there twice is taken once.
  return found.filter(({ from }, i) => found.findIndex((one) => one.from === from) === i);
}

/** Gives a state to a patch, without what is in common but for the ends of it. */
function give(
  delta: FileDelta,
  text: string,
  passed: readonly { from: number; length: number; edge: number }[],
) {
  let at = 0;
  const bytes = (from: number, to: number) => Buffer.from(text.slice(from, to), 'latin1');
  for (const [i, { from, length, edge }] of passed.entries()) {
    delta.reader.feed(bytes(at, from));
    at = from + length;
    const between = length - 2 * edge;
    const isLast = i === passed.length - 1;
    if (!delta.skip({ head: bytes(from, from + edge), bytes: between, tail: bytes(at - edge, at), isLast }))
      return false;
  }
  delta.reader.feed(bytes(at, text.length));
  return true;
}

function readAll(path: string, text: string): FileFacts | undefined {
  const check = new GraphCheck();
  const feed = new Utf8Reader(check.reader(path));
  try {
    feed.feed(Buffer.from(text, 'latin1'));
    feed.end();
  } catch (error) {
    if (error instanceof LayoutError) return undefined;
    throw error;
  }
  check.finished(path);
  return check.facts(path);
}

function patchOf(
  path: string,
  was: FileFacts,
  older: string,
  text: string,
  common: readonly Shared[],
  draw: Draw,
) {
  const edges = common.map(({ length }) => Math.floor(length / 2) - draw(Math.floor(length / 4)));
  const before = common.map(({ from, length }, i) => ({ from, length, edge: edges[i] ?? 0 }));
  const now = common.map(({ otherFrom, length }, i) => ({ from: otherFrom, length, edge: edges[i] ?? 0 }));
  const byPlace = (a: { from: number }, b: { from: number }) => a.from - b.from;
  const delta = new FileDelta(path, was);
  try {
    if (!give(delta, was.matrixAt > 0 ? older.slice(0, was.matrixAt + draw(9)) : older, before.sort(byPlace)))
      return undefined;
    delta.beginNewState();
    return give(delta, text, now.sort(byPlace)) ? delta.finish() : undefined;
  } catch (error) {
    if (error instanceof LayoutError) return undefined;
    throw error;
  }
}

/** A byte outside of what is passed over becomes another one, or the end is cut off. */
function spoiled(text: string, common: readonly Shared[], draw: Draw): string {
  const isPassed = (at: number) =>
    common.some(({ otherFrom, length }) => at >= otherFrom && at < otherFrom + length);
  let at = draw(text.length);
  for (let tries = 0; isPassed(at); tries++) {
    if (tries === 100) return text;
    at = draw(text.length);
  }
  return draw(3) === 0
    ? text.slice(0, at)
    : `${text.slice(0, at)}${'"{},x0<\\'[draw(8)]}${text.slice(at + 1)}`;
}

describe('facts from a file delta', () => {
  for (const path of [
    'kv_store_full_docs.json',
    'kv_store_doc_status.json',
    'kv_store_text_chunks.json',
    'kv_store_llm_response_cache.json',
    'kv_store_full_entities.json',
    'kv_store_full_relations.json',
    'kv_store_entity_chunks.json',
    'kv_store_relation_chunks.json',
    'vdb_chunks.json',
    'vdb_entities.json',
    'vdb_relationships.json',
    GRAPH,
  ]) {
    it(`equal those of a full read, or are none: ${path}`, () => {
      const draw = random(SEED);
      const layout = layoutOf(path);
      const older = layout.write(layout.records);
      assert.equal(older.text, readFileSync(join(place, path), 'latin1'));
      const was = readAll(path, older.text) ?? assert.fail(`${path} does not read`);
      let [told, broken] = [0, 0];
      for (let round = 0; round < ROUNDS; round++) {
        const records = edited(layout.records, draw);
        if (round % 5 === 1) wrap(records, layout, draw);
        const now = layout.write(records);
        const common = sharedOf([layout.records, older.starts], [records, now.starts], draw);
        const text = round % 3 === 0 ? spoiled(now.text, common, draw) : now.text;
        const patched = patchOf(path, was, older.text, text, common, draw);
        const whole = readAll(path, text);
        if (whole === undefined) broken += 1;
        if (patched === undefined) continue;
        told += 1;
        // Rows that are passed over are not compared with the matrix again, nor those between two stretches of them.
        const flaws = whole?.flaws.filter(({ code }) => common.length === 0 || code !== 'vector_mismatch');
        assert.deepEqual(
          patched,
          { ...whole, flaws, incrementalChecks: 1 },
          `round ${round} of seed ${SEED}`,
        );
      }
      assert.ok(told > ROUNDS / 8, `${told} of ${ROUNDS} were told`);
      assert.ok(broken > 0, 'some files were broken');
    });
  }

  for (const [path, before, records] of [
    [
      GRAPH,
      '<graphml><key id="d0" for="node" attr.name="description"/><graph><node id="a"><data key="d0">',
      ['<node id="b"></node>', '<node id="c"></node>'],
    ],
    [
      'vdb_chunks.json',
      '{"embedding_dim": 2, "other": [{"__id__": "a"}',
      [', {"__id__": "b"}', ', {"__id__": "c"}'],
    ],
    ['kv_store_full_docs.json', '{\n  "a": {"b": 1', [',\n  "c": {}', ',\n  "d": {}']],
  ] as const) {
    it(`are none where a skipped part does not end between records: ${path}`, () => {
      const was = readAll(path, readFileSync(join(place, path), 'latin1')) ?? assert.fail('it does not read');
      const delta = new FileDelta(path, was);
      delta.reader.feed(Buffer.from(before));
      assert.equal(
        delta.skip({
          head: Buffer.from(records[0]),
          bytes: 1000,
          tail: Buffer.from(records[1]),
          isLast: true,
        }),
        false,
      );
    });
  }

  it('are none if a removed record was never there', () => {
    const path = 'kv_store_full_docs.json';
    const was = readAll(path, readFileSync(join(place, path), 'latin1')) ?? assert.fail('it does not read');
    const delta = new FileDelta(path, was);
    delta.reader.feed(Buffer.from('{"somebody": {"content": "x"}}'));
    delta.beginNewState();
    delta.reader.feed(Buffer.from('{}'));
    assert.equal(delta.finish(), undefined);
  });

  it('are none if the keys of a graph changed their meaning', () => {
    const text = readFileSync(join(place, GRAPH), 'latin1');
    const was = readAll(GRAPH, text) ?? assert.fail('it does not read');
    const [{ index = 0 } = {}, ...later] = [...text.matchAll(/<node /g)];
    const last = later.at(-1)?.index ?? 0;
    const now = text.replace('attr.name="description"', 'attr.name="descriptiox"');
    const common = [{ from: index, otherFrom: index + now.length - text.length, length: last - index }];
    const told = (after: string) => patchOf(GRAPH, was, text, after, common, () => 0);
    assert.equal(told(now), undefined);
    assert.deepEqual(told(text), { ...was, incrementalChecks: 1 });
  });
});
