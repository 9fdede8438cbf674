import { createHash } from 'node:crypto';
import type { SnapshotRecord } from '../../gen/lightkeeper/index/v1/index_pb.ts';
import type { Annotation } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import type { FactKind } from '../annotations.ts';
import { hex, sameBytes } from '../unit.ts';

/** Kinds of facts that are sent to followers. Deletions are not: a stolen key must not destroy copies. */
const TRAVELLING: ReadonlySet<FactKind> = new Set(['tagged', 'pinned', 'acknowledged', 'graded']);
const FINGERPRINT_BYTES = 8;

/** Reports whether followers store facts of this kind. */
export function doesTravel(kind: FactKind): boolean {
  return TRAVELLING.has(kind);
}

/** Returns the annotations of a record that travel to or came from another store than `storeId`. */
export function travellingAnnotations(record: SnapshotRecord, storeId: Uint8Array): Annotation[] {
  return record.annotations.filter(
    ({ fact, storeId: source }) =>
      fact.case !== undefined && TRAVELLING.has(fact.case) && !sameBytes(source, storeId),
  );
}

/** Returns a fingerprint of annotations, whatever their order. Equal ones mean equal facts. */
export function factsFingerprint(annotations: readonly Annotation[]): Buffer {
  const names = annotations.map(({ fact, storeId, counter }) => `${fact.case} ${hex(storeId)} ${counter}`);
  const hash = createHash('sha256').update(names.sort().join('\n'));
  return hash.digest().subarray(0, FINGERPRINT_BYTES);
}
