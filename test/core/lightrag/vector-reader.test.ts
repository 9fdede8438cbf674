import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { FactSink } from '../../../core/lightrag/facts.ts';
import { VectorReader } from '../../../core/lightrag/vector-reader.ts';
import { random } from '../../../demo/random.ts';

const ROWS = 2000;

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
      for (const bad of [now.slice(0, at) + now.slice(at + 4), `${now.slice(0, at)}AAAA${now.slice(at)}`]) {
        const { told } = read(bad, old);
        assert.equal(told.flaws.includes('matrix_length matrix'), true);
      }
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
