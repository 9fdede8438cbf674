import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Level } from 'level';
import { ioError, LightkeeperError, systemCode } from '../../../core/errors.ts';
import { snapshotIdOf } from '../../../core/manifest.ts';
import { type SnapshotState, snapshotState } from '../../../core/snapshot.ts';
import { hex, sameBytes } from '../../../core/unit.ts';
import {
  type PackRecord,
  PackRecordSchema,
  type SnapshotRecord,
  SnapshotRecordSchema,
} from '../../../gen/lightkeeper/index/v1/index_pb.ts';
import { type PositionEntry, PositionEntrySchema } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { type FrameInfo, UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { type CheckedBatch, CheckedLevel, type Db, isDamage, writeBatch } from './checked-level.ts';
import { after, graphOfKey, key, u32, u64 } from './keys.ts';
import { LocalState } from './local-state.ts';
import { PositionLog, type PositionRange } from './position-log.ts';
import { type UnitLocation, UnitLocations } from './unit-locations.ts';

const CACHE_BYTES = 8 * 1024 * 1024;
/** Bytes of the write buffer. */
// Its content is written again at the next open: a larger one makes that slower, a smaller one a large capture.
const WRITE_BUFFER_BYTES = 4 * 1024 * 1024;

/** Version of the index. One of another version is rebuilt from the packs. */
// 2: the position log.
const INDEX_VERSION = 2;
const VERSION_KEY = key('m', 'version');

/** A batch of writes that become durable together. */
export type IndexBatch = CheckedBatch;

/** Counts the units and original bytes of frames, and those of positions and annotations. */
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

/** The index of a store: the locations of units, the packs and the snapshots. It can be rebuilt from the packs. */
// Only `local` is not in the packs.
export class StoreIndex {
  readonly #db: CheckedLevel;
  readonly #storeId: Uint8Array;
  #nextPack: number;
  readonly #units: UnitLocations;
  /** What this machine observed, which is not in the packs. */
  readonly local: LocalState;
  /** Positions of all graphs. */
  readonly #positions: PositionLog;

  private constructor(db: CheckedLevel, storeId: Uint8Array, start: { isEmpty: boolean; nextPack: number }) {
    this.#db = db;
    this.#storeId = storeId;
    this.#nextPack = start.nextPack;
    this.#units = new UnitLocations(db, start);
    this.local = new LocalState(db);
    this.#positions = new PositionLog(db);
  }

  /** Opens or creates an index. IN_USE if another process has it open, DAMAGED if it must be rebuilt. */
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
        throw new LightkeeperError('IN_USE', `Cannot open "${path}": another process has it open`, {
          cause: error,
        });
      }
      // A full disk is no damage: a rebuild would not help.
      if (!isDamage(cause)) throw ioError('open', path, cause);
      throw new LightkeeperError('DAMAGED', `Cannot open "${path}": the index is damaged`, { cause: error });
    }
    try {
      const checked = new CheckedLevel(db);
      const [last] = await checked.keyList({ gte: key('p'), lt: after(key('p')), reverse: true, limit: 1 });
      const nextPack = last === undefined ? 0 : last.readUInt32BE(1) + 1;
      const isEmpty = await holdsVersionAlone(checked);
      await checkVersion(checked, isEmpty);
      return new StoreIndex(checked, storeId, { isEmpty, nextPack });
    } catch (error) {
      await db.close();
      throw error;
    }
  }

  /** Whether damage was found, so that the index must be rebuilt. */
  get damaged(): boolean {
    return this.#db.damaged;
  }

  /** Marks the index as damaged, so that it is rebuilt. */
  markDamaged(): void {
    this.#db.damaged = true;
  }

  async close(): Promise<void> {
    await this.#db.close();
  }

  /** Reports whether nothing has been entered yet. */
  async isEmpty(): Promise<boolean> {
    return await holdsVersionAlone(this.#db);
  }

  /** Begins a batch, which `write` or `commit` writes. */
  batch(): IndexBatch {
    return this.#db.batch();
  }

  /** Writes a batch that may be lost in a power loss, because the packs have its content. */
  async write(label: string, batch: IndexBatch): Promise<void> {
    await writeBatch(label, batch);
  }

  /** Writes a batch durably: when this returns it survives a power loss. */
  async commit(label: string, batch: IndexBatch): Promise<void> {
    await writeBatch(label, batch, { sync: true });
  }

  // ----- units -----

  /** Returns the locations of units; undefined for those that are not in the index. */
  async locate(ids: readonly Buffer[]): Promise<(UnitLocation | undefined)[]> {
    return await this.#units.locate(ids);
  }

  /** Returns the location of a unit synchronously; undefined if it is not in the index. */
  locateSync(id: Uint8Array): UnitLocation | undefined {
    return this.#units.locateSync(id);
  }

  /** Enters a published pack: its units now, its record into `last`. Returns the number of the pack. */
  // The caller writes `last`, so that a record means that the units have been entered.
  async enterPack(
    { packId, kind, size }: Pick<PackRecord, 'packId' | 'kind' | 'size'>,
    frames: readonly FrameInfo[],
    last: IndexBatch,
  ): Promise<number> {
    const record = create(PackRecordSchema, { packId, kind, size, ...countUnits(frames) });
    const known = await this.packNumber(record.packId);
    const pack = known ?? this.#nextPack++;
    await this.#units.enter(pack, frames);
    last.put(key('p', u32(pack)), Buffer.from(toBinary(PackRecordSchema, record)));
    last.put(key('P', record.packId), u32(pack));
    return pack;
  }

  /** Removes a pack and the units that are located in it. `sync` makes this durable. */
  async removePack(pack: number, frames: readonly FrameInfo[]): Promise<void> {
    const record = await this.pack(pack);
    const batch = await this.#units.remove(pack, frames);
    batch.del(key('p', u32(pack)));
    batch.del(key('l', u32(pack)));
    if (record !== undefined) {
      batch.del(key('P', record.packId));
      // If the file outlives this, the next open must find it: its shard must be listed again.
      batch.del(key('d', hex(record.packId).slice(0, 2)));
    }
    await this.write('index:pack-remove', batch);
    this.#units.forgetPack(pack);
  }

  /** Removes a lost pack and the units that are located in it, without its table. */
  async dropPack(pack: number): Promise<void> {
    await this.#units.removeAll(pack);
    await this.removePack(pack, []);
  }

  /** Makes all earlier writes durable. */
  async sync(): Promise<void> {
    const batch = this.batch();
    batch.put(key('m', 'synced'), Buffer.alloc(0));
    await this.commit('index:sync', batch);
  }

  // ----- packs -----

  /** Returns the number of a pack in this index. */
  async packNumber(packId: Uint8Array): Promise<number | undefined> {
    return (await this.#db.get(key('P', packId)))?.readUInt32BE(0);
  }

  async pack(pack: number): Promise<PackRecord | undefined> {
    const value = await this.#db.get(key('p', u32(pack)));
    return value === undefined ? undefined : fromBinary(PackRecordSchema, value);
  }

  /** Marks a pack as lost or not lost, durably. */
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

  /** Returns the numbers of the packs that are marked as lost. */
  async lostPacks(): Promise<number[]> {
    const keys = await this.#db.keyList({ gte: key('l'), lt: after(key('l')) });
    return keys.map((at) => at.readUInt32BE(1));
  }

  async *packs(): AsyncIterable<[pack: number, record: PackRecord]> {
    for await (const [at, value] of this.#db.iterator({ gte: key('p'), lt: after(key('p')) })) {
      yield [at.readUInt32BE(1), fromBinary(PackRecordSchema, value)];
    }
  }

  /** Returns the ids and numbers of the packs of one shard ("00" to "ff"). */
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

  /** Returns the state of the snapshot whose record is at a key. */
  async record(at: Buffer): Promise<SnapshotState | undefined> {
    const value = await this.#db.get(at);
    return value === undefined ? undefined : this.#state(value);
  }

  /** Returns the keys of the records whose snapshot ids begin with `prefix`, at most two. */
  async recordsByPrefix(prefix: string): Promise<Buffer[]> {
    const from = key('i', prefix);
    const found: Buffer[] = [];
    for await (const at of this.#db.values({ gte: from, lt: after(from), limit: 2 })) found.push(at);
    return found;
  }

  /** Returns the snapshot with a digest and the key of its record; undefined if the index has no record of it. */
  async find(digest: Uint8Array): Promise<{ at: Buffer; state: SnapshotState } | undefined> {
    const [at] = await this.recordsByPrefix(snapshotIdOf(digest));
    const state = at === undefined ? undefined : await this.record(at);
    // An id is half of a digest, and the digest may come from a peer.
    const isIt = at !== undefined && state !== undefined && sameBytes(state.digest, digest);
    return isIt ? { at, state } : undefined;
  }

  /** Returns what is known of the snapshot with a digest, which may be its annotations alone. */
  async known(digest: Uint8Array): Promise<SnapshotState | undefined> {
    const found = await this.find(digest);
    if (found !== undefined) return found.state;
    const stray = await this.strayAnnotations(digest);
    return stray === undefined ? undefined : snapshotState(stray, this.#storeId);
  }

  /** Yields snapshots of one graph or of all with their keys, newest first, from the key `before` on. */
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

  /** Returns the ids of the graphs that have a snapshot, sorted. */
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

  /** Returns the newest position of a graph that is on no fork, including positions of deleted snapshots. */
  async head(graphId: string): Promise<PositionEntry | undefined> {
    const value = await this.#db.get(key('h', graphId));
    return value === undefined ? undefined : fromBinary(PositionEntrySchema, value);
  }

  putHead(batch: IndexBatch, entry: PositionEntry): void {
    batch.put(key('h', entry.graphId), Buffer.from(toBinary(PositionEntrySchema, entry)));
  }

  removeHead(batch: IndexBatch, graphId: string): void {
    batch.del(key('h', graphId));
  }

  // ----- positions -----

  /** Enters a position into the log of its graph. It stays when its snapshot is deleted. */
  putPosition(batch: IndexBatch, entry: PositionEntry): void {
    this.#positions.put(batch, entry);
  }

  /** Yields the positions of a graph, also those of deleted snapshots, the oldest first. */
  positions(graphId: string, range: PositionRange = {}): AsyncIterable<PositionEntry> {
    return this.#positions.entries(graphId, range);
  }

  /** Returns the position of the snapshot with this digest; undefined if the log of the graph lacks it. */
  async position(graphId: string, digest: Uint8Array): Promise<PositionEntry | undefined> {
    const entry = await this.#positions.find(digest);
    return entry?.graphId === graphId ? entry : undefined;
  }

  /** Returns the position of the snapshot with this digest in the log of any graph; undefined if none has it. */
  async positionOf(digest: Uint8Array): Promise<PositionEntry | undefined> {
    return await this.#positions.find(digest);
  }

  /** Returns the ids of the graphs that have a position, sorted. */
  async positionGraphs(): Promise<string[]> {
    return await this.#positions.graphs();
  }

  // ----- annotations -----

  /** Returns the annotations of a snapshot whose manifest is not in the index. */
  async strayAnnotations(digest: Uint8Array): Promise<SnapshotRecord | undefined> {
    const value = await this.#db.get(key('a', digest));
    return value === undefined ? undefined : fromBinary(SnapshotRecordSchema, value);
  }

  /** Yields every record of annotations whose manifest is not in the index. */
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

  /** Returns the highest counter of this store's annotations. */
  async counter(): Promise<bigint> {
    return (await this.#db.get(key('m', 'counter')))?.readBigUInt64BE() ?? 0n;
  }

  /** Raises the counter of this store's annotations if it is lower. */
  async raiseCounter(batch: IndexBatch, counter: bigint): Promise<void> {
    if (counter > (await this.counter())) batch.put(key('m', 'counter'), u64(counter));
  }
}

/** Reports whether nothing but its version has been entered into an index. */
async function holdsVersionAlone(db: CheckedLevel): Promise<boolean> {
  const keys = await db.keyList({ limit: 2 });
  return keys.every((at) => at.equals(VERSION_KEY));
}

/** Writes the version into a new index. DAMAGED if the index has another version. */
async function checkVersion(db: CheckedLevel, isEmpty: boolean): Promise<void> {
  const version = (await db.get(VERSION_KEY))?.readUInt32BE(0);
  if (version === INDEX_VERSION) return;
  if (!isEmpty || version !== undefined)
    throw new LightkeeperError('DAMAGED', `Cannot read the index: it has version ${version ?? 1}`);
  await writeBatch('index:version', db.batch().put(VERSION_KEY, u32(INDEX_VERSION)));
}
