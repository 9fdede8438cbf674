import { create } from '@bufbuild/protobuf';
import { isCurrent } from '../../../core/annotations.ts';
import { must } from '../../../core/assert.ts';
import { LightkeeperError } from '../../../core/errors.ts';
import { capturedMs, parseAnnotation, snapshotIdOf } from '../../../core/manifest.ts';
import { type PackLife, type PackPlan, planPacks } from '../../../core/reachability.ts';
import { hex, UNIT_ID_BYTES } from '../../../core/unit.ts';
import { DeletedSchema } from '../../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { type FrameInfo, PackKind_Value, UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { now } from '../../../host/clock.ts';
import { FRAME_RAW_BYTES } from '../../pack/frame.ts';
import { readFrameUnits, readPackTable } from '../../pack/reader.ts';
import type { Store } from '../store.ts';
import { readyFrame, Transaction } from '../transaction.ts';
import { Walker } from './reachable-units.ts';

/** How long a removal waits for readers that began before it. */
const READERS_WAIT_MS = 30_000;

/** The wall clock may be this far behind the newest snapshot. */
const CLOCK_SLACK_MS = 5 * 60 * 1000;
const FRAME_UNITS = 16_384;

/** Refuses to remove anything while the clock is behind the newest snapshot: ages would be wrong. */
export function checkClock(newestMs: number | undefined): void {
  if (newestMs === undefined || now() >= newestMs - CLOCK_SLACK_MS) return;
  throw new LightkeeperError(
    'REFUSED',
    `Cannot remove snapshots as ages are not known: the clock says ${new Date(now()).toISOString()}, the newest snapshot ${new Date(newestMs).toISOString()}`,
    { hint: 'set the clock of this machine' },
  );
}

