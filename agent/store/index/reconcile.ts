import { addAnnotation } from '../../../core/annotations.ts';
import { LightkeeperError, normalise } from '../../../core/errors.ts';
import { errorFinding } from '../../../core/finding.ts';
import { parseAnnotation, parseManifest, parsePosition } from '../../../core/manifest.ts';
import { isBeyond, positionEntry } from '../../../core/position.ts';
import { emptyRecord } from '../../../core/snapshot.ts';
import { hex, sameBytes, sha256, UNIT_ID_BYTES, unitId } from '../../../core/unit.ts';
import type { PackRecord, SnapshotRecord } from '../../../gen/lightkeeper/index/v1/index_pb.ts';
import type { Annotation } from '../../../gen/lightkeeper/store/v1/annotation_pb.ts';
import type { PositionEntry } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import {
  type FrameInfo,
  PackKind_Value,
  type StoreConfig,
  UnitKind_Value,
} from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import type { PackStore } from '../../pack/pack-store.ts';
import { readFrameUnits, readPackTable } from '../../pack/reader.ts';
import { verifyPack } from '../../pack/verify-pack.ts';
import type { StoreHealth } from '../health.ts';
import { recordKey } from './keys.ts';
import type { IndexBatch, StoreIndex } from './store-index.ts';

/** The parts of an open store that are reconciled. */
export interface IndexedStore {
  readonly config: StoreConfig;
  readonly packs: PackStore;
  readonly index: StoreIndex;
  readonly health: StoreHealth;
}

/** Names of the 256 folders of packs. */
export const SHARDS: readonly string[] = Array.from({ length: 256 }, (_, i) =>
  i.toString(16).padStart(2, '0'),
);

/**
 * Reconciles the index with the packs: enters packs that it lacks and marks packs that are missing. Lists the shards
 * that changed since the last stamp, or with `all` every shard. With `tables` it also reads the table of every pack and
 * enters units that the index lacks.
 */
export async function reconcile(
  store: IndexedStore,
  options: { all?: boolean; tables?: boolean } = {},
): Promise<void> {
  const { health } = store;
  health.markCurrent();
  // A new index does not show which units are missing: the next capture must look every unit up.
  const fresh = await store.index.isEmpty();
  for (const pack of await store.index.lostPacks()) health.pack(pack, 'lose');
  const stamps = await store.index.shardStamps(SHARDS);
  for (const [i, shard] of SHARDS.entries()) {
    const now = await store.packs.shardStamp(shard);
    const changed = now !== stamps[i] && !(now === 'none' && stamps[i] === undefined);
    if (!changed && options.all !== true) continue;
    health.dropPackFindings(shard);
    if (await reconcileShard(store, shard)) {
      health.shard(shard, 'find-whole');
      if (changed) await stampShard(store, shard);
    } else health.shard(shard, 'find-broken');
  }
  if (options.tables === true) await enterMissingUnits(store);
  if (health.unsoundShards > 0 || (fresh && !(await store.index.isEmpty())))
    await store.index.local.markIncomplete();
}

/** Reconciles the packs of one shard. Returns whether all of them could be read. */
async function reconcileShard(store: IndexedStore, shard: string): Promise<boolean> {
  const known = await store.index.packsOfShard(shard);
  let whole = true;
  for await (const { packId, size } of store.packs.list(shard)) {
    const number = known.get(packId);
    known.delete(packId);
    if (number !== undefined && !store.health.isLost(number)) continue;
    try {
      if (number !== undefined) proveRecovered(store, packId);
      await enterPack(store, packId, size);
      if (number !== undefined) await store.index.setLost(number, false);
      if (number !== undefined) store.health.pack(number, 'recover');
    } catch (error) {
      const failure = normalise(error);
      if (failure.code !== 'DAMAGED' && failure.code !== 'NOT_FOUND') throw failure;
      whole = false;
      store.health.findings.push(
        errorFinding('pack_damaged', packId, {
          message: failure.message,
          hint: 'run lightkeeper verify --level bytes to see which snapshots need it, then lightkeeper repair',
        }),
      );
    }
  }
  for (const [packId, number] of known) {
    whole = false;
    store.health.pack(number, 'lose');
    await store.index.setLost(number, true);
    store.health.findings.push(
      errorFinding('pack_missing', packId, {
        message: 'a pack that the index lists is missing',
        hint: 'bring the file back, or run lightkeeper repair',
      }),
    );
  }
  return whole;
}

