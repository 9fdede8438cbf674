import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type ChangedFile,
  learnNothing,
  learnPauses,
  learnTorn,
  QUIET_MAX_MS,
  quietWindowMs,
  windowBefore,
} from '../../core/quiet.ts';
import type { QuietRecord } from '../../gen/lightkeeper/index/v1/index_pb.ts';

/** Files with the milliseconds at which they changed. */
function at(times: Readonly<Record<string, number>>): ChangedFile[] {
  return Object.entries(times).map(([path, ms]) => ({ path, ctimeNs: BigInt(ms) * 1_000_000n }));
}

function learned(...commits: Readonly<Record<string, number>>[]): QuietRecord {
  let record: QuietRecord | undefined;
  for (const commit of commits) record = learnPauses(record, at(commit));
  assert.notEqual(record, undefined);
  return record as QuietRecord;
}

describe('the quiet window', () => {
  it('is the configured one at first, and 0 stays 0', () => {
    assert.equal(quietWindowMs(300, undefined), 300);
    const record = learned({ a: 0, b: 2000 });
    assert.equal(quietWindowMs(0, record), 0);
    assert.equal(quietWindowMs(60_000, record), 60_000);
  });

  it('is four times the longest pause between files that changed together', () => {
    const record = learned({ kv_store_full_docs: 0, vdb_chunks: 40, 'graph.graphml': 240 });
    assert.deepEqual(record.pausesMs.map(Number), [200]);
    assert.equal(quietWindowMs(300, record), 800);
  });

  it('is thirty seconds at most, and longer pauses are ignored', () => {
    assert.equal(quietWindowMs(300, learned({ a: 0, b: 7500 })), QUIET_MAX_MS);
    assert.equal(quietWindowMs(300, learned({ a: 0, b: 7501 })), 300);
  });

  it('learns from a flush split over two commits', () => {
    const record = learned({ a: 0, b: 10 }, { c: 1510, d: 1520 });
    assert.deepEqual(record.pausesMs.map(Number), [10, 1500]);
    assert.equal(quietWindowMs(300, record), 6000);
  });

  it('learns nothing from the time between two flushes', () => {
    assert.deepEqual(learned({ a: 0, b: 10 }, { a: 5000, b: 5010 }).pausesMs.map(Number), [10, 10]);
    // The parts of one flush count together: what comes next shares a file with them.
    assert.deepEqual(learned({ a: 0 }, { b: 100 }, { a: 3000 }).pausesMs.map(Number), [0, 100, 0]);
  });

  it('leaves out what LightRAG writes between flushes', () => {
    const cache = 'w/kv_store_llm_response_cache.json';
    assert.deepEqual(
      learned({ a: 0, b: 10, [cache]: 2000, 'kv_store_doc_status.json': 4000 }).pausesMs.map(Number),
      [10],
    );
    assert.deepEqual(learned({ a: 0, b: 10 }, { [cache]: 2000 }).pausesMs.map(Number), [10]);
  });

  it('forgets an odd flush after twenty others', () => {
    const commits = Array.from({ length: 20 }, (_, i) => ({ a: 10_000 * i, b: 10_000 * i + 5 }));
    const record = learned({ a: -9000, b: -4000 }, ...commits);
    assert.deepEqual(
      record.pausesMs.map(Number),
      Array.from({ length: 20 }, () => 5),
    );
  });

  it('grows after a torn snapshot, without learning its pauses', () => {
    const [whole, torn] = [Buffer.from('whole'), Buffer.from('torn')];
    const first = learnPauses(undefined, at({ a: 0, b: 100 }), whole);
    const second = learnPauses(first, at({ a: 0, b: 5000 }), torn);
    assert.equal(quietWindowMs(300, second), 20_000);
    assert.equal(windowBefore(300, second, torn), 400);
    const learnt = learnTorn(second, torn, windowBefore(300, second, torn));
    assert.deepEqual(learnt.pausesMs.map(Number), [100, 400]);
    assert.equal(quietWindowMs(300, learnt), 1600);
    const again = learnTorn(learnt, Buffer.from('a commit that taught nothing'), 1600);
    assert.deepEqual(again.pausesMs.map(Number), [100, 400, 1600]);
    assert.equal(quietWindowMs(300, learnTorn(again, Buffer.from('next'), 30_000)), QUIET_MAX_MS);
    assert.deepEqual(learnTorn(undefined, torn, 300).pausesMs.map(Number), [300]);
  });

  it('learns no pause in which embeddings are computed', () => {
    const graph = 'graph_chunk_entity_relation.graphml';
    const flush = {
      'kv_store_text_chunks.json': 0,
      [graph]: 40,
      'vdb_chunks.json': 3040,
      'vdb_entities.json': 5040,
    };
    assert.deepEqual(learned(flush).pausesMs.map(Number), [40]);
    // Older versions write the graph last: their pauses are those of writes.
    const older = { 'kv_store_text_chunks.json': 0, 'vdb_chunks.json': 700, [graph]: 900 };
    assert.deepEqual(learned(older).pausesMs.map(Number), [700]);
    // The same if a commit was taken in that pause.
    const split = learned({ 'kv_store_text_chunks.json': 0, [graph]: 40 }, { 'vdb_chunks.json': 3040 });
    assert.deepEqual(split.pausesMs.map(Number), [40, 0]);
  });

  it('learns nothing from a commit before its end, nor from the time until the next one', () => {
    const first = learned({ a: 0, b: 10 });
    const early = learnNothing(first);
    assert.deepEqual(early.pausesMs.map(Number), [10]);
    const next = learnPauses(early, at({ c: 2000, d: 2020 }));
    assert.deepEqual(next.pausesMs.map(Number), [10, 20]);
    assert.deepEqual(learnNothing(undefined).pausesMs, []);
  });

  it('ignores a clock that was set back and a crowd of files', () => {
    assert.deepEqual(learned({ a: 1000 }, { b: 0 }).pausesMs.map(Number), [0, 0]);
    const crowd = Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`f${i}`, i * 100]));
    assert.deepEqual(learned({ a: 0, b: 7 }, crowd).pausesMs.map(Number), [7]);
  });
});
