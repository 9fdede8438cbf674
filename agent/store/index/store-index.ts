import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Level } from 'level';
import { IdFilter } from '../../../core/bloom-filter.ts';
import { ioError, LightkeeperError, systemCode } from '../../../core/errors.ts';
import { snapshotIdOf } from '../../../core/manifest.ts';
import { type SnapshotState, snapshotState } from '../../../core/snapshot.ts';
import { hex, UNIT_ID_BYTES } from '../../../core/unit.ts';
import {
  type PackRecord,
  PackRecordSchema,
  type QuietRecord,
  QuietRecordSchema,
  type SnapshotRecord,
  SnapshotRecordSchema,
} from '../../../gen/lightkeeper/index/v1/index_pb.ts';
import { type PositionEntry, PositionEntrySchema } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { type FrameInfo, UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { effect } from '../../../host/disk.ts';
import { type CheckedBatch, CheckedLevel, type Db, isDamage } from './checked-level.ts';
import { after, graphOfKey, key, u32, u64 } from './keys.ts';

/** Where a unit is. */
export interface UnitLocation {
  readonly pack: number;
  readonly frameOffset: number;
  readonly frameLength: number;
  /** Place among the units of the pack. */
  readonly ordinal: number;
  /** Place among the units of the frame. */
  readonly place: number;
  readonly kind: UnitKind_Value;
}

const LOCATION_BYTES = 19;
/** Packs that are remembered to be there; beyond this it is asked again. */
const KNOWN_PACKS_MAX = 10_000;
/** Entries of one batch: a batch is held in memory whole. */
const BATCH_ENTRIES = 1000;
const CACHE_BYTES = 8 * 1024 * 1024;
/** What is in it is written again at the next open, so neither too small nor too large for a large capture. */
const WRITE_BUFFER_BYTES = 4 * 1024 * 1024;

/** Writes that become durable together. */
export type IndexBatch = CheckedBatch;

function encodeLocation(location: UnitLocation): Buffer {
  const out = Buffer.allocUnsafe(LOCATION_BYTES);
  out.writeUInt32LE(location.pack, 0);
  out.writeUInt32LE(location.frameOffset, 4);
  out.writeUInt32LE(location.frameLength, 8);
  out.writeUInt32LE(location.ordinal, 12);
  out.writeUInt16LE(location.place, 16);
  out[18] = location.kind;
  return out;
}

function decodeLocation(bytes: Buffer): UnitLocation {
  return {
    pack: bytes.readUInt32LE(0),
    frameOffset: bytes.readUInt32LE(4),
    frameLength: bytes.readUInt32LE(8),
    ordinal: bytes.readUInt32LE(12),
    place: bytes.readUInt16LE(16),
    kind: bytes[18] as number,
  };
}

/** Units and original bytes of frames, and how many of them are notes. */
function countUnits(frames: readonly FrameInfo[]) {
  const counts = { units: 0, rawBytes: 0n, recordUnits: 0, recordBytes: 0n };
  for (const { kind, unitLengths } of frames) {
    const bytes = BigInt(unitLengths.reduce((sum, length) => sum + length, 0));
    counts.units += unitLengths.length;
    counts.rawBytes += bytes;
    if (kind !== UnitKind_Value.POSITION && kind !== UnitKind_Value.ANNOTATION) continue;
    counts.recordUnits += unitLengths.length;
    counts.recordBytes += bytes;
  }
  return counts;
}

/**
 * The cache beside the packs: where each unit is, what packs and snapshots there are. All of it can be made
 * again from the packs, but for when a directory was last found unchanged.
 */
export class StoreIndex {
  readonly #db: CheckedLevel;
  readonly #storeId: Uint8Array;
  #nextPack = 0;
  /** Packs that were found to have a record. */
  readonly #known = new Set<number>();
  /** What has been entered into an index that was empty when it was opened: for the rest nothing need be read. */
  #entered: IdFilter | undefined;

  private constructor(db: Db, storeId: Uint8Array) {
    this.#db = new CheckedLevel(db);
    this.#storeId = storeId;
  }

  /** Opens or makes it. IN_USE if another process has it, DAMAGED if LevelDB cannot read it. */
  static async open(path: string, storeId: Uint8Array): Promise<StoreIndex> {
    const db: Db = new Level(path, {
      keyEncoding: 'buffer',
      valueEncoding: 'buffer',
      cacheSize: CACHE_BYTES,
      writeBufferSize: WRITE_BUFFER_BYTES,
      maxOpenFiles: 100,
    });
    try {
      await db.open();
    } catch (error) {
      const cause = error instanceof Error ? error.cause : undefined;
      if (systemCode(cause) === 'LEVEL_LOCKED') {
        throw new LightkeeperError('IN_USE', `Cannot open "${path}": another process has it`, {
          cause: error,
        });
      }
      // A full disk is no damage: nothing would be gained by making the index again.
      if (!isDamage(cause)) throw ioError('open', path, cause);
      throw new LightkeeperError('DAMAGED', `Cannot open "${path}": the index is damaged`, { cause: error });
    }
    const index = new StoreIndex(db, storeId);
    const last = { gte: key('p'), lt: after(key('p')), reverse: true, limit: 1 };
    try {
      for await (const number of index.#db.keys(last)) index.#nextPack = number.readUInt32BE(1) + 1;
      if (await index.isEmpty()) index.#entered = new IdFilter();
    } catch (error) {
      await db.close();
      throw error;
    }
    return index;
  }

  /** Bytes of it were found that are not what was written: it is to be made again. */
  get damaged(): boolean {
    return this.#db.damaged;
  }

  /** Has it made again. */
  markDamaged(): void {
    this.#db.damaged = true;
  }

  async close(): Promise<void> {
    await this.#db.close();
  }

  /** Whether nothing has been entered yet. */
  async isEmpty(): Promise<boolean> {
    return (await this.#db.keyList({ limit: 1 })).length === 0;
  }

  /** A batch that is held in native memory; `commit` makes it durable. */
  batch(): IndexBatch {
    return this.#db.batch();
  }

  /** Writes a batch that may be lost in a power loss: the packs say the same. */
  async write(label: string, batch: IndexBatch): Promise<void> {
    await effect({ label, op: 'other', path: 'index' }, () => batch.write());
  }

  /** Writes a batch, synced: when this returns it survives a power loss. */
  async commit(label: string, batch: IndexBatch): Promise<void> {
    await effect({ label, op: 'other', path: 'index' }, () => batch.write({ sync: true }));
  }

  // ----- units -----

  /** Where units are; undefined for those that the index does not know. */
  async locate(ids: readonly Buffer[]): Promise<(UnitLocation | undefined)[]> {
    if (this.#entered !== undefined && !ids.some((id) => this.#entered?.mayHold(id))) {
      return ids.map(() => undefined);
    }
    const values = await this.#db.getMany(ids.map((id) => key('u', id)));
    return values.map((value) => this.#resolve(value));
  }

  /** As `locate`, for one unit and without waiting. */
  locateSync(id: Uint8Array): UnitLocation | undefined {
    if (this.#entered?.mayHold(id) === false) return undefined;
    return this.#resolve(this.#db.getSync(key('u', id)));
  }

  /** An entry is only believed if its pack has a record: damage of the index may take one and leave the other. */
  #resolve(value: Buffer | undefined): UnitLocation | undefined {
    if (value === undefined) return undefined;
    const location = decodeLocation(value);
    if (this.#known.has(location.pack)) return location;
    if (this.#db.getSync(key('p', u32(location.pack))) === undefined) return undefined;
    if (this.#known.size >= KNOWN_PACKS_MAX) this.#known.clear();
    this.#known.add(location.pack);
    return location;
  }

  /**
   * Enters a published pack: its units first, in bounded batches, its own record in `last`, which the caller
   * writes, so that a record means that the units are there. Answers the pack's number.
   */
  async enterPack(
    { packId, kind, size }: Pick<PackRecord, 'packId' | 'kind' | 'size'>,
    frames: readonly FrameInfo[],
    last: IndexBatch,
  ): Promise<number> {
    const record = create(PackRecordSchema, { packId, kind, size, ...countUnits(frames) });
    const known = await this.packNumber(record.packId);
    const pack = known ?? this.#nextPack++;
    let batch = this.batch();
    let ordinal = 0;
    for (const frame of frames) {
      for (let place = 0; place < frame.unitLengths.length; place++) {
        const id = frame.unitIds.subarray(place * UNIT_ID_BYTES, (place + 1) * UNIT_ID_BYTES);
        this.#entered?.add(id);
        batch.put(
          key('u', id),
          encodeLocation({
            pack,
            frameOffset: frame.offset,
            frameLength: frame.length,
            ordinal,
            place,
            kind: frame.kind,
          }),
        );
        ordinal += 1;
        if (batch.length >= BATCH_ENTRIES) {
          await this.write('index:units', batch);
          batch = this.batch();
        }
      }
    }
    await this.write('index:units', batch);
    last.put(key('p', u32(pack)), Buffer.from(toBinary(PackRecordSchema, record)));
    last.put(key('P', record.packId), u32(pack));
    return pack;
  }

  /** Removes the entries of a pack, those of its units that still point to it included; `sync` makes it durable. */
  async removePack(pack: number, frames: readonly FrameInfo[]): Promise<void> {
    const record = await this.pack(pack);
    let batch = this.batch();
    for (const frame of frames) {
      for (let place = 0; place < frame.unitLengths.length; place++) {
        const id = frame.unitIds.subarray(place * UNIT_ID_BYTES, (place + 1) * UNIT_ID_BYTES);
        if (this.locateSync(id)?.pack !== pack) continue;
        batch.del(key('u', id));
        if (batch.length >= BATCH_ENTRIES) {
          await this.write('index:units', batch);
          batch = this.batch();
        }
      }
    }
    batch.del(key('p', u32(pack)));
    batch.del(key('l', u32(pack)));
    if (record !== undefined) {
      batch.del(key('P', record.packId));
      // Should the file outlive this, the next open must find it: its folder is to be listed again.
      batch.del(key('d', hex(record.packId).slice(0, 2)));
    }
    await this.write('index:pack-remove', batch);
    this.#known.delete(pack);
  }

  /** Makes all that was written before durable. */
  async sync(): Promise<void> {
    const batch = this.batch();
    batch.put(key('m', 'synced'), Buffer.alloc(0));
    await this.commit('index:sync', batch);
  }

  // ----- packs -----

  async packNumber(packId: Uint8Array): Promise<number | undefined> {
    return (await this.#db.get(key('P', packId)))?.readUInt32BE(0);
  }

  async pack(pack: number): Promise<PackRecord | undefined> {
    const value = await this.#db.get(key('p', u32(pack)));
    return value === undefined ? undefined : fromBinary(PackRecordSchema, value);
  }

  /** Marks a pack as gone, or as back; synced. */
  async setLost(pack: number, lost: boolean): Promise<void> {
    const record = await this.pack(pack);
    if (record === undefined) return;
    record.lost = lost;
    const batch = this.batch();
    batch.put(key('p', u32(pack)), Buffer.from(toBinary(PackRecordSchema, record)));
    if (lost) batch.put(key('l', u32(pack)), Buffer.alloc(0));
    else batch.del(key('l', u32(pack)));
    await this.commit('index:pack-lost', batch);
  }

  /** Packs that were found to be gone. */
  async lostPacks(): Promise<number[]> {
    const keys = await this.#db.keyList({ gte: key('l'), lt: after(key('l')) });
    return keys.map((at) => at.readUInt32BE(1));
  }

  async *packs(): AsyncIterable<[pack: number, record: PackRecord]> {
    for await (const [at, value] of this.#db.iterator({ gte: key('p'), lt: after(key('p')) })) {
      yield [at.readUInt32BE(1), fromBinary(PackRecordSchema, value)];
    }
  }

  /** Ids and numbers of the packs of one shard ("00" to "ff"). */
  async packsOfShard(shard: string): Promise<Map<string, number>> {
    const prefix = key('P', Buffer.from(shard, 'hex'));
    const found = new Map<string, number>();
    for await (const [at, value] of this.#db.iterator({ gte: prefix, lt: after(prefix) })) {
      found.set(hex(at.subarray(1)), value.readUInt32BE(0));
    }
    return found;
  }

  async shardStamp(shard: string): Promise<string | undefined> {
    return (await this.#db.get(key('d', shard)))?.toString();
  }

  async shardStamps(shards: readonly string[]): Promise<(string | undefined)[]> {
    const values = await this.#db.getMany(shards.map((shard) => key('d', shard)));
    return values.map((value) => value?.toString());
  }

  putShardStamp(batch: IndexBatch, shard: string, stamp: string): void {
    batch.put(key('d', shard), Buffer.from(stamp));
  }

  // ----- snapshots -----

  putRecord(batch: IndexBatch, at: Buffer, record: SnapshotRecord): void {
    batch.put(at, Buffer.from(toBinary(SnapshotRecordSchema, record)));
    batch.put(key('i', snapshotIdOf(record.digest)), at);
  }

  removeRecord(batch: IndexBatch, at: Buffer, snapshotId: string): void {
    batch.del(at);
    batch.del(key('i', snapshotId));
  }

  async record(at: Buffer): Promise<SnapshotState | undefined> {
    const value = await this.#db.get(at);
    return value === undefined ? undefined : this.#state(value);
  }

  /** Keys of the records whose snapshot ids begin so, two at the most. */
  async recordsByPrefix(prefix: string): Promise<Buffer[]> {
    const from = key('i', prefix);
    const found: Buffer[] = [];
    for await (const at of this.#db.values({ gte: from, lt: after(from), limit: 2 })) found.push(at);
    return found;
  }

  /** Records of one graph or of all, newest first, after the record at `before`. */
  async *records(options: {
    graphId?: string;
    side?: boolean;
    before?: Buffer;
    reverse?: boolean;
  }): AsyncIterable<[at: Buffer, state: SnapshotState]> {
    const letter = options.side === true ? 'x' : 's';
    const prefix = options.graphId === undefined ? key(letter) : key(letter, options.graphId, '\0');
    const lt = options.before ?? after(prefix);
    for await (const [at, value] of this.#db.iterator({
      gte: prefix,
      lt,
      reverse: options.reverse ?? true,
    })) {
      yield [at, this.#state(value)];
    }
  }

  #state(value: Uint8Array): SnapshotState {
    return snapshotState(fromBinary(SnapshotRecordSchema, value), this.#storeId);
  }

  /** Graphs that have a snapshot, in order. */
  async graphs(): Promise<string[]> {
    const found: string[] = [];
    for (const letter of ['s', 'x']) {
      let from = key(letter);
      for (;;) {
        const [at] = await this.#db.keyList({ gte: from, lt: after(key(letter)), limit: 1 });
        if (at === undefined) break;
        const graphId = graphOfKey(at);
        if (!found.includes(graphId)) found.push(graphId);
        from = after(key(letter, graphId, '\0'));
      }
    }
    return found.sort();
  }

  /** The newest position of a graph, that of a deleted snapshot included. */
  async head(graphId: string): Promise<PositionEntry | undefined> {
    const value = await this.#db.get(key('h', graphId));
    return value === undefined ? undefined : fromBinary(PositionEntrySchema, value);
  }

  putHead(batch: IndexBatch, entry: PositionEntry): void {
    batch.put(key('h', entry.graphId), Buffer.from(toBinary(PositionEntrySchema, entry)));
  }

  /** Annotations of a snapshot whose manifest has not been seen. */
  async strayAnnotations(digest: Uint8Array): Promise<SnapshotRecord | undefined> {
    const value = await this.#db.get(key('a', digest));
    return value === undefined ? undefined : fromBinary(SnapshotRecordSchema, value);
  }

  /** Every record of annotations whose manifest was not read. */
  async *strays(): AsyncIterable<SnapshotRecord> {
    for await (const value of this.#db.values({ gte: key('a'), lt: after(key('a')) }))
      yield fromBinary(SnapshotRecordSchema, value);
  }

  putStrayAnnotations(batch: IndexBatch, record: SnapshotRecord): void {
    batch.put(key('a', record.digest), Buffer.from(toBinary(SnapshotRecordSchema, record)));
  }

  removeStrayAnnotations(batch: IndexBatch, digest: Uint8Array): void {
    batch.del(key('a', digest));
  }

  // ----- what only this machine knows -----

  async changeTimes(graphId: string, n: number): Promise<Buffer | undefined> {
    return await this.#db.get(key('c', graphId, '\0', u32(n)));
  }

  putChangeTimes(batch: IndexBatch, graphId: string, n: number, times: Buffer): void {
    batch.put(key('c', graphId, '\0', u32(n)), times);
  }

  async confirmedAt(graphId: string): Promise<number | undefined> {
    const value = await this.#db.get(key('k', graphId));
    return value === undefined ? undefined : Number(value.readBigUInt64BE());
  }

  putConfirmedAt(batch: IndexBatch, graphId: string, atMs: number): void {
    batch.put(key('k', graphId), u64(BigInt(Math.max(0, Math.floor(atMs)))));
  }

  /** What was learned of how a graph is written. */
  async quietRecord(graphId: string): Promise<QuietRecord | undefined> {
    const value = await this.#db.get(key('q', graphId));
    return value === undefined ? undefined : fromBinary(QuietRecordSchema, value);
  }

  putQuietRecord(batch: IndexBatch, graphId: string, record: QuietRecord): void {
    batch.put(key('q', graphId), Buffer.from(toBinary(QuietRecordSchema, record)));
  }

  /** Whether units that snapshots refer to were found to be missing or damaged. */
  async isIncomplete(): Promise<boolean> {
    return (await this.#db.get(key('m', 'distrusted'))) !== undefined;
  }

  /** Notes that something is missing: what was known to be whole is not known to be any more. */
  async markIncomplete(): Promise<void> {
    const batch = this.batch();
    batch.put(key('m', 'distrusted'), Buffer.alloc(0));
    const whole = key('w');
    for await (const at of this.#db.keys({ gte: whole, lt: after(whole) })) batch.del(at);
    await this.commit('index:distrust', batch);
  }

  /** Notes that nothing is missing. */
  async markComplete(): Promise<void> {
    const batch = this.batch();
    batch.del(key('m', 'distrusted'));
    await this.commit('index:trust', batch);
  }

  /** Digest of the snapshot of a graph all of whose units were looked up since something was found missing. */
  async completeDigest(graphId: string): Promise<Buffer | undefined> {
    return await this.#db.get(key('w', graphId));
  }

  putCompleteDigest(batch: IndexBatch, graphId: string, digest: Uint8Array): void {
    batch.put(key('w', graphId), Buffer.from(digest));
  }

  /** The last number that this store gave to an annotation. */
  async counter(): Promise<bigint> {
    return (await this.#db.get(key('m', 'counter')))?.readBigUInt64BE() ?? 0n;
  }

  /** Notes that annotations up to this number exist. */
  async raiseCounter(batch: IndexBatch, counter: bigint): Promise<void> {
    if (counter > (await this.counter())) batch.put(key('m', 'counter'), u64(counter));
  }
}
