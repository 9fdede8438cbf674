import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import { deflateSync } from 'node:zlib';
import type { FactSink } from '../../../core/lightrag/facts.ts';
import { MatrixRows } from '../../../core/lightrag/matrix.ts';
import { type VectorFile, VectorReader } from '../../../core/lightrag/vector-reader.ts';
import { random } from '../../../demo/random.ts';
import { feedIn, flawOf } from '../../support/chunks.ts';
import { lacksPython, readWithPython } from '../../support/python-readers.ts';

const ROWS = 2000;
const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);

/** A file of vectors: one row of floats for each seed. */
function file(dimension: number, seeds: readonly number[], spoil?: (matrix: Float32Array) => void): string {
  const floats = new Float32Array(seeds.length * dimension);
  for (const [row, seed] of seeds.entries()) {
    const draw = random(seed);
    for (let i = 0; i < dimension; i++) floats[row * dimension + i] = 1 + draw(1000);
  }
  spoil?.(floats);
  const rows = seeds.map((seed) => `{"__id__": "chunk-${seed}", "content": "x"}`);
  const matrix = Buffer.from(floats.buffer).toString('base64');
  return `{"embedding_dim": ${dimension}, "data": [${rows.join(', ')}], "matrix": "${matrix}"}`;
}

/** What a reader tells of a file; it passes over what it knows of an older state, if there is one. */
function read(text: string, older?: string, block = 997) {
  const told: { flaws: string[]; vectors: number[]; names: number } = { flaws: [], vectors: [], names: 0 };
  const facts: FactSink = {
    name: () => {
      told.names += 1;
    },
    flaw: (code, name) => void told.flaws.push(`${code} ${name}`),
    vectors: (...numbers) => void told.vectors.push(...numbers),
  };
  const reader = new VectorReader(facts, 'chunks');
  const matrixOf = (one: string) => one.slice(one.indexOf('"matrix": "') + 11, -2);
  const known = older === undefined ? '' : matrixOf(older);
  let passed = 0;
  for (let at = 0; at < text.length; at += block) {
    const part = text.slice(at, at + block);
    const was = part.includes('"') || part.length < block ? -1 : known.indexOf(part);
    if (was >= 0 && reader.skip(was, part.length)) passed += part.length;
    else reader.feed(Buffer.from(part));
  }
  reader.end();
  return { told, passed };
}

describe('a vector reader with known facts', () => {
  const seeds = Array.from({ length: ROWS }, (_, i) => i + 1);
  // Rows of 16 and 17 floats begin at a group of four characters only now and then, those of 24 always.
  for (const dimension of [16, 17, 24]) {
    const old = file(dimension, seeds);

    it(`skips unchanged rows and reports them as if read (dimension ${dimension})`, () => {
      const states = [
        seeds,
        [...seeds, 7001, 7002],
        seeds.with(1500, 9000),
        seeds.toSpliced(1200, 3),
        [...seeds.slice(0, 900), 8000, 8001, 8002, ...seeds.slice(900)],
      ];
      for (const state of states) {
        const now = file(dimension, state);
        for (const block of [997, 4096, 10_007]) {
          const { told, passed } = read(now, old, block);
          assert.deepEqual(told, read(now).told);
          assert.deepEqual(told.flaws, []);
          assert.equal(told.vectors[0], state.length);
          if (state === seeds) assert.equal(passed > old.length / 4, true);
        }
      }
    });

    it(`reports changed rows that are no vectors (dimension ${dimension})`, () => {
      const spoil = (matrix: Float32Array) => matrix.fill(Number.NaN, 1700 * dimension, 1701 * dimension);
      const now = file(dimension, seeds, spoil);
      const { told, passed } = read(now, old);
      assert.deepEqual(told.flaws, ['bad_vector row 1700']);
      assert.equal(passed > 0, true);
    });

    it(`reports a matrix of the wrong length in spite of skipped rows (dimension ${dimension})`, () => {
      const now = file(dimension, seeds);
      const at = now.indexOf('"matrix": "') + 11 + 80_000;
      for (const bad of [now.slice(0, at) + now.slice(at + 4), `${now.slice(0, at)}AAAA${now.slice(at)}`])
        assert.equal(
          flawOf(() => read(bad, old)),
          'malformed',
        );
      // Three rows are whole groups of four characters in every dimension.
      const rows = dimension * 16;
      for (const bad of [
        now.slice(0, at) + now.slice(at + rows),
        `${now.slice(0, at)}${'A'.repeat(rows)}${now.slice(at)}`,
      ])
        assert.equal(read(bad, old).told.flaws.includes('matrix_length matrix'), true);
    });
  }

  it('reads rows that do not align with the known ones', () => {
    const rows = Array.from({ length: ROWS }, () => 5);
    const now = file(16, rows);
    const reader = new VectorReader({ name: () => {}, flaw: () => {}, vectors: () => {} }, 'chunks');
    assert.equal(reader.skip(0, 100), false, 'nothing has been read yet');
    const at = now.indexOf('"matrix": "') + 11;
    reader.feed(Buffer.from(now.slice(0, at + 70_000)));
    assert.equal(reader.skip(70_000 - 4, 1000), false);
    assert.equal(reader.skip(70_000 + 1, 1000), false);
    assert.equal(reader.skip(70_000 - 256, 1000), true, 'three rows of 64 bytes before');
  });
});

