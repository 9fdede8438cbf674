import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { TableName } from '../../../core/lightrag/facts.ts';
import { changeLine, emptiedAlarms, LOSS_SHARE, lossAlarms } from '../../../core/lightrag/loss.ts';
import { GraphStatsSchema } from '../../../gen/lightkeeper/v1/types_pb.ts';

type Stats = MessageInitShape<typeof GraphStatsSchema>;

function codes(before: Stats, after: Stats, share = LOSS_SHARE): string[] {
  const stats = (given: Stats) =>
    create(GraphStatsSchema, { documents: 100n, processed: 100n, entities: 100n, dimension: 8, ...given });
  return lossAlarms(stats(before), stats(after), { lossShare: share }).map(
    ({ code, object }) => `${code} ${object}`,
  );
}

describe('an alarm', () => {
  it('is raised when more than a share of documents or entities is lost', () => {
    assert.deepEqual(codes({}, {}), []);
    assert.deepEqual(codes({}, { documents: 75n }), []);
    assert.deepEqual(codes({}, { documents: 74n }), ['graph_shrunk documents']);
    assert.deepEqual(codes({}, { entities: 60n, documents: 200n }), ['graph_shrunk entities']);
    assert.deepEqual(codes({}, { entities: 60n }, 0.5), []);
    assert.deepEqual(codes({}, { entities: 90n }, 0.05), ['graph_shrunk entities']);
  });

  it('counts lost names, not the difference of totals', () => {
    const stats = create(GraphStatsSchema, { documents: 100n, entities: 100n });
    const told = lossAlarms(stats, stats, { lossShare: LOSS_SHARE, lost: { documents: 90, entities: 3 } });
    assert.deepEqual(
      told.map(({ message }) => message),
      ['90 of 100 documents are gone, 90 %'],
    );
  });

  it('is raised by an emptied graph', () => {
    const none = { documents: 0n, processed: 0n, entities: 0n };
    assert.deepEqual(codes({}, none), ['emptied documents', 'graph_emptied entities']);
    assert.deepEqual(codes({ processed: 1n }, { processed: 0n }), ['emptied documents']);
    assert.deepEqual(codes({ processed: 0n }, { ...none, entities: 100n }), ['graph_emptied documents']);
    assert.deepEqual(codes(none, none), []);
  });

  it('is raised by a directory without a graph that lost all files', () => {
    assert.deepEqual(
      [emptiedAlarms(3, 0), emptiedAlarms(3, 1), emptiedAlarms(0, 0)].map(([alarm]) => alarm?.code),
      ['emptied', undefined, undefined],
    );
  });

  it('is not raised by one deleted document of a few', () => {
    assert.deepEqual(codes({ documents: 2n }, { documents: 1n }), []);
  });

  it('is raised by a changed dimension, not by the first vectors', () => {
    assert.deepEqual(codes({}, { dimension: 16 }), ['dimension_changed vectors']);
    assert.deepEqual(codes({ dimension: 0 }, { dimension: 16 }), []);
    assert.deepEqual(codes({}, { dimension: 0 }), []);
  });
});

describe('the line about a change', () => {
  const tables = (given: Partial<Record<TableName, number[]>>) =>
    new Map(Object.entries(given).map(([name, list]) => [name as TableName, Float64Array.from(list)]));

  it('counts what came and went', () => {
    const before = tables({ documents: [1, 2], chunks: [1], nodes: [1, 2, 3] });
    const after = tables({ documents: [2, 5], chunks: [1], nodes: [1, 2, 3, 4], edges: [8, 9] });
    assert.equal(changeLine(before, after), '−1 +1 documents, +1 entity, +2 relations');
    assert.equal(changeLine(after, after), '');
    assert.equal(changeLine(tables({}), tables({ chunks: [1] })), '+1 chunk');
  });
});