/** Enters units of known packs that the index lacks. */
// LevelDB was observed to drop entries silently.
async function enterMissingUnits(store: IndexedStore): Promise<void> {
  const known = (unitIds: Uint8Array): boolean => {
    for (let at = 0; at < unitIds.length; at += UNIT_ID_BYTES)
      if (store.index.locateSync(unitIds.subarray(at, at + UNIT_ID_BYTES)) === undefined) return false;
    return true;
  };
  for await (const [pack, { packId, kind, size }] of store.index.packs()) {
    if (store.health.isLost(pack)) continue;
    try {
      const { frames } = await readPackTable(store.packs, hex(packId), Number(size));
      if (!frames.every(({ unitIds }) => known(unitIds)))
        await enterUnits(store, { packId, kind, size }, frames);
    } catch (error) {
      // Verification reports the pack.
      if (!PACK_ERRORS.has(normalise(error).code)) throw error;
    }
  }
}

const PACK_ERRORS: ReadonlySet<string> = new Set(['DAMAGED', 'TOO_NEW', 'TOO_OLD', 'NOT_FOUND']);

/** Verifies every byte of a pack that was missing or damaged and exists again. DAMAGED if it is not whole. */
function proveRecovered(store: IndexedStore, packId: string): void {
  const report = verifyPack(store.packs.reference(packId), packId);
  if (report.state !== 'whole')
    throw new LightkeeperError('DAMAGED', `Cannot use pack "${packId}": ${report.problem}`);
}

/** Enters a pack from its own table, with the snapshots and annotations in it. */
export async function enterPack(store: IndexedStore, packId: string, size: number): Promise<void> {
  const { kind, frames } = await readPackTable(store.packs, packId, size);
  if (kind === PackKind_Value.META) await enterRecords(store, packId, frames);
  await enterUnits(store, { packId: Buffer.from(packId, 'hex'), kind, size: BigInt(size) }, frames);
}

/** Enters a pack and its units, without the records in it. */
export async function enterUnits(
  store: IndexedStore,
  pack: Pick<PackRecord, 'packId' | 'kind' | 'size'>,
  frames: readonly FrameInfo[],
): Promise<void> {
  const batch = store.index.batch();
  await store.index.enterPack(pack, frames, batch);
  await store.index.write('index:pack', batch);
}

const RECORD_KINDS: ReadonlySet<UnitKind_Value> = new Set([
  UnitKind_Value.MANIFEST,
  UnitKind_Value.ANNOTATION,
  UnitKind_Value.POSITION,
]);

async function enterRecords(
  store: IndexedStore,
  packId: string,
  frames: readonly FrameInfo[],
): Promise<void> {
  for (const info of frames) {
    if (!RECORD_KINDS.has(info.kind)) continue;
    const units = await readFrameUnits(store.packs, packId, info);
    if (info.kind === UnitKind_Value.POSITION) {
      // There may be many, and none depends on another.
      const batch = store.index.batch();
      await enterPositions(store, batch, units.map(parsePosition));
      await store.index.write('index:record', batch);
      continue;
    }
    for (const bytes of units) {
      // Written one by one, because each may depend on the one before it.
      const batch = store.index.batch();
      if (info.kind === UnitKind_Value.MANIFEST) await enterManifest(store, batch, bytes);
      else await enterAnnotation(store, batch, parseAnnotation(bytes));
      await store.index.write('index:record', batch);
    }
  }
}

