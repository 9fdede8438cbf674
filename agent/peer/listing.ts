import { create, toBinary } from '@bufbuild/protobuf';
import { factsFingerprint, travellingAnnotations } from '../../core/following/facts.ts';
import { capturedMs } from '../../core/manifest.ts';
import { epochOf } from '../../core/position.ts';
import { gradeOf, isOnLine, isUsable, type SnapshotState, type StoredSnapshot } from '../../core/snapshot.ts';
import { AnnotationSchema } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  type ListedSnapshot,
  ListedSnapshotSchema,
  type SnapshotOffer,
  SnapshotOfferSchema,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import type { Store } from '../store/store.ts';

/** Most bytes of a manifest that is offered, and of the annotations beside it. */
export const OFFERED_MANIFEST_BYTES_MAX = 2 << 20;
export const OFFERED_ANNOTATIONS_BYTES_MAX = 1 << 20;

/** Bytes of an entry of the list without its tags, about. */
const LISTED_BYTES = 120;
/** Most bytes of the tags of an entry. More are left out of the list; the offer has them. */
const LISTED_TAG_BYTES_MAX = 64 << 10;

/** Reports whether a snapshot is offered to followers: it is stored and has a place in the line of the head. */
export function isOffered(state: SnapshotState): state is StoredSnapshot {
  return isOnLine(state) && state.manifest.sequence > 0n;
}

/** Returns a snapshot as a source lists it for the follower whose store is `followerStoreId`. */
export function listedSnapshot(snapshot: StoredSnapshot, followerStoreId: Uint8Array): ListedSnapshot {
  const { manifest, digest, pinned, tags, measured } = snapshot;
  return create(ListedSnapshotSchema, {
    digest,
    epoch: epochOf(manifest).number,
    sequence: manifest.sequence,
    capturedMs: BigInt(Math.max(0, capturedMs(manifest))),
    grade: gradeOf(snapshot),
    usable: isUsable(snapshot),
    pinned,
    tags: tagBytes(tags) > LISTED_TAG_BYTES_MAX ? {} : { ...tags },
    storedBytes: measured?.storedBytes ?? 0n,
    facts: factsFingerprint(travellingAnnotations(snapshot.record, followerStoreId)),
  });
}

/** Returns the bytes of an entry of the list of snapshots, about. */
export function listedBytes({ tags }: ListedSnapshot): number {
  return LISTED_BYTES + tagBytes(tags);
}

function tagBytes(tags: Readonly<Record<string, string>>): number {
  return Object.entries(tags).reduce((sum, [key, value]) => sum + Buffer.byteLength(key + value) + 8, 0);
}

/** Returns the offer of a snapshot: its manifest as stored, and the facts that travel. */
export async function offerOf(
  store: Store,
  snapshot: StoredSnapshot,
  followerStoreId: Uint8Array,
): Promise<SnapshotOffer> {
  return create(SnapshotOfferSchema, {
    manifest: await store.readUnit(snapshot.manifestUnitId, UnitKind_Value.MANIFEST),
    annotations: annotationsOf(snapshot, followerStoreId),
    listed: listedSnapshot(snapshot, followerStoreId),
  });
}

/** Returns the facts of a snapshot that travel, encoded, as far as they fit into one message. */
export function annotationsOf(snapshot: SnapshotState, followerStoreId: Uint8Array): Uint8Array[] {
  const encoded: Uint8Array[] = [];
  let bytes = 0;
  for (const annotation of travellingAnnotations(snapshot.record, followerStoreId)) {
    const one = toBinary(AnnotationSchema, annotation);
    bytes += one.length;
    if (bytes <= OFFERED_ANNOTATIONS_BYTES_MAX) encoded.push(one);
  }
  return encoded;
}
