import { create } from '@bufbuild/protobuf';
import { isCurrent } from '../../../core/annotations.ts';
import { must } from '../../../core/assert.ts';
import { LightkeeperError } from '../../../core/errors.ts';
import { capturedMs, parseAnnotation, snapshotIdOf } from '../../../core/manifest.ts';
import { type PackPlan, type PackUsage, planPacks } from '../../../core/reachability.ts';
import { hex, UNIT_ID_BYTES } from '../../../core/unit.ts';
import { DeletedSchema } from '../../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { type FrameInfo, PackKind_Value, UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { now } from '../../../host/clock.ts';
import { FRAME_RAW_BYTES } from '../../pack/frame.ts';
import { readFrameUnits, readPackTable } from '../../pack/reader.ts';
import { encodeProvenFrame } from '../meta-writer.ts';
import type { Store } from '../store.ts';
import { Transaction } from '../transaction.ts';
import { ReachableUnits } from './reachable-units.ts';

/** Milliseconds that a removal waits for readers that began before it. */
const READERS_WAIT_MS = 30_000;

/** Milliseconds by which the wall clock may be behind the newest snapshot. */
const CLOCK_SLACK_MS = 5 * 60 * 1000;
/** Most byte units of a rewritten frame. */
const FRAME_UNITS = 16_384;

/** Throws REFUSED if the clock is behind the newest snapshot. */
// The ages of snapshots would be wrong.
export function checkClock(newestMs: number | undefined): void {
  if (newestMs === undefined || now() >= newestMs - CLOCK_SLACK_MS) return;
  throw new LightkeeperError(
    'REFUSED',
    `Cannot remove snapshots as ages are not known: the clock says ${new Date(now()).toISOString()}, the newest snapshot ${new Date(newestMs).toISOString()}`,
    { hint: 'set the clock of this machine' },
  );
}

/** Commits the deletion of snapshots. `collectGarbage` frees their space. */
export async function commitDeletions(
  store: Store,
  snapshots: readonly { digest: Uint8Array; reason: string }[],
): Promise<void> {
  if (snapshots.length === 0) return;
  await Transaction.run(store, (transaction) =>
    transaction.commitFacts(
      snapshots.map(({ digest, reason }) => ({
        digest,
        fact: { case: 'deleted', value: create(DeletedSchema, { reason }) },
      })),
      now(),
    ),
  );
}

/** Plans a collection as if the snapshots `removed` were deleted too. Returns the plan and the reachable units. */
export async function planCollection(
  store: Store,
  removed: ReadonlySet<string>,
): Promise<{ plan: PackPlan; reachable: ReachableUnits }> {
  const reachable = await ReachableUnits.begin(store);
  for (const side of [false, true]) {
    for await (const [, snapshot] of store.index.records({ side, reverse: false })) {
      if (snapshot.deleted || snapshot.manifest === undefined || removed.has(snapshotIdOf(snapshot.digest)))
        continue;
      await reachable.markSnapshot(snapshot.manifest, snapshot.manifestUnitId);
      if (snapshot.graded !== undefined) await reachable.markGraphIndex(snapshot.graded.index);
    }
  }
  const packs: PackUsage[] = [];
  for await (const [pack, record] of store.index.packs()) {
    if (store.health.isLost(pack) || store.reception.isReserved(hex(record.packId))) continue;
    const { units, rawBytes } = reachable.live.count(pack);
    packs.push({
      pack,
      packId: hex(record.packId),
      meta: record.kind === PackKind_Value.META,
      size: Number(record.size),
      rawBytes: Number(record.rawBytes),
      units: record.units,
      liveUnits: units + record.recordUnits,
      liveRawBytes: rawBytes + Number(record.recordBytes),
    });
  }
  return { plan: planPacks(packs), reachable };
}

