/** Share of a pack that must be dead before the rest is worth writing again. */
const DEAD_SHARE = 0.4;
/** A pack below this size is joined with others. */
const SMALL_BYTES = 4 * 1024 * 1024;
/** Small packs of one kind that must be there before they are joined. */
const SMALL_PACKS_MIN = 16;

/** What is alive in one pack. */
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

/** What is to happen with the packs of a store; packs that are in neither list stay as they are. */
export interface PackPlan {
  /** Nothing in them is alive. */
  readonly drop: readonly PackLife[];
  /** What is alive in them is written to new packs first. */
  readonly rewrite: readonly PackLife[];
  /** Bytes that will be free afterwards, by estimate. */
  readonly freedBytes: number;
}

function liveShare(life: PackLife): number {
  return life.rawBytes === 0 ? 0 : life.liveRawBytes / life.rawBytes;
}

/** Decides by what is alive in each pack. */
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

/** Which units of which packs are alive: one bit each. */
export class LiveUnits {
  readonly #packs = new Map<number, { bits: Uint8Array; units: number; rawBytes: number }>();

  /** Makes room for a pack of `units` units. */
  addPack(pack: number, units: number): void {
    this.#packs.set(pack, { bits: new Uint8Array(Math.ceil(units / 8)), units: 0, rawBytes: 0 });
  }

  /** Marks a unit of `rawBytes` original bytes; answers whether it was not marked before. */
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
