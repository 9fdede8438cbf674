/** Share of dead bytes above which the rest of a pack is written again. */
const DEAD_SHARE = 0.4;
/** Bytes below which a pack is joined with others. */
const SMALL_BYTES = 4 * 1024 * 1024;
/** Least number of small packs of one kind that are joined. */
const SMALL_PACKS_MIN = 16;

/** The live units of one pack. */
export interface PackUsage {
  readonly pack: number;
  readonly packId: string;
  readonly meta: boolean;
  readonly size: number;
  readonly rawBytes: number;
  readonly units: number;
  readonly liveUnits: number;
  readonly liveRawBytes: number;
}

/** The packs of a store to drop and to rewrite. Packs in neither list stay as they are. */
export interface PackPlan {
  /** Packs without a live unit. */
  readonly drop: readonly PackUsage[];
  /** Packs whose live units are written to new packs before they are dropped. */
  readonly rewrite: readonly PackUsage[];
  /** Estimated bytes that become free. */
  readonly freedBytes: number;
}

function liveShare(pack: PackUsage): number {
  return pack.rawBytes === 0 ? 0 : pack.liveRawBytes / pack.rawBytes;
}

/** Plans which packs to drop and to rewrite. */
export function planPacks(packs: readonly PackUsage[]): PackPlan {
  const drop = packs.filter((pack) => pack.liveUnits === 0);
  const rewrite = new Set(packs.filter((pack) => pack.liveUnits > 0 && 1 - liveShare(pack) > DEAD_SHARE));
  for (const meta of [false, true]) {
    const small = packs.filter((pack) => pack.meta === meta && pack.liveUnits > 0 && pack.size < SMALL_BYTES);
    if (small.length >= SMALL_PACKS_MIN) for (const pack of small) rewrite.add(pack);
  }
  let freedBytes = 0;
  for (const pack of drop) freedBytes += pack.size;
  for (const pack of rewrite) freedBytes += Math.floor(pack.size * (1 - liveShare(pack)));
  return { drop, rewrite: [...rewrite], freedBytes };
}

/** A set of live units, one bit each. */
export class LiveUnits {
  readonly #packs = new Map<number, { bits: Uint8Array; units: number; rawBytes: number }>();

  /** Adds a pack of `units` units, none of them live. */
  addPack(pack: number, units: number): void {
    this.#packs.set(pack, { bits: new Uint8Array(Math.ceil(units / 8)), units: 0, rawBytes: 0 });
  }

  /** Marks a unit of `rawBytes` original bytes as live. Returns whether it was not marked before. */
  mark(pack: number, ordinal: number, rawBytes: number): boolean {
    const live = this.#packs.get(pack);
    if (live === undefined) return false;
    const byte = live.bits[ordinal >> 3];
    if (byte === undefined || (byte & (1 << (ordinal & 7))) !== 0) return false;
    live.bits[ordinal >> 3] = byte | (1 << (ordinal & 7));
    live.units += 1;
    live.rawBytes += rawBytes;
    return true;
  }

  has(pack: number, ordinal: number): boolean {
    return (((this.#packs.get(pack)?.bits[ordinal >> 3] ?? 0) >> (ordinal & 7)) & 1) === 1;
  }

  count(pack: number): { units: number; rawBytes: number } {
    const live = this.#packs.get(pack);
    return { units: live?.units ?? 0, rawBytes: live?.rawBytes ?? 0 };
  }
}
