import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { clone, create, equals, type MessageInitShape } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { addAnnotation, FACT_SOURCES, factsOf, isCurrent } from '../../core/annotations.ts';
import { emptyRecord, snapshotState } from '../../core/snapshot.ts';
import { type SnapshotRecord, SnapshotRecordSchema } from '../../gen/lightkeeper/index/v1/index_pb.ts';
import {
  type Annotation,
  AnnotationSchema,
  ForkState_Value,
} from '../../gen/lightkeeper/store/v1/annotation_pb.ts';

const DIGEST = Uint8Array.from({ length: 32 }, (_, i) => i);
const OWN = new Uint8Array(16).fill(1);
const OTHER = new Uint8Array(16).fill(2);

type Fact = MessageInitShape<typeof AnnotationSchema>['fact'];

function annotation(counter: number, fact: Fact, storeId: Uint8Array = OWN): Annotation {
  const about = { digest: DIGEST, counter: BigInt(counter), storeId };
  return create(AnnotationSchema, fact === undefined ? about : { ...about, fact });
}

function recordOf(annotations: readonly Annotation[]): SnapshotRecord {
  const record = emptyRecord(DIGEST);
  for (const one of annotations) addAnnotation(record, one);
  return record;
}

const tags = fc.dictionary(fc.constantFrom('a', 'b', 'release'), fc.constantFrom('', '1', '2'));
const facts = fc.oneof(
  fc.boolean().map((pinned) => ({ case: 'pinned' as const, value: { pinned } })),
  tags.map((value) => ({ case: 'tagged' as const, value: { tags: value } })),
  fc.nat().map((ms) => ({ case: 'measured' as const, value: { durationMs: BigInt(ms) } })),
  fc.constant({ case: 'deleted' as const, value: { reason: 'x' } }),
  fc.constant({ case: 'acknowledged' as const, value: { reason: 'seen' } }),
  fc.nat().map((ms) => ({ case: 'graded' as const, value: { durationMs: BigInt(ms) } })),
);
/** Annotations of two stores, each of which counts its own. */
const history = fc
  .array(fc.tuple(facts, fc.constantFrom(OWN, OTHER)), { maxLength: 12 })
  .map((list) => list.map(([fact, storeId], counter) => annotation(counter, fact, storeId)));
/** The same annotations in another order, some of them read twice. */
const shuffled = history.chain((list) =>
  fc.tuple(
    fc.constant(list),
    fc.shuffledSubarray(list, { minLength: list.length }),
    fc.subarray(list).map((some) => some.map((one) => clone(AnnotationSchema, one))),
  ),
);

describe('a record of annotations', () => {
  it('is the same for any order and number of reads', () => {
    fc.assert(
      fc.property(shuffled, ([list, other, again]) => {
        const record = recordOf([...other, ...again]);
        assert.equal(equals(SnapshotRecordSchema, record, recordOf(list)), true);
      }),
      { numRuns: 500 },
    );
  });

  it('holds the newest of each kind and store, with its counter', () => {
    fc.assert(
      fc.property(history, (list) => {
        const record = recordOf(list);
        for (const one of list) {
          const rivals = list.filter(
            ({ fact, storeId }) => fact.case === one.fact.case && storeId[0] === one.storeId[0],
          );
          const isNewest = rivals.every(({ counter }) => counter <= one.counter);
          assert.equal(isCurrent(record, one), isNewest);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('ignores kinds that a newer version may know', () => {
    assert.deepEqual(recordOf([annotation(5, undefined)]), emptyRecord(DIGEST));
  });
});

describe('the facts of a snapshot in one store', () => {
  const one = (fact: Fact, storeId: Uint8Array) => recordOf([annotation(1, fact, storeId)]);
  const samples: Readonly<Record<keyof typeof FACT_SOURCES, Fact>> = {
    measured: { case: 'measured', value: { newUnits: 1 } },
    tagged: { case: 'tagged', value: { tags: { a: '1' } } },
    pinned: { case: 'pinned', value: { pinned: true } },
    deleted: { case: 'deleted', value: { reason: 'x' } },
    graded: { case: 'graded', value: {} },
    acknowledged: { case: 'acknowledged', value: { reason: 'x' } },
    damaged: { case: 'damaged', value: { damaged: true } },
    forked: { case: 'forked', value: { state: ForkState_Value.KEPT } },
  };

  it('are its own for what a store learns, and those of all stores for what people set', () => {
    for (const [kind, fact] of Object.entries(samples) as [keyof typeof FACT_SOURCES, Fact][]) {
      assert.equal(factsOf(one(fact, OWN), OWN)[kind].length, 1, kind);
      const expected = FACT_SOURCES[kind] === 'any' ? 1 : 0;
      assert.equal(factsOf(one(fact, OTHER), OWN)[kind].length, expected, kind);
    }
  });

  it('join the tags of all stores; its own value of a key wins', () => {
    const record = recordOf([
      annotation(9, { case: 'tagged', value: { tags: { a: 'theirs', b: '2' } } }, OTHER),
      annotation(1, { case: 'tagged', value: { tags: { a: 'own' } } }, OWN),
    ]);
    assert.deepEqual(snapshotState(record, OWN).tags, { a: 'own', b: '2' });
    assert.deepEqual(snapshotState(record, OTHER).tags, { a: 'theirs', b: '2' });
  });

  it('pin it if any store pins it, and delete it only in its own store', () => {
    const pinned = one({ case: 'pinned', value: { pinned: true } }, OTHER);
    assert.equal(snapshotState(pinned, OWN).pinned, true);
    const deleted = one({ case: 'deleted', value: { reason: '' } }, OTHER);
    assert.equal(snapshotState(deleted, OWN).deleted, false);
    assert.equal(snapshotState(deleted, OTHER).deleted, true);
  });

  it('never undo a deletion', () => {
    const state = snapshotState(
      recordOf([
        annotation(2, { case: 'deleted', value: { reason: '' } }),
        annotation(9, { case: 'pinned', value: { pinned: true } }),
        annotation(1, { case: 'deleted', value: { reason: '' } }),
      ]),
      OWN,
    );
    assert.equal(state.deleted, true);
  });

  it('hold the complete set of tags, as a copy', () => {
    const first = annotation(1, { case: 'tagged', value: { tags: { a: '1', b: '2' } } });
    const emptied = recordOf([first, annotation(2, { case: 'tagged', value: { tags: {} } })]);
    assert.deepEqual(snapshotState(emptied, OWN).tags, {});
    const { tags: held } = snapshotState(recordOf([first]), OWN);
    (held as Record<string, string>).a = 'changed';
    assert.deepEqual(snapshotState(recordOf([first]), OWN).tags, { a: '1', b: '2' });
  });
});