/** Frees the space of units that no snapshot refers to. */
export async function collectGarbage(
  store: Store,
  onProgress: (done: number, total: number) => void,
): Promise<void> {
  const { plan, reachable } = await planCollection(store, new Set());
  const old = [...plan.drop, ...plan.rewrite];
  if (old.length === 0) return;
  const total = plan.rewrite.reduce((sum, { size }) => sum + size, 0);
  // From now on `locate` finds no unit of these packs.
  for (const { pack } of old) store.health.pack(pack, 'condemn');
  let written: ReadonlySet<string>;
  try {
    written = await Transaction.run(store, async (transaction) => {
      const rewriter = new PackRewriter(store, transaction, reachable);
      await rewritePacks(rewriter, plan, (done) => onProgress(done, total));
      return transaction.written;
    });
  } catch (error) {
    for (const { pack } of old) store.health.pack(pack, 'spare');
    throw error;
  }
  if (!(await store.readersGone(READERS_WAIT_MS))) {
    // A long restore still reads these packs. The next collection removes them.
    for (const { pack } of old) store.health.pack(pack, 'spare');
    return;
  }
  // The live units of an old pack may have formed the same pack again.
  for (const { pack, packId } of old) if (written.has(packId)) store.health.pack(pack, 'spare');
  await removePacks(
    store,
    old.filter(({ packId }) => !written.has(packId)),
  );
}

async function rewritePacks(
  rewriter: PackRewriter,
  plan: PackPlan,
  onProgress: (done: number) => void,
): Promise<void> {
  let done = 0;
  for (const pack of plan.rewrite) {
    await rewriter.addPack(pack);
    done += pack.size;
    onProgress(done);
  }
  await rewriter.finish();
}

const PIECE_KINDS: ReadonlySet<UnitKind_Value> = new Set([
  UnitKind_Value.LIST,
  UnitKind_Value.FILES,
  UnitKind_Value.GRAPH,
]);

/** Copies the live units of old packs to new packs. */
class PackRewriter {
  readonly #store: Store;
  readonly #transaction: Transaction;
  readonly #reachable: ReachableUnits;
  readonly #records = new Map<UnitKind_Value, Uint8Array[]>();
  #units: Buffer[] = [];
  #ids: Buffer[] = [];
  #bytes = 0;

  constructor(store: Store, transaction: Transaction, reachable: ReachableUnits) {
    this.#store = store;
    this.#transaction = transaction;
    this.#reachable = reachable;
  }

