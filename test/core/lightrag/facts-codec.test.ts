import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { GraphCheck, isGraphFile } from '../../../core/lightrag/check.ts';
import { TABLES, type TableName } from '../../../core/lightrag/facts.ts';
import {
  decodeFacts,
  encodeFacts,
  type FileFacts,
  type StoredFacts,
  tableChange,
} from '../../../core/lightrag/facts-codec.ts';
import { generate } from '../../../demo/generate.ts';
import { feedIn } from '../../support/chunks.ts';

const place = mkdtempSync(join(tmpdir(), 'lightkeeper-noted-'));
after(() => rmSync(place, { recursive: true }));
await generate(place, { seed: 5, documents: 6, dimension: 16 });
type Files = ReadonlyMap<string, Buffer>;
const WHOLE: Files = new Map(
  readdirSync(place)
    .filter(isGraphFile)
    .map((name) => [name, readFileSync(join(place, name))]),
);

function facts(tables: Partial<Record<TableName, number[]>>, more: Partial<FileFacts> = {}): FileFacts {
  const sorted = Object.entries(tables).map(
    ([name, numbers]) => [name as TableName, Float64Array.from(new Set(numbers)).sort()] as const,
  );
  return {
    tables: new Map(sorted),
    repeated: new Map(),
    flaws: [],
    vectors: 0,
    dimension: 0,
    matrixAt: 0,
    incrementalChecks: 0,
    names: [],
    ...more,
  };
}

/** Tables as lists; those without numbers are left out, as they are when they are noted. */
function listed({ tables }: FileFacts): Record<string, readonly number[]> {
  const entries = [...tables].map(([name, numbers]) => [name, [...numbers]] as const);
  return Object.fromEntries(entries.filter(([, numbers]) => numbers.length > 0));
}

const numbers = fc.array(fc.nat({ max: 60 }), { maxLength: 50 });
const tables = fc.record({ nodes: numbers, edges: numbers, chunks: numbers });

describe('facts of a file', () => {
  it('survive encoding through a hundred states', () => {
    fc.assert(
      fc.property(fc.array(tables, { minLength: 1, maxLength: 100 }), (states) => {
        const stored: Buffer[] = [];
        let noted: StoredFacts | undefined;
        let chain: Buffer[] = [];
        for (const state of states) {
          const is = facts(state, { vectors: state.nodes.length });
          const { units, stored: next } = encodeFacts(is, noted);
          stored.push(...units);
          chain = next.parts === units.length ? units : [...chain, ...units];
          const back = decodeFacts(chain);
          assert.deepEqual(listed(back.facts), listed(is));
          assert.equal(back.facts.vectors, state.nodes.length);
          assert.deepEqual(
            [back.lastId, back.parts, back.firstParts],
            [next.lastId, next.parts, next.firstParts],
          );
          noted = back;
        }
      }),
      { numRuns: 60 },
    );
  });

  it('take a few bytes for one changed name of a hundred thousand', () => {
    const many = Array.from({ length: 100_000 }, (_, i) => i * 7);
    const first = encodeFacts(facts({ nodes: many }), undefined);
    assert.equal(first.units.length > 5, true);
    assert.equal(
      first.units.every(({ length }) => length < 140_000),
      true,
    );
    const second = encodeFacts(facts({ nodes: [...many, 3] }), decodeFacts(first.units));
    assert.equal(second.units.length, 1);
    assert.equal((second.units[0]?.length ?? 0) < 100, true);
    assert.equal(decodeFacts([...first.units, ...second.units]).facts.tables.get('nodes')?.length, 100_001);
  });

  it('are encoded in full when most has changed, and after many small changes', () => {
    const { units, stored } = encodeFacts(facts({ nodes: [1, 2, 3] }), undefined);
    assert.equal(encodeFacts(facts({ nodes: [7, 8, 9] }), stored).stored.parts, 1);
    let last = decodeFacts(units);
    const nodes = Array.from({ length: 1000 }, (_, i) => i);
    let longest = 0;
    for (let i = 0; i < 200; i++) {
      last = encodeFacts(facts({ nodes: [...nodes, 5000 + i] }), last).stored;
      longest = Math.max(longest, last.parts);
    }
    assert.equal(longest, 65);
  });

  it('are refused from units that form no chain', () => {
    const many = Array.from({ length: 50_000 }, (_, i) => i);
    const { units } = encodeFacts(facts({ nodes: many }), undefined);
    const [a, b, ...rest] = units as [Buffer, Buffer, ...Buffer[]];
    for (const bad of [[], [b, a, ...rest], [a, ...rest], units.slice(1), [Buffer.from([0xff])]])
      assert.throws(() => decodeFacts(bad), { code: 'DAMAGED' });
  });
});

