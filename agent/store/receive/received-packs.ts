import { UNIT_ID_BYTES } from '../../../core/unit.ts';
import type {
  FrameHeader,
  PackKind_Value,
  UnitKind_Value,
} from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { PACK_BYTES } from '../../pack/format.ts';
import { type DecodedFrame, decodeVerified, FrameCache } from '../../pack/frame.ts';
import type { PackStore } from '../../pack/pack-store.ts';
import { PackWriter, type PublishedPack } from '../../pack/writer.ts';

/** Most units of one received pack, whose ids memory holds until the pack is in the index. */
const PACK_UNITS_MAX = 100_000;
/** Size of the cache of decoded list pieces, in bytes. */
const PIECE_CACHE_BYTES = 8 * 1024 * 1024;

/** A proven frame and its parsed header. */
export interface ReceivedFrame {
  readonly bytes: Buffer;
  readonly header: FrameHeader;
}

/** A pack of received frames that is not in the index yet. */
export interface ReceivedPack {
  readonly kind: PackKind_Value;
  /** Ids of its units, in latin1. */
  readonly names: string[];
  readonly writer: PackWriter;
  /** Undefined while frames are still appended. */
  published: PublishedPack | undefined;
}

interface UnitPlace {
  readonly pack: ReceivedPack;
  readonly kind: UnitKind_Value;
  readonly offset: number;
  readonly length: number;
  /** Place among the units of the frame. */
  readonly place: number;
}

/** The packs of received frames, and the units in them that the index does not have yet. */
// What is left open outlives the stream that it came on: the next receiver goes on with it.
export class ReceivedPacks {
  readonly #packs: PackStore;
  readonly #storeId: Uint8Array;
  readonly #open = new Map<PackKind_Value, ReceivedPack>();
  readonly #units = new Map<string, UnitPlace>();
  readonly #frames = new FrameCache(PIECE_CACHE_BYTES);
  #packCount = 0;
  #losses = 0;
  readonly #numbers = new Map<ReceivedPack, number>();
  /** Durable packs that are to be entered into the index. */
  readonly published = new Set<ReceivedPack>();

  constructor(packs: PackStore, storeId: Uint8Array) {
    this.#packs = packs;
    this.#storeId = storeId;
  }

  has(id: Uint8Array): boolean {
    return this.#units.has(latin1(id));
  }

  /** Appends a proven frame to the open pack of its kind. Returns whether that pack is full. */
  async append(kind: PackKind_Value, { bytes, header }: ReceivedFrame): Promise<boolean> {
    const pack = await this.open(kind);
    const { writer, names } = pack;
    const offset = writer.length;
    const { unitIds: ids, unitLengths: lengths } = header;
    const codec = header.streams[0]?.codec ?? 0;
    try {
      await writer.append(bytes, { kind: header.kind, ids, lengths, codec });
    } catch (error) {
      // A part of the frame may have been written.
      await this.drop(pack);
      throw error;
    }
    for (let place = 0; place < lengths.length; place++) {
      const name = latin1(ids.subarray(place * UNIT_ID_BYTES, (place + 1) * UNIT_ID_BYTES));
      names.push(name);
      this.#units.set(name, { pack, kind: header.kind, offset, length: bytes.length, place });
    }
    return writer.length >= PACK_BYTES || names.length >= PACK_UNITS_MAX;
  }

  /** Returns the pack to which frames of a kind are appended. */
  async open(kind: PackKind_Value): Promise<ReceivedPack> {
    const known = this.#open.get(kind);
    if (known !== undefined) return known;
    const storeId = this.#storeId;
    const writer = await PackWriter.begin(this.#packs, kind, { storeId, origin: 'peer' });
    const pack = { kind, names: [], writer, published: undefined };
    this.#numbers.set(pack, this.#packCount++);
    this.#open.set(kind, pack);
    return pack;
  }

  /** Makes the open pack of a kind durable. Returns it; undefined if there is none. Drops it if that fails. */
  async publish(kind: PackKind_Value): Promise<ReceivedPack | undefined> {
    const pack = this.#open.get(kind);
    if (pack === undefined) return undefined;
    this.#open.delete(kind);
    try {
      pack.published = await pack.writer.publish();
    } catch (error) {
      await this.drop(pack);
      throw error;
    }
    this.published.add(pack);
    return pack;
  }

  /** Returns a list piece that the index does not have yet; undefined if it was not received. */
  async piece(id: Uint8Array, kind: UnitKind_Value): Promise<Buffer | undefined> {
    const unit = this.#units.get(latin1(id));
    if (unit === undefined || unit.kind !== kind) return undefined;
    const frame = await this.#frame(unit);
    return frame.bytes.subarray(frame.starts[unit.place], frame.starts[unit.place + 1]);
  }

  async #frame({ pack, offset, length }: UnitPlace): Promise<DecodedFrame> {
    const key = `${this.#numbers.get(pack)}:${offset}`;
    const known = this.#frames.get(key);
    if (known !== undefined) return known;
    const bytes =
      pack.published === undefined
        ? await pack.writer.read(offset, length)
        : await this.#packs.get(pack.published.packId.toString('hex'), offset, length);
    const frame = decodeVerified(bytes);
    this.#frames.put(key, frame);
    return frame;
  }

  /** Number of times that received units were lost. */
  get losses(): number {
    return this.#losses;
  }

  /** Forgets the units of a lost pack. */
  lose(pack: ReceivedPack): void {
    this.#losses += 1;
    this.forget(pack);
  }

  /** Forgets the units of a pack that are in the index now. */
  forget(pack: ReceivedPack): void {
    this.published.delete(pack);
    this.#numbers.delete(pack);
    for (const name of pack.names) if (this.#units.get(name)?.pack === pack) this.#units.delete(name);
  }

  /** Drops an unpublished pack. Never rejects. */
  async drop(pack: ReceivedPack): Promise<void> {
    if (this.#open.get(pack.kind) === pack) this.#open.delete(pack.kind);
    this.lose(pack);
    await pack.writer.discard();
  }

  /** Leaves the open packs as they are, for the next owner of the store. Never rejects. */
  async release(): Promise<void> {
    for (const { writer } of this.#open.values()) await writer.release();
    this.#open.clear();
  }
}

function latin1(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString('latin1');
}
