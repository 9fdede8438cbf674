import { create, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { addAnnotation, type Fact } from '../../core/annotations.ts';
import { must } from '../../core/assert.ts';
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
import {
  decodeRoom,
  encodeFrame,
  FRAME_RAW_BYTES,
  FRAME_UNITS_MAX,
  frameCap,
  proveFrame,
} from '../pack/frame.ts';
import { type FrameDescription, PackWriter, type PublishedPack } from '../pack/writer.ts';
import { recordKey } from './index/keys.ts';
import { enterAnnotation } from './index/reconcile.ts';
import type { IndexBatch } from './index/store-index.ts';
import type { Store } from './store.ts';

/** Packs that may be on their way to the disk while the next one is written. */
const PUBLISHING_MAX = 2;
/** Manifests, positions or annotations of one frame. */
const RECORDS_PER_FRAME = 1000;
const META_FRAME_RAW_BYTES = FRAME_RAW_BYTES / 4;

/** A frame in memory with what a pack must know of it. */
export interface ReadyFrame extends FrameDescription {
  readonly bytes: Uint8Array;
}

/** Encodes units as one frame and proves that it decodes to them. */
export function readyFrame(
  kind: UnitKind_Value,
  units: readonly Uint8Array[],
  ids: readonly Uint8Array[],
  options: { raw?: boolean; bulk?: boolean } = {},
): ReadyFrame {
  const bytes = Buffer.concat(units);
  const lengths = units.map((unit) => unit.length);
  const content = { kind, ids: Buffer.concat(ids), lengths, bytes, ...options };
  const out = Buffer.alloc(frameCap(units.length, bytes.length));
  const { length, codec } = encodeFrame(out, content);
  const frame = out.subarray(0, length);
  proveFrame(frame, decodeRoom(bytes.length).room);
  return { kind, ids: content.ids, lengths, codec, bytes: frame };
}

/** A fact about the snapshot whose manifest has this digest. */
export interface SnapshotFact {
  readonly digest: Uint8Array;
  readonly fact: Fact;
}

/**
 * One change of a store: new data frames, new list pieces, then a commit that publishes a snapshot, or records
 * alone. Only one is open at a time (`Store.exclusively`).
 */
export class Transaction {
  readonly #store: Store;
  #data: PackWriter | undefined;
  #meta: PackWriter | undefined;
  readonly #publishing = new Set<Promise<void>>();
  /** Units that are on their way: claimed by a worker, or in a pack that the index does not know yet. */
  readonly #pending = new Set<string>();
  readonly #pieces = new Map<UnitKind_Value, { units: Buffer[]; ids: Buffer[]; bytes: number }>();
  #appending: Promise<void> = Promise.resolve();
  #failure: unknown;
  /** A pack was on its way to its name: should this fail, it may be there without the index knowing it. */
  #published = false;
  /** Names of the packs that this change has written. */
  readonly written = new Set<string>();
  storedBytes = 0;
  newBytes = 0;
  newUnits = 0;

  private constructor(store: Store) {
    this.#store = store;
  }

  /** Runs one transaction; if `run` rejects, nothing that it has not published stays. */
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

  /**
   * Which of these units are new, one byte each. The caller stores the new ones; from now on nobody else is
   * told that they are.
   */
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

  /** Appends a proven frame of new units; resolves when the bytes are handed to the disk. */
  async append(frame: ReadyFrame): Promise<void> {
    const mine = this.#appending.then(() => this.#append(frame));
    // The next one waits for this one, whether or not it works; who called is told.
    this.#appending = mine.catch(() => {});
    await mine;
  }

  async #append(frame: ReadyFrame): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#data ??= await PackWriter.begin(this.#store.packs, PackKind_Value.DATA, this.#store.config.storeId);
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
    this.#published = true;
    const pack = await writer.publish();
    this.storedBytes += pack.size;
    const batch = this.#store.index.batch();
    const number = await this.#enter(pack, batch);
    await this.#store.index.write('index:pack', batch);
    await this.#found(number);
    for (const frame of pack.frames) {
      const ids = Buffer.from(frame.unitIds);
      for (let at = 0; at < ids.length; at += UNIT_ID_BYTES) {
        this.#pending.delete(ids.toString('latin1', at, at + UNIT_ID_BYTES));
      }
    }
  }

  /**
   * Enters a pack; `last` takes what makes it known. Until that is written, a reader of the packs enters it
   * again with all that it says: so `last` must hold everything that the pack adds to other entries.
   */
  async #enter(pack: PublishedPack, last: IndexBatch): Promise<number> {
    const { packId, kind, frames } = pack;
    this.written.add(packId.toString('hex'));
    this.#store.health.shard(packId.toString('hex', 0, 1), 'write');
    return await this.#store.index.enterPack({ packId, kind, size: BigInt(pack.size) }, frames, last);
  }

  /** A pack that was missing or damaged is there again if it has just been written. */
  async #found(pack: number): Promise<void> {
    if (!this.#store.health.isLost(pack)) return;
    this.#store.health.pack(pack, 'recover');
    await this.#store.index.setLost(pack, false);
  }

  // ----- list pieces -----

  /** Adds a piece of a list unless it is stored already; answers its id. */
  readonly addPiece = (kind: UnitKind_Value, piece: Buffer): Buffer => {
    const id = unitId(kind, piece);
    const name = id.toString('latin1');
    if (this.#pending.has(name) || this.#store.locate(id) !== undefined) return id;
    this.#pending.add(name);
    const open = this.#pieces.get(kind) ?? { units: [], ids: [], bytes: 0 };
    this.#pieces.set(kind, open);
    open.units.push(piece);
    open.ids.push(id);
    open.bytes += piece.length;
    return id;
  };

  /** Writes list pieces that have gathered, if they make a frame; call it now and then. */
  async flushPieces(all = false): Promise<void> {
    for (const [kind, open] of this.#pieces) {
      if (!all && open.bytes < META_FRAME_RAW_BYTES && open.units.length < FRAME_UNITS_MAX / 2) continue;
      this.#pieces.delete(kind);
      for (let from = 0; from < open.units.length; ) {
        let to = from;
        for (
          let bytes = 0;
          to < open.units.length && bytes < META_FRAME_RAW_BYTES && to - from < FRAME_UNITS_MAX;
          to++
        ) {
          bytes += (open.units[to] as Buffer).length;
        }
        // Ids do not compress: no effort is spent on trying.
        const options = { bulk: kind === UnitKind_Value.LIST };
        await this.#appendMeta(
          readyFrame(kind, open.units.slice(from, to), open.ids.slice(from, to), options),
        );
        from = to;
      }
    }
  }

  async #appendMeta(frame: ReadyFrame): Promise<void> {
    this.#meta ??= await PackWriter.begin(this.#store.packs, PackKind_Value.META, this.#store.config.storeId);
    await this.#meta.append(frame.bytes, frame);
  }

  // ----- commit -----

  /** Makes all data durable and known to the index. A commit does this by itself. */
  async settleData(): Promise<void> {
    await this.#appending;
    await this.#sealData();
    while (this.#publishing.size > 0) await Promise.all(this.#publishing);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /**
   * Commits a snapshot. Data is durable and indexed before; then the meta pack with the manifest is published,
   * which is the commit; then the index learns of it.
   */
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
    await this.flushPieces(true);
    const bytes = toBinary(ManifestSchema, manifest);
    const digest = sha256(bytes);
    const position = positionEntry(manifest, digest);
    await this.#appendMeta(recordFrame(UnitKind_Value.MANIFEST, [bytes]));
    if (manifest.sequence > 0n) {
      await this.#appendMeta(recordFrame(UnitKind_Value.POSITION, [toBinary(PositionEntrySchema, position)]));
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
      await this.#appendMeta(annotationFrame(tagged));
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

  /** Appends the record of what the snapshot cost. It includes its own length, which no value of it changes. */
  async #appendMeasured(annotation: Annotation, measured: Measured, record: SnapshotRecord): Promise<void> {
    // Not 0: proto3 leaves a zero out, and the record would be shorter.
    measured.storedBytes = 1n;
    annotation.fact = { case: 'measured', value: measured };
    const draft = annotationFrame(annotation);
    const meta = must(this.#meta, 'a meta pack');
    measured.storedBytes = BigInt(
      this.storedBytes + meta.sizeWith([{ frame: draft, length: draft.bytes.length }]),
    );
    await this.#appendMeta(annotationFrame(annotation));
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
    if (manifest.sequence > 0n) index.putHead(batch, position);
    more?.(batch, record.digest);
    await index.commit('index:commit', batch);
    await this.#found(number);
  }

  async #publishMeta(): Promise<PublishedPack> {
    const writer = must(this.#meta, 'a meta pack');
    this.#meta = undefined;
    this.#published = true;
    const pack = await writer.publish();
    this.#pending.clear();
    return pack;
  }

  /** Commits facts about snapshots. They are durable when this returns the records with them, in order. */
  async commitFacts(facts: readonly SnapshotFact[], nowMs: number): Promise<SnapshotRecord[]> {
    await this.settleData();
    await this.flushPieces(true);
    const { storeId } = this.#store.config;
    const at = timestampFromMs(nowMs);
    let counter = await this.#store.index.counter();
    const annotations = facts.map(({ digest, fact }) => {
      counter += 1n;
      return create(AnnotationSchema, { storeId, counter, digest, at, fact });
    });
    for (let from = 0; from < annotations.length; from += RECORDS_PER_FRAME) {
      const bytes = annotations
        .slice(from, from + RECORDS_PER_FRAME)
        .map((annotation) => toBinary(AnnotationSchema, annotation));
      await this.#appendMeta(recordFrame(UnitKind_Value.ANNOTATION, bytes));
    }
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
    await this.#found(number);
    return records;
  }

  /** Publishes what has gathered as it is, without a snapshot. */
  async finishRepack(records: { kind: UnitKind_Value; units: Uint8Array[] }[]): Promise<void> {
    await this.settleData();
    await this.flushPieces(true);
    for (const { kind, units } of records) {
      for (let from = 0; from < units.length; from += RECORDS_PER_FRAME) {
        await this.#appendMeta(recordFrame(kind, units.slice(from, from + RECORDS_PER_FRAME)));
      }
    }
    if (this.#meta !== undefined) await this.#finishMeta();
  }

  async #finishMeta(): Promise<void> {
    const pack = await this.#publishMeta();
    const batch = this.#store.index.batch();
    const number = await this.#enter(pack, batch);
    await this.#store.index.write('index:pack', batch);
    await this.#found(number);
  }

  /** Throws away what has not been published. */
  async abandon(): Promise<void> {
    if (this.#published) this.#store.health.markStale();
    await this.#appending;
    await Promise.allSettled(this.#publishing);
    const open = [this.#data, this.#meta];
    this.#data = undefined;
    this.#meta = undefined;
    for (const writer of open) await writer?.discard();
  }
}

function recordFrame(kind: UnitKind_Value, units: readonly Uint8Array[]): ReadyFrame {
  return readyFrame(
    kind,
    units,
    units.map((unit) => unitId(kind, unit)),
  );
}

function annotationFrame(annotation: Annotation): ReadyFrame {
  const bytes = toBinary(AnnotationSchema, annotation);
  return readyFrame(UnitKind_Value.ANNOTATION, [bytes], [unitId(UnitKind_Value.ANNOTATION, bytes)], {
    raw: true,
  });
}

/** Whether two lists of files are the same. */
export function sameFiles(a: Manifest, b: Manifest): boolean {
  return (
    a.files !== undefined &&
    b.files !== undefined &&
    a.files.depth === b.files.depth &&
    sameBytes(a.files.entries, b.files.entries)
  );
}
