import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { areVectorsPending, demandedRestMs, type RestWait } from '../../core/rest-demand.ts';

/** A wait beside a graph with a learned window of 20 s and gaps of 1 s. */
function demand(elapsedMs: number, more: Partial<RestWait> = {}): number {
  return demandedRestMs({
    elapsedMs,
    patienceMs: 5000,
    quietMs: 300,
    windowMs: 20_000,
    bestGapMs: 1000,
    isFlushing: false,
    isChecked: true,
    ...more,
  });
}

describe('the rest that a capture demands', () => {
  it('is the quiet window at first, then a longer gap than any seen, then such a gap, then less', () => {
    assert.deepEqual(
      [0, 2499].map((ms) => demand(ms)),
      [20_000, 20_000],
    );
    assert.deepEqual(
      [2500, 3749].map((ms) => demand(ms)),
      [1500, 1500],
    );
    assert.deepEqual(
      [3750, 4999].map((ms) => demand(ms)),
      [800, 800],
    );
    assert.deepEqual(
      [5000, 6249].map((ms) => demand(ms)),
      [300, 300],
    );
    assert.equal(demand(6250), 0);
  });

  it('is never above the window, and not below the shortest window while there is patience', () => {
    assert.equal(demand(3000, { windowMs: 600 }), 600);
    assert.equal(demand(3000, { bestGapMs: 100 }), 300);
    assert.equal(demand(3000, { bestGapMs: 0 }), 300);
    assert.equal(demand(5500, { bestGapMs: 100 }), 80);
  });

  it('is never below a long window that was asked for', () => {
    for (const ms of [0, 3000, 5500, 60_000])
      assert.equal(demand(ms, { quietMs: 9000, windowMs: 9000 }), 9000);
  });

  it('is nothing without a window', () => {
    assert.equal(demand(0, { quietMs: 0, isFlushing: true }), 0);
  });

  it('is the end of a visible flush, until patience ends', () => {
    assert.equal(demand(4999, { isFlushing: true }), Number.POSITIVE_INFINITY);
    assert.equal(demand(5000, { isFlushing: true }), 300);
  });

  it('is a whole shortest window, and no visible flush, where nothing checks the snapshot', () => {
    const isChecked = false;
    assert.equal(demand(5000, { isChecked }), 800);
    assert.equal(demand(9999, { isChecked, bestGapMs: 100 }), 300);
    assert.equal(demand(600_000, { isChecked }), 300);
    assert.equal(demand(600_000, { isChecked, isFlushing: true }), Number.POSITIVE_INFINITY);
  });
});

describe('the vectors of a flush', () => {
  const graph = 'graph_chunk_entity_relation.graphml';
  /** Files of a folder with the seconds of their last writes. */
  const pending = (times: Readonly<Record<string, number>>, sinceS = 0) =>
    areVectorsPending(
      Object.entries(times).map(([path, s]) => ({ path, size: 100, mtimeNs: BigInt(s) * 1_000_000_000n })),
      BigInt(sinceS) * 1_000_000_000n,
    );
  const whole = { 'kv_store_text_chunks.json': 10, [graph]: 20, 'vdb_chunks.json': 30 };

  it('are pending while the graph and the chunks are newer than they are', () => {
    assert.equal(pending({ ...whole, 'vdb_chunks.json': 5 }), true);
    assert.equal(pending(whole), false);
    const relations = { 'kv_store_relation_chunks.json': 15, 'vdb_relationships.json': 5 };
    assert.equal(pending({ ...whole, ...relations }), true);
    assert.equal(pending({ ...whole, ...relations, 'vdb_relationships.json': 40 }), false);
  });

  it('are pending in the first flush, before their files exist', () => {
    assert.equal(pending({ 'kv_store_text_chunks.json': 10, [graph]: 20 }), true);
    assert.equal(pending({ 'w/kv_store_entity_chunks.json': 10, [`w/${graph}`]: 20 }), true);
    assert.equal(pending({ 'kv_store_text_chunks.json': 10 }), false);
  });

  it('are not pending in versions that write the graph last', () => {
    assert.equal(pending({ 'kv_store_text_chunks.json': 10, 'vdb_chunks.json': 20, [graph]: 30 }), false);
  });

  it('are not pending after a change by hand, which writes no chunks', () => {
    assert.equal(pending({ ...whole, [graph]: 90 }), false);
  });

  it('are not pending if the graph is older than asked, or another store has them', () => {
    assert.equal(pending({ ...whole, 'vdb_chunks.json': 5 }, 21), false);
    const faiss = { 'kv_store_text_chunks.json': 10, [graph]: 20, 'faiss_index_chunks.index': 30 };
    assert.equal(pending(faiss), false);
  });

  it('are not pending for a file without records', () => {
    const files = [
      { path: 'kv_store_relation_chunks.json', size: 2, mtimeNs: 10n },
      { path: graph, size: 100, mtimeNs: 20n },
    ];
    assert.equal(areVectorsPending(files, 0n), false);
  });
});