describe('a table of facts', () => {
  it('is the one before plus what came, less what went', () => {
    fc.assert(
      fc.property(numbers, numbers, (a, b) => {
        const sorted = (list: number[]) => Float64Array.from(new Set(list)).sort();
        const { added, removed } = tableChange(sorted(a), sorted(b));
        const made = new Set(a);
        for (const number of removed) assert.equal(made.delete(number), true);
        for (const number of added) {
          assert.equal(made.has(number), false);
          made.add(number);
        }
        assert.deepEqual(made, new Set(b));
      }),
    );
  });
});

/** Checks files; those whose facts are given are not read, unless for names. */
function check(files: Files, known: ReadonlyMap<string, FileFacts> = new Map()) {
  const graph = new GraphCheck();
  for (const [name, bytes] of files) {
    const noted = known.get(name);
    if (noted !== undefined) graph.reuse(name, noted);
    else {
      feedIn(graph.reader(name), bytes);
      graph.finished(name);
    }
  }
  const again: string[] = [];
  for (let names = graph.compare(); names.length > 0; names = graph.compare()) {
    for (const name of names) feedIn(graph.rereader(name), files.get(name) ?? assert.fail(name));
    again.push(...names);
  }
  const noted = new Map<string, FileFacts>();
  for (const name of files.keys()) {
    const { units } = encodeFacts(graph.facts(name) ?? assert.fail(name), undefined);
    noted.set(name, decodeFacts(units).facts);
  }
  return { found: { findings: graph.findings(), stats: graph.stats }, noted, again };
}

/** A file without its n-th record, or row, or node. */
function without(name: string, n: number): Buffer {
  const bytes = WHOLE.get(name) ?? assert.fail(name);
  if (name.endsWith('.graphml')) {
    const nodes = [...bytes.toString().matchAll(/<node [^>]*>[\s\S]*?<\/node>/g)];
    return Buffer.from(bytes.toString().replace(nodes[n % nodes.length]?.[0] ?? '', ''));
  }
  const value = JSON.parse(bytes.toString()) as Record<string, unknown>;
  if (name.startsWith('vdb_')) (value.data as unknown[]).splice(n % 3, 1);
  else delete value[Object.keys(value)[n % Object.keys(value).length] ?? ''];
  return Buffer.from(JSON.stringify(value));
}

describe('a check with known facts', () => {
  const whole = check(WHOLE);

  it('finds nothing in a whole directory, without reading it', () => {
    const again = check(WHOLE, whole.noted);
    assert.deepEqual(again.found, whole.found);
    assert.deepEqual(again.found.findings, []);
  });

  it('finds in each state what a full read finds', () => {
    for (const name of WHOLE.keys()) {
      for (let n = 0; n < 3; n++) {
        const files = new Map(WHOLE).set(name, without(name, n));
        const read = check(files);
        const known = new Map(whole.noted);
        known.delete(name);
        assert.deepEqual(check(files, known).found, read.found, `${name} ${n}`);
        const knowing = check(files, read.noted);
        assert.deepEqual(knowing.found, read.found, `${name} ${n}, all known`);
        // Which names an open document lists is looked up each time.
        const names = ['kv_store_full_entities.json', 'kv_store_full_relations.json'];
        const again = knowing.again.filter((path) => !names.includes(path));
        assert.deepEqual(again, [], 'the names were noted');
      }
    }
  });

  it('collects every table of every file', () => {
    const text = (name: string) => String(WHOLE.get(name));
    const [status, graph] = ['kv_store_doc_status.json', 'graph_chunk_entity_relation.graphml'];
    const { noted } = check(
      new Map(WHOLE)
        .set(status, Buffer.from(text(status).replace('"processed"', '"failed"')))
        .set(
          graph,
          Buffer.from(
            text(graph).replaceAll(/>(?:person|organization|location|concept|event)</gi, '>UNKNOWN<'),
          ),
        ),
    );
    const tables = [...noted.values()].flatMap((one) => [...one.tables].filter(([, all]) => all.length > 0));
    assert.deepEqual(tables.map(([name]) => name).sort(), [...TABLES].sort());
  });
});
