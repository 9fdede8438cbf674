import { toBinary } from '@bufbuild/protobuf';
import { FACT_SOURCES, type FactKind } from '../../../core/annotations.ts';
import type { LightkeeperError } from '../../../core/errors.ts';
import { COUNTER_END, parseAnnotation, parseManifest, parsePosition } from '../../../core/manifest.ts';
import { isBeyond, positionEntry } from '../../../core/position.ts';
import { hex, sameBytes, sha256 } from '../../../core/unit.ts';
import type { SnapshotRecord } from '../../../gen/lightkeeper/index/v1/index_pb.ts';
import type { Annotation } from '../../../gen/lightkeeper/store/v1/annotation_pb.ts';
import {
  type Manifest,
  type PositionEntry,
  PositionEntrySchema,
} from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { checkOfPeer, peerInvalid } from './check-frame.ts';

/** Most annotations and positions of one call. */
const RECORDS_MAX = 100_000;

/** Most annotations of one snapshot, in one call and from other stores in all. */
const ANNOTATIONS_OF_SNAPSHOT_MAX = 256;

/** Positions and annotations as a peer sent them. */
export interface RecordBytes {
  readonly positions: readonly Uint8Array[];
  readonly annotations: readonly Uint8Array[];
}

/** A message as it was sent, and as it was parsed. */
export interface Received<T> {
  readonly bytes: Uint8Array;
  readonly value: T;
}

/** A manifest as it was sent, with its digest. */
export interface ReceivedManifest extends Received<Manifest> {
  readonly digest: Buffer;
  readonly position: PositionEntry;
}

/** Facts that travel. Grades travel as hints. */
function travels(kind: FactKind): boolean {
  return FACT_SOURCES[kind] === 'any' || kind === 'graded';
}

function parsed<T>(what: string, parse: (bytes: Uint8Array) => T, bytes: Uint8Array): Received<T> {
  return { bytes, value: checkOfPeer(what, () => parse(bytes)) };
}

/** Parses a manifest. PEER_INVALID if it is out of bounds, or has no place in a history. */
export function receiveManifest(bytes: Uint8Array): ReceivedManifest {
  const { value } = parsed('a manifest', parseManifest, bytes);
  if (value.sequence === 0n) throw peerInvalid('a manifest', 'its snapshot has no place in the history');
  const digest = sha256(bytes);
  return { bytes, value, digest, position: positionEntry(value, digest) };
}

/** Parses positions. PEER_INVALID if one is out of bounds. */
export function receivePositions(positions: readonly Uint8Array[]): Received<PositionEntry>[] {
  if (positions.length > RECORDS_MAX) throw peerInvalid('positions', `there are ${positions.length}`);
  return positions.map((bytes) => {
    const one = parsed('a position', parsePosition, bytes);
    if (one.value.sequence === 0n) throw peerInvalid('a position', 'it has no place in the history');
    return one;
  });
}

/** Adds the position of the manifest itself unless it is there. PEER_INVALID for one beyond it or of another graph. */
export function positionsUpTo(
  positions: readonly Received<PositionEntry>[],
  { position }: ReceivedManifest,
): Received<PositionEntry>[] {
  const own = toBinary(PositionEntrySchema, position);
  let isListed = false;
  for (const { value } of positions) {
    if (value.graphId !== position.graphId) throw peerInvalid('a position', 'it belongs to another graph');
    if (sameBytes(value.digest, position.digest)) {
      isListed = true;
      if (!sameBytes(toBinary(PositionEntrySchema, value), own))
        throw peerInvalid('a position', 'it is not that of its manifest');
    } else if (isBeyond(value, position)) throw peerInvalid('a position', 'it lies after its snapshot');
  }
  return isListed ? [...positions] : [...positions, { bytes: own, value: position }];
}

/** Parses annotations. PEER_INVALID for one that is out of bounds or does not travel. */
export function receiveAnnotations(annotations: readonly Uint8Array[]): Received<Annotation>[] {
  if (annotations.length > RECORDS_MAX) throw peerInvalid('annotations', `there are ${annotations.length}`);
  const counts = new Map<string, number>();
  return annotations.map((bytes) => {
    const one = parsed('an annotation', parseAnnotation, bytes);
    const { fact, counter, digest } = one.value;
    const count = (counts.get(hex(digest)) ?? 0) + 1;
    counts.set(hex(digest), count);
    if (count > ANNOTATIONS_OF_SNAPSHOT_MAX) throw tooMany();
    if (fact.case === undefined || !travels(fact.case))
      throw peerInvalid('an annotation', `one of kind ${fact.case ?? 'unknown'} does not travel`);
    if (counter < 1n || counter >= COUNTER_END)
      throw peerInvalid('an annotation', `its counter is ${counter}`);
    return one;
  });
}

/** Reports whether a record has the annotation or a newer one. PEER_INVALID for a new one in the name of `storeId`. */
// The own annotations may come back from a peer that followed this store. New ones would be forged.
export function isKnownAnnotation(
  record: SnapshotRecord | undefined,
  { fact, storeId, counter }: Annotation,
  ownStoreId: Uint8Array,
): boolean {
  const known = record?.annotations.find(
    (one) => one.fact.case === fact.case && sameBytes(one.storeId, storeId),
  );
  if (known !== undefined && known.counter >= counter) return true;
  if (sameBytes(storeId, ownStoreId)) throw peerInvalid('an annotation', 'it claims to be of this store');
  // One in the place of an older one adds nothing.
  if (known === undefined && (record?.annotations.length ?? 0) >= ANNOTATIONS_OF_SNAPSHOT_MAX)
    throw tooMany();
  return false;
}

function tooMany(): LightkeeperError {
  return peerInvalid('an annotation', `its snapshot has more than ${ANNOTATIONS_OF_SNAPSHOT_MAX}`);
}
