import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { addAnnotation } from '../../../core/annotations.ts';
import { must } from '../../../core/assert.ts';
import { LightkeeperError } from '../../../core/errors.ts';
import { snapshotIdOf } from '../../../core/manifest.ts';
import { emptyRecord, isStored, type StoredSnapshot, snapshotState } from '../../../core/snapshot.ts';
import { hex, sameBytes, unitId } from '../../../core/unit.ts';
import {
  type Annotation,
  AnnotationSchema,
  MeasuredSchema,
} from '../../../gen/lightkeeper/store/v1/annotation_pb.ts';
import type { PositionEntry } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { PackKind_Value, UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { now } from '../../../host/clock.ts';
import type { PackWriter } from '../../pack/writer.ts';
import { enterPublishedPack, markRecovered } from '../enter-pack.ts';
import { recordKey } from '../index/keys.ts';
import { enterPositions } from '../index/reconcile.ts';
import { annotationFrame, encodeProvenFrame } from '../meta-writer.ts';
import type { Store } from '../store.ts';
import { peerInvalid } from './check-frame.ts';
import { bytesOf, newPositions, publishRecords } from './commit-records.ts';
import type { ReceivedPacks } from './received-packs.ts';
import { isKnownAnnotation, type Received, type ReceivedManifest } from './received-records.ts';
import type { SnapshotWalk } from './snapshot-walk.ts';

/** Most missing units that an error names. */
const MISSING_NAMED_MAX = 20;
/** Most positions or annotations of one frame. */
const RECORDS_PER_FRAME = 1000;

/** What the frames since the last commit cost. */
export interface Cost {
  /** Bytes of the published packs. */
  storedBytes: number;
  /** Original bytes of the new units. */
  newBytes: number;
  newUnits: number;
}

/** What a commit of a received snapshot works with. */
export interface CommitParts {
  readonly store: Store;
  readonly packs: ReceivedPacks;
  readonly walk: SnapshotWalk;
  readonly cost: Readonly<Cost>;
}

/** A received snapshot whose records were checked. */
export interface CheckedSnapshot {
  readonly manifest: ReceivedManifest;
  readonly positions: readonly Received<PositionEntry>[];
  readonly annotations: readonly Received<Annotation>[];
  readonly durationMs: number;
}

/** Enters the received packs that are durable into the index. Runs inside `Store.exclusively`. */
export async function enterReceived(store: Store, packs: ReceivedPacks): Promise<void> {
  for (const pack of [...packs.published]) {
    const published = must(pack.published, 'a published pack');
    // A collection of garbage may have removed an older pack of the same name meanwhile.
    const head = await store.packs.head(hex(published.packId));
    if (head?.size !== published.size) {
      packs.lose(pack);
      continue;
    }
    const batch = store.index.batch();
    const number = await enterPublishedPack(store, published, batch);
    await store.index.write('index:pack', batch);
    await markRecovered(store, number);
    packs.forget(pack);
  }
}

/**
 * Commits a snapshot after all its data packs. The packs of its file bytes are in the index. Runs inside
 * `Store.exclusively`.
 */
// Publishing the meta pack with the manifest is the commit. The index follows.
export async function commitSnapshot(parts: CommitParts, snapshot: CheckedSnapshot): Promise<StoredSnapshot> {
  const { store, packs, walk } = parts;
  const { manifest, annotations } = snapshot;
  const { storeId } = store.config;
  const state = await store.index.known(manifest.digest);
  const known = state?.record;
  if (state?.deleted === true) {
    const id = snapshotIdOf(manifest.digest);
    throw new LightkeeperError('REFUSED', `Cannot store snapshot "${id}": it was deleted here`);
  }
  if (annotations.some(({ value }) => !sameBytes(value.digest, manifest.digest)))
    throw peerInvalid('an annotation', 'it is not about its snapshot');
  const facts = annotations.filter(({ value }) => !isKnownAnnotation(known, value, storeId));
  const missing = await walk.missing(manifest.value, store.health.losses + packs.losses);
  if (missing.count > 0) throw missingUnits(manifest, missing);
  const positions = await newPositions(store, snapshot.positions, manifest.position);
  if (state !== undefined && isStored(state)) {
    // Its lists may have been received again, because they were damaged.
    await packs.publish(PackKind_Value.META);
    await enterReceived(store, packs);
    await publishRecords(store, positions, facts);
    return ((await store.index.known(manifest.digest)) ?? state) as StoredSnapshot;
  }
  const record = known ?? emptyRecord(manifest.digest);
  record.manifest = manifest.value;
  record.manifestUnitId = unitId(UnitKind_Value.MANIFEST, manifest.bytes);
  for (const { value } of facts) addAnnotation(record, value);
  const counter = (await store.index.counter()) + 1n;
  const pack = await packs.open(PackKind_Value.META);
  try {
    await appendAll(pack.writer, UnitKind_Value.POSITION, bytesOf(positions));
    await appendAll(pack.writer, UnitKind_Value.MANIFEST, [manifest.bytes]);
    await appendAll(pack.writer, UnitKind_Value.ANNOTATION, bytesOf(facts));
    const about = { storeId, digest: manifest.digest, counter, at: timestampFromMs(now()) };
    const measured = create(AnnotationSchema, about);
    await appendMeasured(pack.writer, measured, { ...parts.cost, durationMs: snapshot.durationMs });
    addAnnotation(record, measured);
  } catch (error) {
    await packs.drop(pack);
    throw error;
  }
  try {
    await packs.publish(PackKind_Value.META);
    const batch = store.index.batch();
    const number = await enterPublishedPack(store, must(pack.published, 'a published pack'), batch);
    await store.index.raiseCounter(batch, counter);
    store.index.removeStrayAnnotations(batch, manifest.digest);
    store.index.putRecord(batch, recordKey(manifest.value, manifest.digest), record);
    const entries = positions.map(({ value }) => value);
    await enterPositions(store, batch, [...entries, manifest.position]);
    await store.index.commit('index:commit', batch);
    packs.forget(pack);
    await markRecovered(store, number);
  } catch (error) {
    store.health.markStale();
    throw error;
  }
  return snapshotState(record, storeId) as StoredSnapshot;
}

async function appendAll(
  writer: PackWriter,
  kind: UnitKind_Value,
  records: readonly Uint8Array[],
): Promise<void> {
  for (let from = 0; from < records.length; from += RECORDS_PER_FRAME) {
    const frame = encodeProvenFrame(kind, records.slice(from, from + RECORDS_PER_FRAME));
    await writer.append(frame.bytes, frame);
  }
}

/** Appends the annotation of what the snapshot cost here. Its stored bytes include its own frame. */
async function appendMeasured(
  writer: PackWriter,
  annotation: Annotation,
  { storedBytes, newBytes, newUnits, durationMs }: Cost & { durationMs: number },
): Promise<void> {
  const measured = create(MeasuredSchema, {
    durationMs: BigInt(Math.max(0, Math.round(durationMs))),
    newBytes: BigInt(newBytes),
    newUnits,
    // The length of the frame must not depend on the value. Not 0, because proto3 leaves a zero out.
    storedBytes: 1n,
  });
  annotation.fact = { case: 'measured', value: measured };
  const draft = annotationFrame(annotation);
  measured.storedBytes = BigInt(
    storedBytes + writer.sizeWith([{ frame: draft, length: draft.bytes.length }]),
  );
  const frame = annotationFrame(annotation);
  await writer.append(frame.bytes, frame);
}

function missingUnits(
  { digest }: ReceivedManifest,
  { listed, count }: { listed: readonly Buffer[]; count: number },
): LightkeeperError {
  const details = listed.slice(0, MISSING_NAMED_MAX).map((id) => hex(id));
  return new LightkeeperError(
    'NOT_FOUND',
    `Cannot store snapshot "${snapshotIdOf(digest)}": ${count} of its units are missing`,
    { hint: 'run lightkeeper verify on the other side', details },
  );
}