/** Returns the flaws that a reader reports in a text, or how the text fails, whatever the chunks. */
function flawsOf(text: string, kind: VectorFile = 'entities'): string | string[] {
  const readings = [1, 7, 1 << 20].map((step) => {
    const flaws: string[] = [];
    const facts: FactSink = {
      name: () => {},
      flaw: (code, name) => void flaws.push(`${code} ${name}`),
      vectors: () => {},
    };
    return flawOf(() => feedIn(new VectorReader(facts, kind), Buffer.from(text), step)) ?? flaws;
  });
  for (const reading of readings) assert.deepEqual(reading, readings[0], text);
  return readings[0] ?? [];
}

const DIMENSION = 4;
const MATRIX = Buffer.from(Float32Array.from([1, 0, 0, 0, 0, 1, 0, 0]).buffer).toString('base64');
const ROWS_OF_TWO = ['a', 'b'].map(
  (name) => `{"__id__": "ent-${createHash('md5').update(name).digest('hex')}", "entity_name": "${name}"}`,
);
const DATA = `[${ROWS_OF_TWO.join(', ')}]`;

describe('a vector reader', () => {
  const accepted: readonly (readonly [what: string, text: string])[] = [
    ['keys in another order', `{"matrix": "${MATRIX}", "data": ${DATA}, "embedding_dim": ${DIMENSION}}`],
    ['a matrix before its rows', `{"embedding_dim": ${DIMENSION}, "matrix": "${MATRIX}", "data": ${DATA}}`],
    [
      'keys with escapes',
      `{"embedding\\u005fdim": ${DIMENSION}, "d\\u0061ta": ${DATA}, "\\u006datrix": "${MATRIX}"}`,
    ],
    [
      'unknown keys',
      `{"additional_data": {"data": [1]}, "x": [null], "embedding_dim": 4, "data": ${DATA}, "matrix": "${MATRIX}"}`,
    ],
    [
      'a matrix in lines',
      `{"embedding_dim": 4, "data": ${DATA}, "matrix": "${MATRIX.slice(0, 20)}\\n${MATRIX.slice(20)}"}`,
    ],
    [
      'an escaped slash',
      `{"embedding_dim": 4, "data": ${DATA}, "matrix": "${MATRIX.replaceAll('/', '\\/')}"}`,
    ],
    ['no rows', '{"embedding_dim": 4, "data": [], "matrix": ""}'],
    [
      'the last of two keys',
      `{"data": [], "matrix": "AAAA", "embedding_dim": 4, "data": ${DATA}, "matrix": "${MATRIX}"}`,
    ],
  ];
  for (const [what, text] of accepted) it(`accepts ${what}`, () => assert.deepEqual(flawsOf(text), []));

  it('refuses what nano_vectordb cannot load', () => {
    const file = (dimension: string, data: string, matrix: string) =>
      `{"embedding_dim": ${dimension}, "data": ${data}, "matrix": ${matrix}}`;
    const refused = [
      'null',
      '[]',
      '{}',
      '"text"',
      `{"embedding_dim": 4, "data": []}`,
      `{"embedding_dim": 4, "matrix": ""}`,
      `{"data": [], "matrix": ""}`,
      ...['4.0', '4e0', '"4"', 'null', 'true', '0', '-4', '[4]'].map((dimension) =>
        file(dimension, DATA, `"${MATRIX}"`),
      ),
      ...['null', '{}', '7', '"rows"'].map((data) => file('4', data, `"${MATRIX}"`)),
      ...['null', '7', '[]', '{}'].map((matrix) => file('4', DATA, matrix)),
      file('3', DATA, `"${MATRIX}"`),
      file('4', DATA, `"${MATRIX.slice(1)}"`),
      file('4', DATA, `"${MATRIX.slice(0, -1)}"`),
      file('4', DATA, `"${MATRIX.replace('A', '-')}"`),
      file('4', DATA, `"é${MATRIX}"`),
      file('4', DATA, `"${MATRIX}é"`),
      `\ufeff${file('4', DATA, `"${MATRIX}"`)}`,
    ];
    for (const text of refused) assert.equal(flawsOf(text), 'malformed', text);
  });

  it('refuses control characters in a long matrix, and ignores escaped ones', () => {
    const long = file(
      16,
      Array.from({ length: ROWS }, (_, i) => i + 1),
    );
    const at = long.indexOf('"matrix": "') + 11;
    const place = at + 100_000 - (100_000 % 4);
    const insert = (text: string) => `${long.slice(0, place)}${text}${long.slice(place)}`;
    const flawIn = (text: string) =>
      [997, 70_001, 1 << 22].map((step) => flawOf(() => read(text, undefined, step)) ?? 'none');
    for (const bad of ['\n', '\u0001', 'AAAA\u0000', '\\n\u0001', '=='.concat('\n')])
      assert.deepEqual(new Set(flawIn(insert(bad))), new Set(['malformed']), JSON.stringify(bad));
    for (const good of ['\\n', '\\u0001', '*', ' '])
      assert.deepEqual(new Set(flawIn(insert(good))), new Set(['none']), good);
    assert.deepEqual(read(insert('\\r\\n')).told.flaws, []);
  });

  it('reports a matrix with more or fewer rows', () => {
    const rows = (data: readonly string[]) =>
      flawsOf(`{"embedding_dim": 4, "data": [${data.join(', ')}], "matrix": "${MATRIX}"}`);
    assert.deepEqual(rows(ROWS_OF_TWO.slice(1)), ['matrix_length matrix']);
    assert.deepEqual(flawsOf(`{"matrix": "", "embedding_dim": 4, "data": ${DATA}}`), [
      'matrix_length matrix',
    ]);
  });

  it('reports rows without an id or a name', () => {
    const rows = (kind: VectorFile, ...data: readonly string[]) =>
      flawsOf(`{"embedding_dim": 4, "data": [${data.join(', ')}], "matrix": "${MATRIX}"}`, kind);
    assert.deepEqual(rows('entities', 'null', '[["__id__"]]'), [
      'row_without_id row 0',
      'row_without_id row 1',
    ]);
    assert.deepEqual(rows('chunks', '"x"', '7'), ['row_without_id row 0', 'row_without_id row 1']);
    assert.deepEqual(rows('chunks', '{"content": "x"}', '{"__id__": null}'), [
      'row_without_id row 0',
      'row_without_id row 1',
    ]);
    assert.deepEqual(rows('entities', '{"__id__": "x"}', '{"__id__": "y", "entity_name": null}'), [
      'row_without_name x',
      'row_without_name y',
    ]);
    assert.deepEqual(
      rows('relationships', '{"__id__": "x", "src_id": "a"}', '{"__id__": "y", "tgt_id": "b"}'),
      ['row_without_name x', 'row_without_name y'],
    );
    assert.deepEqual(rows('chunks', `{"__id__": "${'x'.repeat(70_000)}"}`, '{"__id__": "y"}'), []);
  });

  it('reports a vector that differs from the matrix, and none that cannot be decoded', () => {
    const halves = (...numbers: number[]) =>
      deflateSync(Buffer.from(Uint16Array.from(numbers).buffer)).toString('base64');
    const [one, zero] = [0x3c00, 0];
    const same = halves(one, zero, zero, zero);
    const rows = (vector: string) => {
      const row = `{"__id__": "x", "vector": ${vector}}`;
      return flawsOf(
        `{"embedding_dim": 4, "data": [${row}, {"__id__": "y"}], "matrix": "${MATRIX}"}`,
        'chunks',
      );
    };
    assert.deepEqual(rows(`"${halves(zero, one, zero, zero)}"`), ['vector_mismatch x']);
    const harmless = [
      `"${same}"`,
      `"${same.slice(0, 9)}"`,
      '""',
      '"?"',
      'null',
      '[1, 0]',
      `"${halves(one)}"`,
    ];
    for (const vector of harmless) assert.deepEqual(rows(vector), [], vector);
  });

  it(`decodes a matrix as Python does (seed ${SEED})`, { skip: lacksPython() }, () => {
    const draw = random(SEED);
    const odd = ['=', '==', '-', '_', ' ', '*', '\u007f', 'é', 'A', 'AA', '/+', '==A', '= ='];
    const inputs = Array.from({ length: 3000 }, () => {
      let text = Buffer.from(Uint8Array.from({ length: draw(40) }, () => draw(256))).toString('base64');
      for (let changes = draw(4); changes > 0; changes--) {
        const at = draw(text.length + 1);
        text = text.slice(0, at) + odd[draw(odd.length)] + text.slice(at + draw(2));
      }
      return Buffer.from(text);
    });
    for (const [i, wanted] of readWithPython('matrix', inputs).entries()) {
      const bytes = inputs[i] as Buffer;
      const matrix = new MatrixRows(1, () => {});
      const length = 1 + draw(5);
      let rows: number | undefined;
      flawOf(() => {
        for (let at = 0; at < bytes.length; at += length) matrix.feed(bytes.subarray(at, at + length));
        rows = matrix.rowsOf(1);
      });
      const whole =
        'value' in wanted && Number(wanted.value) % 4 === 0 ? Number(wanted.value) / 4 : undefined;
      assert.equal(rows, whole, `${bytes}: ${JSON.stringify(wanted)}`);
    }
  });
});