  /** Copies the live units of a pack. */
  async addPack(pack: PackUsage): Promise<void> {
    const { frames } = await readPackTable(this.#store.packs, pack.packId, pack.size);
    let ordinal = 0;
    for (const frame of frames) {
      await this.#addFrame(pack, frame, ordinal);
      ordinal += frame.unitLengths.length;
      // A large pack must not block the event loop.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async #addFrame(pack: PackUsage, frame: FrameInfo, firstOrdinal: number): Promise<void> {
    const live: number[] = [];
    // No snapshot refers to positions and annotations.
    const isRecord = frame.kind === UnitKind_Value.POSITION || frame.kind === UnitKind_Value.ANNOTATION;
    for (let i = 0; i < frame.unitLengths.length; i++) {
      if (isRecord || this.#reachable.live.has(pack.pack, firstOrdinal + i)) live.push(i);
    }
    if (live.length === 0) return;
    const units = await readFrameUnits(this.#store.packs, pack.packId, frame);
    for (const i of live) {
      const unit = must(units[i], 'a unit of the frame');
      const id = Buffer.from(frame.unitIds.subarray(i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES));
      if (frame.kind === UnitKind_Value.BYTES) await this.#addData(unit, id);
      else if (PIECE_KINDS.has(frame.kind)) {
        this.#transaction.addPiece(frame.kind, unit);
        await this.#transaction.flushPieces();
      } else if (frame.kind !== UnitKind_Value.ANNOTATION || (await this.#isLiveAnnotation(unit))) {
        const records = this.#records.get(frame.kind) ?? [];
        this.#records.set(frame.kind, records);
        records.push(unit);
      }
    }
  }

  async #addData(unit: Buffer, id: Buffer): Promise<void> {
    this.#units.push(unit);
    this.#ids.push(id);
    this.#bytes += unit.length;
    if (this.#bytes >= FRAME_RAW_BYTES || this.#units.length >= FRAME_UNITS) await this.#flushData();
  }

  async #flushData(): Promise<void> {
    if (this.#units.length === 0) return;
    await this.#transaction.append(encodeProvenFrame(UnitKind_Value.BYTES, this.#units, { ids: this.#ids }));
    this.#units = [];
    this.#ids = [];
    this.#bytes = 0;
  }

  /** Reports whether an annotation is live: the newest of its kind, or a deletion of a snapshot in the index. */
  // Without the deletion, an index rebuilt from a pack with the manifest would contain the snapshot again. Without the
  // mark of a fork, the position of a deleted snapshot would be the head again.
  async #isLiveAnnotation(bytes: Uint8Array): Promise<boolean> {
    const annotation = parseAnnotation(bytes);
    const { case: kind } = annotation.fact;
    // Of a newer version, which may need it.
    if (kind === undefined) return true;
    if (kind === 'forked') {
      const known = await this.#store.index.known(annotation.digest);
      return known !== undefined && isCurrent(known.record, annotation);
    }
    const state = (await this.#store.index.find(annotation.digest))?.state;
    if (state === undefined) return false;
    if (kind === 'deleted') return true;
    return !state.deleted && isCurrent(state.record, annotation);
  }

  /** Publishes the copied units. */
  async finish(): Promise<void> {
    await this.#flushData();
    await this.#transaction.finishRepack([...this.#records].map(([kind, units]) => ({ kind, units })));
  }
}

/** Removes packs: first from the index durably, then their files. */
async function removePacks(store: Store, old: readonly PackUsage[]): Promise<void> {
  // After a failure files may be left that are not in the index: the next open must list these shards.
  const shards = new Set(
    old.map(({ packId }) => packId.slice(0, 2)).filter((shard) => !store.health.isUnsound(shard)),
  );
  for (const shard of shards) store.health.shard(shard, 'find-broken');
  for (const { pack, packId, size } of old) {
    const { frames } = await readPackTable(store.packs, packId, size);
    await store.index.removePack(pack, frames);
  }
  await store.index.sync();
  store.dropFrames();
  await store.packs.delete(old.map(({ packId }) => packId));
  for (const { pack } of old) store.health.pack(pack, 'remove');
  for (const shard of shards) {
    store.health.shard(shard, 'find-whole');
    store.health.shard(shard, 'write');
  }
  await removeDeletedRecords(store);
}

/** Removes deleted snapshots from the index whose manifest is in no pack. */
// Last, so that a crash before it only delays it.
async function removeDeletedRecords(store: Store): Promise<void> {
  for (const side of [false, true]) {
    for await (const [at, snapshot] of store.index.records({ side, reverse: false })) {
      if (!snapshot.deleted) continue;
      if (store.index.locateSync(snapshot.manifestUnitId) !== undefined) continue;
      const batch = store.index.batch();
      store.index.removeRecord(batch, at, snapshotIdOf(snapshot.digest));
      // If a pack with the manifest reappears, the snapshot must stay deleted.
      const annotations = snapshot.record;
      delete annotations.manifest;
      store.index.putStrayAnnotations(batch, annotations);
      await store.index.write('index:forget', batch);
    }
  }
}

/** Returns the capture time of a graph's newest snapshot, deleted ones included; undefined if there is none. */
export async function newestCaptureMs(store: Store, graphId: string): Promise<number | undefined> {
  for await (const [, { manifest }] of store.index.records({ graphId })) {
    if (manifest !== undefined) return capturedMs(manifest);
  }
  return undefined;
}
