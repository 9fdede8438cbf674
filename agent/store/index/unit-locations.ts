import { IdFilter } from '../../../core/bloom-filter.ts';
import { UNIT_ID_BYTES } from '../../../core/unit.ts';
import type { FrameInfo, UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { type CheckedBatch, type CheckedLevel, writeBatch } from './checked-level.ts';
import { after, key, u32 } from './keys.ts';

/** The place of a unit in the packs. */
export interface UnitLocation {
  /** Number of the pack. */
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
/** Most packs that are cached as having a record. */
const KNOWN_PACKS_MAX = 10_000;
/** Most entries of one batch, which memory holds whole. */
const BATCH_ENTRIES = 1000;

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

/** The part of the index that maps the id of a unit to its location. */
export class UnitLocations {
  readonly #db: CheckedLevel;
  /** Numbers of packs that have a record. */
  readonly #knownPacks = new Set<number>();
  /** Ids entered since the index was empty; undefined if it was not empty at the start. */
  readonly #entered: IdFilter | undefined;

  // In an index that was empty at the start, ids that were not entered need no read.
  constructor(db: CheckedLevel, options: { isEmpty: boolean }) {
    this.#db = db;
    this.#entered = options.isEmpty ? new IdFilter() : undefined;
  }

  /** Returns the locations of units; undefined for those that are not in the index. */
  async locate(ids: readonly Buffer[]): Promise<(UnitLocation | undefined)[]> {
    if (this.#entered !== undefined && !ids.some((id) => this.#entered?.mayHold(id))) {
      return ids.map(() => undefined);
    }
    const values = await this.#db.getMany(ids.map((id) => key('u', id)));
    return values.map((value) => this.#resolve(value));
  }

  /** Returns the location of a unit synchronously; undefined if it is not in the index. */
  locateSync(id: Uint8Array): UnitLocation | undefined {
    if (this.#entered?.mayHold(id) === false) return undefined;
    return this.#resolve(this.#db.getSync(key('u', id)));
  }

  /** Decodes an entry. Returns undefined if its pack has no record. */
  // Damage of the index may remove the record and leave the entry.
  #resolve(value: Buffer | undefined): UnitLocation | undefined {
    if (value === undefined) return undefined;
    const location = decodeLocation(value);
    if (this.#knownPacks.has(location.pack)) return location;
    if (this.#db.getSync(key('p', u32(location.pack))) === undefined) return undefined;
    if (this.#knownPacks.size >= KNOWN_PACKS_MAX) this.#knownPacks.clear();
    this.#knownPacks.add(location.pack);
    return location;
  }

  /** Enters the units of a pack, in bounded batches. */
  async enter(pack: number, frames: readonly FrameInfo[]): Promise<void> {
    let batch = this.#db.batch();
    let ordinal = 0;
    for (const { offset, length, kind, unitIds, unitLengths } of frames) {
      for (let place = 0; place < unitLengths.length; place++) {
        const id = unitIds.subarray(place * UNIT_ID_BYTES, (place + 1) * UNIT_ID_BYTES);
        this.#entered?.add(id);
        batch.put(
          key('u', id),
          encodeLocation({ pack, frameOffset: offset, frameLength: length, ordinal, place, kind }),
        );
        ordinal += 1;
        if (batch.length >= BATCH_ENTRIES) {
          await writeBatch('index:units', batch);
          batch = this.#db.batch();
        }
      }
    }
    await writeBatch('index:units', batch);
  }

  /** Removes the units that are located in a pack. Returns the last batch of them, which the caller writes. */
  async remove(pack: number, frames: readonly FrameInfo[]): Promise<CheckedBatch> {
    let batch = this.#db.batch();
    for (const { unitIds, unitLengths } of frames) {
      for (let place = 0; place < unitLengths.length; place++) {
        const id = unitIds.subarray(place * UNIT_ID_BYTES, (place + 1) * UNIT_ID_BYTES);
        if (this.locateSync(id)?.pack !== pack) continue;
        batch.del(key('u', id));
        if (batch.length >= BATCH_ENTRIES) {
          await writeBatch('index:units', batch);
          batch = this.#db.batch();
        }
      }
    }
    return batch;
  }

  /** Removes all units that are located in a pack. Reads every entry of the index. */
  async removeAll(pack: number): Promise<void> {
    let batch = this.#db.batch();
    for await (const [at, value] of this.#db.iterator({ gte: key('u'), lt: after(key('u')) })) {
      if (decodeLocation(value).pack !== pack) continue;
      batch.del(at);
      if (batch.length < BATCH_ENTRIES) continue;
      await writeBatch('index:units', batch);
      batch = this.#db.batch();
    }
    await writeBatch('index:units', batch);
  }

  /** Drops a removed pack from the cache of known packs. */
  forgetPack(pack: number): void {
    this.#knownPacks.delete(pack);
  }
}