/** Enters a manifest from its stored bytes. */
export async function enterManifest(
  store: IndexedStore,
  batch: IndexBatch,
  bytes: Uint8Array,
): Promise<void> {
  const manifest = parseManifest(bytes);
  const digest = sha256(bytes);
  const at = recordKey(manifest, digest);
  const record =
    (await store.index.record(at))?.record ??
    (await store.index.strayAnnotations(digest)) ??
    emptyRecord(digest);
  record.manifest = manifest;
  record.manifestUnitId = unitId(UnitKind_Value.MANIFEST, bytes);
  store.index.removeStrayAnnotations(batch, digest);
  store.index.putRecord(batch, at, record);
  // The position is also stored beside its manifest, but that copy may be damaged.
  if (manifest.sequence > 0n) await enterPositions(store, batch, [positionEntry(manifest, digest)]);
}

/** Enters positions into the logs of their graphs. Moves the head of a graph to one beyond it that is on no fork. */
export async function enterPositions(
  store: IndexedStore,
  batch: IndexBatch,
  entries: readonly PositionEntry[],
): Promise<void> {
  const heads = new Map<string, PositionEntry | undefined>();
  for (const entry of entries) {
    const { graphId } = entry;
    store.index.putPosition(batch, entry);
    if (!heads.has(graphId)) heads.set(graphId, await store.index.head(graphId));
    const head = heads.get(graphId);
    if (head !== undefined && !isBeyond(entry, head)) continue;
    if (await isForked(store, entry.digest)) continue;
    heads.set(graphId, entry);
    store.index.putHead(batch, entry);
  }
}

/** Reports whether a snapshot is on a fork. It may have been deleted since. */
async function isForked(store: IndexedStore, digest: Uint8Array): Promise<boolean> {
  return (await store.index.known(digest))?.forked !== undefined;
}

/** Moves the head of a graph back if it is the snapshot with this digest, which is on a fork. */
async function retreatHead(store: IndexedStore, batch: IndexBatch, digest: Uint8Array): Promise<void> {
  const position = await store.index.positionOf(digest);
  if (position === undefined) return;
  const { graphId } = position;
  const head = await store.index.head(graphId);
  if (head === undefined || !sameBytes(head.digest, digest)) return;
  for await (const entry of store.index.positions(graphId, { reverse: true })) {
    if (sameBytes(entry.digest, digest) || (await isForked(store, entry.digest))) continue;
    store.index.putHead(batch, entry);
    return;
  }
  store.index.removeHead(batch, graphId);
}

/** Adds an annotation to the record of its snapshot. Returns that record. */
export async function enterAnnotation(
  store: IndexedStore,
  batch: IndexBatch,
  annotation: Annotation,
): Promise<SnapshotRecord> {
  const isOwn = sameBytes(annotation.storeId, store.config.storeId);
  if (isOwn) await store.index.raiseCounter(batch, annotation.counter);
  if (isOwn && annotation.fact.case === 'forked') await retreatHead(store, batch, annotation.digest);
  const found = await store.index.find(annotation.digest);
  if (found !== undefined) {
    const { record } = found.state;
    addAnnotation(record, annotation);
    store.index.putRecord(batch, found.at, record);
    return record;
  }
  const stray = (await store.index.strayAnnotations(annotation.digest)) ?? emptyRecord(annotation.digest);
  addAnnotation(stray, annotation);
  store.index.putStrayAnnotations(batch, stray);
  return stray;
}

async function stampShard(store: IndexedStore, shard: string): Promise<void> {
  const stamp = await store.packs.shardStamp(shard);
  if (stamp === undefined) return;
  const batch = store.index.batch();
  store.index.putShardStamp(batch, shard, stamp);
  await store.index.write('index:stamp', batch);
}

/** Stores the stamps of the sound shards that this process wrote to, so that the next open does not list them. */
// An unsound shard is listed and reported at every open.
export async function stampShards(store: IndexedStore): Promise<void> {
  // After a failure the index may lack packs: the next open must list the shards.
  if (store.health.isStale) return;
  for (const shard of store.health.shardsToStamp()) {
    await stampShard(store, shard);
    store.health.shard(shard, 'stamp');
  }
}
