import { LightkeeperError, normalise } from '../../../core/errors.ts';
import { hex, UNIT_ID_BYTES } from '../../../core/unit.ts';
import { UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { decodeVerified, parseFrame } from '../../pack/frame.ts';
import { FrameProver } from '../frame-prover.ts';
import type { UnitLocation } from '../index/unit-locations.ts';
import { encodeProvenFrame } from '../meta-writer.ts';
import type { Store } from '../store.ts';

/** Share of a frame's units from which on the whole frame is sent. */
const WHOLE_SHARE = 0.5;
/** Original bytes of units taken from several frames at which they are sent. */
const GATHERED_BYTES = 1024 * 1024;
const GATHERED_UNITS = 4096;
/** Original bytes above which compression is for speed. */
const BULK_BYTES = 256 * 1024;
/** Most frames that are remembered as sent. */
const SENT_FRAMES_MAX = 1024;

const SENT_KINDS: ReadonlySet<UnitKind_Value> = new Set([
  UnitKind_Value.BYTES,
  UnitKind_Value.LIST,
  UnitKind_Value.FILES,
]);

/** A part of the reply to a request for units. */
export type SentUnits =
  | { readonly kind: 'frame'; readonly frame: Buffer }
  /** Ids of units that the store does not have, or not whole. */
  | { readonly kind: 'missing'; readonly ids: Buffer[] };

/** Options of a sender. */
export interface SenderOptions {
  /** Receives the name of a pack in which a frame was found missing or damaged. */
  readonly onDamage?: (packId: string, error: LightkeeperError) => void;
}

interface WantedUnit {
  readonly id: Buffer;
  readonly location: UnitLocation;
}

/** Units taken from frames of which less than half is wanted. */
interface Gathered {
  readonly ids: Buffer[];
  readonly units: Buffer[];
  bytes: number;
}

/** Sends the frames that hold units, for one stream. Every frame is verified before it is sent. */
export class FrameSender {
  readonly #store: Store;
  readonly #prover: FrameProver;
  readonly #onDamage: (packId: string, error: LightkeeperError) => void;
  /** Places of the units that were asked for, of each frame that was sent whole. */
  readonly #sent = new Map<string, Set<number>>();
  #losses = 0;

  constructor(store: Store, { onDamage = () => {} }: SenderOptions = {}) {
    this.#store = store;
    this.#prover = new FrameProver(store.workers);
    this.#onDamage = onDamage;
  }

  /**
   * Yields frames with all of these units that the store has, then the ids of the others. A frame of which less than
   * half is wanted is cut down. A frame that was sent whole is not sent again, unless one of its units is asked for
   * twice.
   */
  async *send(ids: readonly Buffer[]): AsyncGenerator<SentUnits> {
    // A rebuilt index numbers the packs again.
    if (this.#losses !== this.#store.health.losses) this.#sent.clear();
    this.#losses = this.#store.health.losses;
    const missing: Buffer[] = [];
    const gathered = new Map<UnitKind_Value, Gathered>();
    for (const units of this.#byFrame(ids, missing)) {
      const kind = units[0]?.location.kind ?? UnitKind_Value.UNSPECIFIED;
      const frame = await this.#read(units);
      if (frame === undefined) {
        missing.push(...units.map(({ id }) => id));
        continue;
      }
      if (frame === 'sent') continue;
      if (frame.isWhole) {
        yield { kind: 'frame', frame: frame.bytes };
        continue;
      }
      const open = gathered.get(kind) ?? { ids: [], units: [], bytes: 0 };
      gathered.set(kind, open);
      gather(open, frame.bytes, units);
      if (open.bytes < GATHERED_BYTES && open.units.length < GATHERED_UNITS) continue;
      gathered.delete(kind);
      yield { kind: 'frame', frame: encode(kind, open) };
    }
    for (const [kind, open] of gathered) yield { kind: 'frame', frame: encode(kind, open) };
    if (missing.length > 0) yield { kind: 'missing', ids: missing };
  }

  /** Groups units by their frames, in the order of their packs. Adds those that are nowhere to `missing`. */
  #byFrame(ids: readonly Buffer[], missing: Buffer[]): Iterable<readonly WantedUnit[]> {
    const frames = new Map<string, WantedUnit[]>();
    const seen = new Set<string>();
    for (const id of ids) {
      const name = id.toString('latin1');
      if (seen.has(name)) continue;
      seen.add(name);
      // A condemned pack can be read until its file is removed.
      const location = this.#store.index.locateSync(id);
      if (
        location === undefined ||
        this.#store.health.isLost(location.pack) ||
        !SENT_KINDS.has(location.kind)
      ) {
        missing.push(id);
        continue;
      }
      const key = frameKey(location);
      const known = frames.get(key);
      if (known === undefined) frames.set(key, [{ id, location }]);
      else known.push({ id, location });
    }
    return [...frames.values()].sort(([a], [b]) => byPlace(a?.location, b?.location));
  }

  /** Reads and proves a frame; undefined if that fails. Returns `sent` if the other side has it already. */
  async #read(
    units: readonly WantedUnit[],
  ): Promise<{ bytes: Buffer; isWhole: boolean } | 'sent' | undefined> {
    const [first] = units;
    if (first === undefined) return undefined;
    const { location } = first;
    const key = frameKey(location);
    const sent = this.#sent.get(key);
    if (sent !== undefined && !units.some(({ location: { place } }) => sent.has(place))) {
      for (const {
        location: { place },
      } of units)
        sent.add(place);
      return 'sent';
    }
    // Only while the frame is read: a slow peer must not keep packs from being removed.
    const endRead = this.#store.beginRead();
    let bytes: Buffer;
    let packId = '';
    try {
      const record = await this.#store.index.pack(location.pack);
      if (record === undefined) return undefined;
      packId = hex(record.packId);
      bytes = await this.#store.packs.get(packId, location.frameOffset, location.frameLength);
    } catch (error) {
      return this.#damaged(packId, error);
    } finally {
      endRead();
    }
    try {
      const { header } = parseFrame(bytes);
      const isThere = ({ id, location: { place } }: WantedUnit) =>
        id.equals(header.unitIds.subarray(place * UNIT_ID_BYTES, (place + 1) * UNIT_ID_BYTES));
      if (!units.every(isThere))
        throw new LightkeeperError('DAMAGED', 'Cannot read a frame: it holds other units');
      const isWhole = units.length >= header.unitLengths.length * WHOLE_SHARE;
      await this.#prover.prove(bytes, header.decodedCap);
      if (isWhole) this.#remember(key, units);
      return { bytes, isWhole };
    } catch (error) {
      return this.#damaged(packId, error);
    }
  }

  #damaged(packId: string, error: unknown): undefined {
    const failure = normalise(error);
    if (!['DAMAGED', 'NOT_FOUND', 'TOO_NEW', 'IO'].includes(failure.code)) throw failure;
    this.#onDamage(packId, failure);
    return undefined;
  }

  #remember(key: string, units: readonly WantedUnit[]): void {
    this.#sent.set(key, new Set(units.map(({ location: { place } }) => place)));
    for (const [oldest] of this.#sent) {
      if (this.#sent.size <= SENT_FRAMES_MAX) break;
      this.#sent.delete(oldest);
    }
  }
}

function frameKey({ pack, frameOffset }: UnitLocation): string {
  return `${pack}:${frameOffset}`;
}

function byPlace(a: UnitLocation | undefined, b: UnitLocation | undefined): number {
  if (a === undefined || b === undefined) return 0;
  return a.pack - b.pack || a.frameOffset - b.frameOffset;
}

/** Copies the wanted units of a frame. */
function gather(open: Gathered, frame: Buffer, units: readonly WantedUnit[]): void {
  const { bytes, starts } = decodeVerified(frame);
  for (const { id, location } of units) {
    // A view would hold the whole frame.
    const unit = Buffer.from(bytes.subarray(starts[location.place], starts[location.place + 1]));
    open.ids.push(id);
    open.units.push(unit);
    open.bytes += unit.length;
  }
}

function encode(kind: UnitKind_Value, { ids, units, bytes }: Gathered): Buffer {
  const frame = encodeProvenFrame(kind, units, { ids, bulk: bytes > BULK_BYTES });
  return Buffer.from(frame.bytes);
}
