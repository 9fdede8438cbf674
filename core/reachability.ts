/** Share of dead bytes above which the rest of a pack is written again. */
const DEAD_SHARE = 0.4;
/** Bytes below which a pack is joined with others. */
const SMALL_BYTES = 4 * 1024 * 1024;
/** Least number of small packs of one kind that are joined. */
const SMALL_PACKS_MIN = 16;

/** The live units of one pack. */
export interface PackLife {
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
  readonly drop: readonly PackLife[];
  /** Packs whose live units are written to new packs before they are dropped. */
  readonly rewrite: readonly PackLife[];
  /** Estimated bytes that become free. */
  readonly freedBytes: number;
}

function liveShare(life: PackLife): number {
  return life.rawBytes === 0 ? 0 : life.liveRawBytes / life.rawBytes;
}

/** Plans which packs to drop and to rewrite. */
export function planPacks(lives: readonly PackLife[]): PackPlan {
  const drop = lives.filter((life) => life.liveUnits === 0);
  const rewrite = new Set(lives.filter((life) => life.liveUnits > 0 && 1 - liveShare(life) > DEAD_SHARE));
  for (const meta of [false, true]) {
    const small = lives.filter((life) => life.meta === meta && life.liveUnits > 0 && life.size < SMALL_BYTES);
    if (small.length >= SMALL_PACKS_MIN) for (const life of small) rewrite.add(life);
  }
  let freedBytes = 0;
  for (const life of drop) freedBytes += life.size;
  for (const life of rewrite) freedBytes += Math.floor(life.size * (1 - liveShare(life)));
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
    const life = this.#packs.get(pack);
    if (life === undefined) return false;
    const byte = life.bits[ordinal >> 3];
    if (byte === undefined || (byte & (1 << (ordinal & 7))) !== 0) return false;
    life.bits[ordinal >> 3] = byte | (1 << (ordinal & 7));
    life.units += 1;
    life.rawBytes += rawBytes;
    return true;
  }

  has(pack: number, ordinal: number): boolean {
    return (((this.#packs.get(pack)?.bits[ordinal >> 3] ?? 0) >> (ordinal & 7)) & 1) === 1;
  }

  count(pack: number): { units: number; rawBytes: number } {
    const life = this.#packs.get(pack);
    return { units: life?.units ?? 0, rawBytes: life?.rawBytes ?? 0 };
  }
}
