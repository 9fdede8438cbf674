import { isBeyond } from '../../../core/position.ts';
import type { Annotation } from '../../../gen/lightkeeper/store/v1/annotation_pb.ts';
import type { PositionEntry } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { enterPublishedPack, markRecovered } from '../enter-pack.ts';
import { enterAnnotation, enterPositions } from '../index/reconcile.ts';
import { MetaWriter } from '../meta-writer.ts';
import type { Store } from '../store.ts';
import { isKnownAnnotation, type Received } from './received-records.ts';

/** Returns the annotations of known snapshots that the store lacks. PEER_INVALID for one in its own name. */
export async function newAnnotations(
  store: Store,
  annotations: readonly Received<Annotation>[],
): Promise<Received<Annotation>[]> {
  const found: Received<Annotation>[] = [];
  for (const one of annotations) {
    const record = (await store.index.known(one.value.digest))?.record;
    if (record !== undefined && !isKnownAnnotation(record, one.value, store.config.storeId)) found.push(one);
  }
  return found;
}

/** Returns the positions that the log lacks, without those beyond the head. */
// A position beyond the head comes with its snapshot: the head is always one that this store has had.
export async function newPositions(
  store: Store,
  positions: readonly Received<PositionEntry>[],
  head?: PositionEntry,
): Promise<Received<PositionEntry>[]> {
  const found: Received<PositionEntry>[] = [];
  for (const one of positions) {
    const { graphId, digest } = one.value;
    const limit = head ?? (await store.index.head(graphId));
    if (limit === undefined || isBeyond(one.value, limit)) continue;
    if ((await store.index.position(graphId, digest)) === undefined) found.push(one);
  }
  return found;
}

/** Commits positions and annotations as they were sent, in a pack of their own. Runs inside `Store.exclusively`. */
export async function publishRecords(
  store: Store,
  positions: readonly Received<PositionEntry>[],
  annotations: readonly Received<Annotation>[],
): Promise<void> {
  if (positions.length + annotations.length === 0) return;
  const meta = new MetaWriter(store.packs, store.config.storeId);
  try {
    await meta.appendRecords(UnitKind_Value.POSITION, bytesOf(positions));
    await meta.appendRecords(UnitKind_Value.ANNOTATION, bytesOf(annotations));
  } catch (error) {
    await meta.discard();
    throw error;
  }
  try {
    const pack = await meta.publish();
    const { index } = store;
    for (const { value } of annotations) {
      const batch = index.batch();
      await enterAnnotation(store, batch, value);
      await index.write('index:annotation', batch);
    }
    const last = index.batch();
    await enterPositions(
      store,
      last,
      positions.map(({ value }) => value),
    );
    const number = await enterPublishedPack(store, pack, last);
    await index.commit('index:annotate', last);
    await markRecovered(store, number);
  } catch (error) {
    store.health.markStale();
    throw error;
  }
}

/** Returns the bytes of received messages, as they were sent. */
export function bytesOf(messages: readonly Received<unknown>[]): Uint8Array[] {
  return messages.map(({ bytes }) => bytes);
}
