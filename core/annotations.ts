import type { SnapshotRecord } from '../gen/lightkeeper/index/v1/index_pb.ts';
import type {
  Acknowledged,
  Annotation,
  Damaged,
  Deleted,
  Forked,
  Graded,
  Measured,
  Pinned,
  Tagged,
} from '../gen/lightkeeper/store/v1/annotation_pb.ts';
import { hex, sameBytes } from './unit.ts';

/** What an annotation states. */
export type Fact = Annotation['fact'];

/** Kinds of facts. */
export type FactKind = Exclude<Fact['case'], undefined>;

interface FactTypes {
  readonly measured: Measured;
  readonly tagged: Tagged;
  readonly pinned: Pinned;
  readonly deleted: Deleted;
  readonly graded: Graded;
  readonly acknowledged: Acknowledged;
  readonly damaged: Damaged;
  readonly forked: Forked;
}

/**
 * Lists every kind of fact with the stores whose annotations count: `own` for what only the store itself can know,
 * `any` for what people said wherever they said it. Merging, rescue, prune and views loop over this list.
 */
export const FACT_SOURCES: Readonly<Record<FactKind, 'own' | 'any'>> = {
  measured: 'own',
  tagged: 'any',
  pinned: 'any',
  deleted: 'own',
  graded: 'own',
  acknowledged: 'any',
  damaged: 'own',
  forked: 'own',
};

/**
 * Adds an annotation to a record. Of each kind and store the highest counter holds, in whatever order they come.
 * Facts of kinds that this version does not know are dropped from the record; the packs still hold them.
 */
export function addAnnotation(record: SnapshotRecord, annotation: Annotation): void {
  const { case: kind } = annotation.fact;
  if (kind === undefined) return;
  const at = record.annotations.findIndex(
    (known) => known.fact.case === kind && sameBytes(known.storeId, annotation.storeId),
  );
  const known = record.annotations[at];
  if (known === undefined) {
    record.annotations.push(annotation);
    record.annotations.sort(byKindAndStore);
  } else if (annotation.counter >= known.counter) record.annotations[at] = annotation;
}

// In one order, so that equal facts make equal records.
function byKindAndStore(a: Annotation, b: Annotation): number {
  const [one, other] = [a, b].map(({ fact, storeId }) => `${fact.case} ${hex(storeId)}`);
  return (one ?? '') < (other ?? '') ? -1 : 1;
}

/** Reports whether an annotation is the one that holds for its kind and store. */
export function isCurrent(record: SnapshotRecord, { fact, storeId, counter }: Annotation): boolean {
  return record.annotations.some(
    (known) =>
      known.fact.case === fact.case && known.counter === counter && sameBytes(known.storeId, storeId),
  );
}

/** The facts of a record that count for one store, by kind; those of the store itself come first. */
export type FactsByKind = { readonly [Kind in FactKind]: readonly FactTypes[Kind][] };

/** Collects the facts of a record that count for the store `storeId`. */
export function factsOf({ annotations }: SnapshotRecord, storeId: Uint8Array): FactsByKind {
  const facts: Record<FactKind, unknown[]> = {
    measured: [],
    tagged: [],
    pinned: [],
    deleted: [],
    graded: [],
    acknowledged: [],
    damaged: [],
    forked: [],
  };
  for (const { fact, storeId: source } of annotations) {
    if (fact.case === undefined) continue;
    const isOwn = sameBytes(source, storeId);
    if (isOwn) facts[fact.case].unshift(fact.value);
    else if (FACT_SOURCES[fact.case] === 'any') facts[fact.case].push(fact.value);
  }
  return facts as FactsByKind;
}