/** Marks snapshots as deleted, durably. Their space comes back with `collect`. */
export async function markDeleted(
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

/** What is alive, and what would be done about the rest, if `removed` were deleted too. */
export async function planCollection(
  store: Store,
  removed: ReadonlySet<string>,
): Promise<{ plan: PackPlan; walker: Walker }> {
  const walker = await Walker.begin(store);
  for (const side of [false, true]) {
    for await (const [, record] of store.index.records({ side, reverse: false })) {
      if (record.deleted || record.manifest === undefined || removed.has(snapshotIdOf(record.digest)))
        continue;
      await walker.walk(record.manifest, record.manifestUnitId);
      if (record.graded !== undefined) await walker.walkFacts(record.graded.index);
    }
  }
  const lives: PackLife[] = [];
  for await (const [pack, record] of store.index.packs()) {
    if (store.health.isLost(pack)) continue;
    const { units, rawBytes } = walker.live.count(pack);
    lives.push({
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
  return { plan: planPacks(lives), walker };
}

/** Gives back the space of what nothing refers to. */
export async function collect(
  store: Store,
  onProgress: (done: number, total: number) => void,
): Promise<void> {
  const { plan, walker } = await planCollection(store, new Set());
  const old = [...plan.drop, ...plan.rewrite];
  if (old.length === 0) return;
  const total = plan.rewrite.reduce((sum, { size }) => sum + size, 0);
  // From now on no look-up returns a unit of these packs.
  for (const { pack } of old) store.health.pack(pack, 'condemn');
  let written: ReadonlySet<string>;
  try {
    written = await Transaction.run(store, async (transaction) => {
      await rewrite(store, transaction, plan, walker, (done) => onProgress(done, total));
      return transaction.written;
    });
  } catch (error) {
    for (const { pack } of old) store.health.pack(pack, 'spare');
    throw error;
  }
  if (!(await store.readersGone(READERS_WAIT_MS))) {
    // A long restore still reads them: they are dead, and the next collection removes them.
    for (const { pack } of old) store.health.pack(pack, 'spare');
    return;
  }
  // What is alive in an old pack may have made the very same pack again.
  const gone = old.filter(({ packId }) => !written.has(packId));
  for (const { pack } of old) if (!gone.some((life) => life.pack === pack)) store.health.pack(pack, 'spare');
  await removePacks(store, gone);
}

async function rewrite(
  store: Store,
  transaction: Transaction,
  plan: PackPlan,
  walker: Walker,
  onProgress: (done: number) => void,
): Promise<void> {
  const rewriter = new Rewriter(store, transaction, walker);
  let done = 0;
  for (const life of plan.rewrite) {
    const { frames } = await readPackTable(store.packs, life.packId, life.size);
    let ordinal = 0;
    for (const frame of frames) {
      await rewriter.frame(life, frame, ordinal);
      ordinal += frame.unitLengths.length;
      await new Promise((resolve) => setImmediate(resolve));
    }
    done += life.size;
    onProgress(done);
  }
  await rewriter.finish();
}

const PIECE_KINDS: ReadonlySet<UnitKind_Value> = new Set([
  UnitKind_Value.LIST,
  UnitKind_Value.FILES,
  UnitKind_Value.GRAPH,
]);

/** Takes what is alive out of old packs and writes it to new ones. */
class Rewriter {
  readonly #store: Store;
  readonly #transaction: Transaction;
  readonly #walker: Walker;
  readonly #records = new Map<UnitKind_Value, Uint8Array[]>();
  #units: Buffer[] = [];
  #ids: Buffer[] = [];
  #bytes = 0;

  constructor(store: Store, transaction: Transaction, walker: Walker) {
    this.#store = store;
    this.#transaction = transaction;
    this.#walker = walker;
  }

  async frame(life: PackLife, frame: FrameInfo, firstOrdinal: number): Promise<void> {
    const alive: number[] = [];
    const note = frame.kind === UnitKind_Value.POSITION || frame.kind === UnitKind_Value.ANNOTATION;
    for (let i = 0; i < frame.unitLengths.length; i++) {
      if (note || this.#walker.live.has(life.pack, firstOrdinal + i)) alive.push(i);
    }
    if (alive.length === 0) return;
    const units = await readFrameUnits(this.#store.packs, life.packId, frame);
    for (const i of alive) {
      const unit = must(units[i], 'a unit of the frame');
      const id = Buffer.from(frame.unitIds.subarray(i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES));
      if (frame.kind === UnitKind_Value.BYTES) await this.#data(unit, id);
      else if (PIECE_KINDS.has(frame.kind)) {
        this.#transaction.addPiece(frame.kind, unit);
        await this.#transaction.flushPieces();
      } else if (frame.kind !== UnitKind_Value.ANNOTATION || (await this.#annotationAlive(unit))) {
        const records = this.#records.get(frame.kind) ?? [];
        this.#records.set(frame.kind, records);
        records.push(unit);
      }
    }
  }

  async #data(unit: Buffer, id: Buffer): Promise<void> {
    this.#units.push(unit);
    this.#ids.push(id);
    this.#bytes += unit.length;
    if (this.#bytes >= FRAME_RAW_BYTES || this.#units.length >= FRAME_UNITS) await this.#flushData();
  }

  async #flushData(): Promise<void> {
    if (this.#units.length === 0) return;
    await this.#transaction.append(readyFrame(UnitKind_Value.BYTES, this.#units, this.#ids));
    this.#units = [];
    this.#ids = [];
    this.#bytes = 0;
  }

  /**
   * The newest of each kind is alive. A deletion is, for as long as its manifest is in some pack: a rebuilt index
   * would bring the snapshot back otherwise.
   */
  async #annotationAlive(bytes: Uint8Array): Promise<boolean> {
    const annotation = parseAnnotation(bytes);
    const { case: kind } = annotation.fact;
    // A newer version may know what it means.
    if (kind === undefined) return true;
    const [at] = await this.#store.index.recordsByPrefix(snapshotIdOf(annotation.digest));
    const state = at === undefined ? undefined : await this.#store.index.record(at);
    if (state === undefined) return false;
    if (kind === 'deleted') return true;
    return !state.deleted && isCurrent(state.record, annotation);
  }

  /** Publishes everything. */
  async finish(): Promise<void> {
    await this.#flushData();
    await this.#transaction.finishRepack([...this.#records].map(([kind, units]) => ({ kind, units })));
  }
}

/** Removes packs: first from the index, synced, then the files. */
async function removePacks(store: Store, old: readonly PackLife[]): Promise<void> {
  // Should this fail, files are left that the index does not know: whoever opens the store next is to list them.
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
  await forgetDeleted(store);
}

/** Forgets deleted snapshots whose manifest no pack has any more; last, so that a crash before only delays it. */
async function forgetDeleted(store: Store): Promise<void> {
  for (const side of [false, true]) {
    for await (const [at, record] of store.index.records({ side, reverse: false })) {
      if (!record.deleted) continue;
      if (store.index.locateSync(record.manifestUnitId) !== undefined) continue;
      const batch = store.index.batch();
      store.index.removeRecord(batch, at, snapshotIdOf(record.digest));
      // Should a pack with the manifest come back, it comes back as deleted.
      const annotations = record.record;
      delete annotations.manifest;
      store.index.putStrayAnnotations(batch, annotations);
      await store.index.write('index:forget', batch);
    }
  }
}

/** The newest capture time of a graph's snapshots, deleted ones included. */
export async function newestMs(store: Store, graphId: string): Promise<number | undefined> {
  for await (const [, record] of store.index.records({ graphId })) {
    if (record.manifest !== undefined) return capturedMs(record.manifest);
  }
  return undefined;
}
