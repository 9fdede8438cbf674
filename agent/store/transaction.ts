import { create, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { addAnnotation, type Fact } from '../../core/annotations.ts';
import { must } from '../../core/assert.ts';
import { encodeAnnotation } from '../../core/manifest.ts';
import { positionEntry } from '../../core/position.ts';
import { emptyRecord, type StoredSnapshot, snapshotState } from '../../core/snapshot.ts';
import { sameBytes, sha256, UNIT_ID_BYTES, unitId } from '../../core/unit.ts';
import type { SnapshotRecord } from '../../gen/lightkeeper/index/v1/index_pb.ts';
import {
  type Annotation,
  AnnotationSchema,
  type Measured,
  MeasuredSchema,
} from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import {
  type Manifest,
  ManifestSchema,
  type PositionEntry,
  PositionEntrySchema,
} from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { PackKind_Value, UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { PACK_BYTES } from '../pack/format.ts';
import { PackWriter, type PublishedPack } from '../pack/writer.ts';
import { enterPublishedPack, markRecovered } from './enter-pack.ts';
import { recordKey } from './index/keys.ts';
import { enterAnnotation } from './index/reconcile.ts';
import type { IndexBatch } from './index/store-index.ts';
import { annotationFrame, type EncodedFrame, MetaWriter } from './meta-writer.ts';
import type { Store } from './store.ts';

/** Most packs that are published while the next one is written. */
const PUBLISHING_MAX = 2;

/** A fact about the snapshot whose manifest has this digest. */
export interface SnapshotFact {
  readonly digest: Uint8Array;
  readonly fact: Fact;
}

/** One change of a store: new data frames and list pieces, then a commit of a snapshot or of records alone. */
// Only one is open at a time (`Store.exclusively`).
export class Transaction {
  readonly #store: Store;
  #data: PackWriter | undefined;
  readonly #meta: MetaWriter;
  readonly #publishing = new Set<Promise<void>>();
  /** Ids of units that the index does not contain yet: claimed by a worker, or in an unpublished pack. */
  readonly #pending = new Set<string>();
  #appending: Promise<void> = Promise.resolve();
  #failure: unknown;
  /** Whether a pack has begun to be published. After a failure it may exist without being in the index. */
  #hasPublished = false;
  /** Names of the packs that this change has written. */
  readonly written = new Set<string>();
  /** Bytes of the published data packs. */
  storedBytes = 0;
  /** Original bytes of the new units. */
  newBytes = 0;
  newUnits = 0;

  private constructor(store: Store) {
    this.#store = store;
    this.#meta = new MetaWriter(store.packs, store.config.storeId);
  }

  /** Runs one transaction. If `run` rejects, discards what it has not published. */
  static async run<T>(store: Store, run: (transaction: Transaction) => Promise<T>): Promise<T> {
    const transaction = new Transaction(store);
    try {
      return await run(transaction);
    } catch (error) {
      await transaction.abandon();
      throw error;
    }
  }

  // ----- units of file bytes -----

  /** Claims the new ones of these units for the caller, who stores them. Returns one byte for each: 1 if it is new. */
  // A claimed unit is new for no later caller.
  async claim(ids: Uint8Array): Promise<Uint8Array> {
    const count = ids.length / UNIT_ID_BYTES;
    const all = Buffer.from(ids.buffer, ids.byteOffset, ids.byteLength);
    const fresh = new Uint8Array(count);
    const asked: number[] = [];
    const wanted: Buffer[] = [];
    for (let i = 0; i < count; i++) {
      const at = i * UNIT_ID_BYTES;
      const name = all.toString('latin1', at, at + UNIT_ID_BYTES);
      if (this.#pending.has(name)) continue;
      this.#pending.add(name);
      asked.push(i);
      wanted.push(all.subarray(at, at + UNIT_ID_BYTES));
    }
    const found = await this.#store.index.locate(wanted);
    for (const [k, i] of asked.entries()) {
      const location = found[k];
      if (location === undefined || !this.#store.health.isWhole(location.pack)) fresh[i] = 1;
      else this.#pending.delete(must(wanted[k], 'a claimed id').toString('latin1'));
    }
    return fresh;
  }

  /** Appends a proven frame of new units. Resolves when its bytes have been written. */
  async append(frame: EncodedFrame): Promise<void> {
    const appending = this.#appending.then(() => this.#append(frame));
    // The next frame waits for this one even if it fails; the caller receives the error.
    this.#appending = appending.catch(() => {});
    await appending;
  }

  async #append(frame: EncodedFrame): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#data ??= await PackWriter.begin(this.#store.packs, PackKind_Value.DATA, this.#store.config);
    await this.#data.append(frame.bytes, frame);
    this.newUnits += frame.lengths.length;
    for (const length of frame.lengths) this.newBytes += length;
    if (this.#data.length >= PACK_BYTES) await this.#sealData();
  }

  async #sealData(): Promise<void> {
    const writer = this.#data;
    this.#data = undefined;
    if (writer === undefined) return;
    while (this.#publishing.size >= PUBLISHING_MAX) await Promise.race(this.#publishing);
    const publishing: Promise<void> = this.#publish(writer)
      .catch((error: unknown) => {
        this.#failure ??= error;
      })
      .finally(() => this.#publishing.delete(publishing));
    this.#publishing.add(publishing);
  }

  async #publish(writer: PackWriter): Promise<void> {
    this.#hasPublished = true;
    const pack = await writer.publish();
    this.storedBytes += pack.size;
    const batch = this.#store.index.batch();
    const number = await this.#enter(pack, batch);
    await this.#store.index.write('index:pack', batch);
    await markRecovered(this.#store, number);
    for (const frame of pack.frames) {
      const ids = Buffer.from(frame.unitIds);
      for (let at = 0; at < ids.length; at += UNIT_ID_BYTES) {
        this.#pending.delete(ids.toString('latin1', at, at + UNIT_ID_BYTES));
      }
    }
  }

  /** Enters a pack into the index; its own record goes into the batch `last`. Returns the number of the pack. */
  async #enter(pack: PublishedPack, last: IndexBatch): Promise<number> {
    this.written.add(pack.packId.toString('hex'));
    return await enterPublishedPack(this.#store, pack, last);
  }

  // ----- list pieces -----

  /** Adds a piece of a list unless it is stored already. Returns its id. */
  readonly addPiece = (kind: UnitKind_Value, piece: Buffer): Buffer => {
    const id = unitId(kind, piece);
    const name = id.toString('latin1');
    if (this.#pending.has(name) || this.#store.locate(id) !== undefined) return id;
    this.#pending.add(name);
    this.#meta.addPiece(kind, piece, id);
    return id;
  };

  /** Writes the list pieces of each kind that fill a frame. To be called between additions. */
  async flushPieces(): Promise<void> {
    await this.#meta.flushPieces();
  }

  // ----- commit -----

  /** Publishes all data packs and enters them into the index. A commit does this by itself. */
  async settleData(): Promise<void> {
    await this.#appending;
    await this.#sealData();
    while (this.#publishing.size > 0) await Promise.all(this.#publishing);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Commits a snapshot. Returns its state. */
  // Data is durable and indexed first. Publishing the meta pack with the manifest is the commit. The index follows.
  async commit(
    manifest: Manifest,
    options: {
      durationMs: () => number;
      nowMs: number;
      tags?: Record<string, string>;
      more?: (batch: IndexBatch, digest: Uint8Array) => void;
    },
  ): Promise<StoredSnapshot> {
    await this.settleData();
    await this.#meta.flushPieces({ all: true });
    const bytes = toBinary(ManifestSchema, manifest);
    const digest = sha256(bytes);
    const position = positionEntry(manifest, digest);
    await this.#meta.appendRecords(UnitKind_Value.MANIFEST, [bytes]);
    if (manifest.sequence > 0n) {
      await this.#meta.appendRecords(UnitKind_Value.POSITION, [toBinary(PositionEntrySchema, position)]);
    }
    let counter = await this.#store.index.counter();
    const about = { storeId: this.#store.config.storeId, digest, at: timestampFromMs(options.nowMs) };
    const record = emptyRecord(digest);
    record.manifest = manifest;
    record.manifestUnitId = unitId(UnitKind_Value.MANIFEST, bytes);
    const tags = options.tags ?? {};
    if (Object.keys(tags).length > 0) {
      const fact = { case: 'tagged' as const, value: { tags } };
      const tagged = create(AnnotationSchema, { ...about, counter: ++counter, fact });
      await this.#meta.append(annotationFrame(tagged));
      addAnnotation(record, tagged);
    }
    counter += 1n;
    const measured = create(MeasuredSchema, {
      durationMs: BigInt(Math.round(options.durationMs())),
      newBytes: BigInt(this.newBytes),
      newUnits: this.newUnits,
    });
    await this.#appendMeasured(create(AnnotationSchema, { ...about, counter }), measured, record);
    await this.#finish(record, position, counter, options.more);
    return snapshotState(record, this.#store.config.storeId) as StoredSnapshot;
  }

  /** Appends the annotation of what the snapshot took to make. Its stored bytes include its own frame. */
  async #appendMeasured(annotation: Annotation, measured: Measured, record: SnapshotRecord): Promise<void> {
    // The length of the frame must not depend on the value. Not 0, because proto3 leaves a zero out.
    measured.storedBytes = 1n;
    annotation.fact = { case: 'measured', value: measured };
    measured.storedBytes = BigInt(this.storedBytes + this.#meta.sizeWith(annotationFrame(annotation)));
    await this.#meta.append(annotationFrame(annotation));
    addAnnotation(record, annotation);
  }

  async #finish(
    record: SnapshotRecord,
    position: PositionEntry,
    counter: bigint,
    more: ((batch: IndexBatch, digest: Uint8Array) => void) | undefined,
  ): Promise<void> {
    const manifest = must(record.manifest, 'a manifest');
    const pack = await this.#publishMeta();
    const index = this.#store.index;
    const batch = index.batch();
    const number = await this.#enter(pack, batch);
    await index.raiseCounter(batch, counter);
    index.putRecord(batch, recordKey(manifest, record.digest), record);
    if (manifest.sequence > 0n) {
      index.putPosition(batch, position);
      index.putHead(batch, position);
    }
    more?.(batch, record.digest);
    await index.commit('index:commit', batch);
    await markRecovered(this.#store, number);
  }

  async #publishMeta(): Promise<PublishedPack> {
    this.#hasPublished = true;
    const pack = await this.#meta.publish();
    this.#pending.clear();
    return pack;
  }

  /** Commits facts about snapshots durably. Returns the records with them, in the same order. */
  async commitFacts(facts: readonly SnapshotFact[], nowMs: number): Promise<SnapshotRecord[]> {
    await this.settleData();
    await this.#meta.flushPieces({ all: true });
    const { storeId } = this.#store.config;
    const at = timestampFromMs(nowMs);
    let counter = await this.#store.index.counter();
    const annotations = facts.map(({ digest, fact }) => {
      counter += 1n;
      return create(AnnotationSchema, { storeId, counter, digest, at, fact });
    });
    await this.#meta.appendRecords(UnitKind_Value.ANNOTATION, annotations.map(encodeAnnotation));
    const pack = await this.#publishMeta();
    const index = this.#store.index;
    const last = index.batch();
    const records: SnapshotRecord[] = [];
    for (const annotation of annotations) {
      const batch = index.batch();
      records.push(await enterAnnotation(this.#store, batch, annotation));
      await index.write('index:annotation', batch);
    }
    const number = await this.#enter(pack, last);
    await index.raiseCounter(last, counter);
    await index.commit('index:annotate', last);
    await markRecovered(this.#store, number);
    this.#store.changes.addFacts(facts.map(({ digest }) => digest));
    return records;
  }

  /** Publishes the gathered units and these records, without a snapshot. */
  async finishRepack(records: { kind: UnitKind_Value; units: Uint8Array[] }[]): Promise<void> {
    await this.settleData();
    await this.#meta.flushPieces({ all: true });
    for (const { kind, units } of records) await this.#meta.appendRecords(kind, units);
    if (this.#meta.isEmpty) return;
    const pack = await this.#publishMeta();
    const batch = this.#store.index.batch();
    const number = await this.#enter(pack, batch);
    await this.#store.index.write('index:pack', batch);
    await markRecovered(this.#store, number);
  }

  /** Discards what has not been published. */
  async abandon(): Promise<void> {
    if (this.#hasPublished) this.#store.health.markStale();
    await this.#appending;
    await Promise.allSettled(this.#publishing);
    const data = this.#data;
    this.#data = undefined;
    await data?.discard();
    await this.#meta.discard();
  }
}

/** Reports whether two manifests list the same files. */
export function sameFiles(a: Manifest, b: Manifest): boolean {
  return (
    a.files !== undefined &&
    b.files !== undefined &&
    a.files.depth === b.files.depth &&
    sameBytes(a.files.entries, b.files.entries)
  );
}
