const LANE = 2 ** 32;
const HIGH_BITS = 0x1fffff;
const FIRST_HIGH = 0x1b873593;
const FIRST_LOW = 0x52dce729;
const LENGTH_MIN = 1024;
/** More than the 32 MiB from which on glibc gives memory back as soon as it is free. */
const PIECE_NUMBERS = 8 << 20;
/** Smaller rooms are not worth a piece: most graphs have no others. */
const CUT_NUMBERS = 4 << 10;
/** References to the same few names are many: they are made one now and then. */
const COMPACT_AT = 1 << 20;
const REPEATED_MAX = 20;

/**
 * Makes a number of 53 bits of bytes that come in pieces, wherever they are parted. Two multiplicative lanes, mixed as
 * MurmurHash3 ends (Appleby 2011): a cryptographic hash costs more than all the rest.
 */
export class NumberHash {
  #high = FIRST_HIGH;
  #low = FIRST_LOW;

  add(bytes: Uint8Array): void {
    let high = this.#high;
    let low = this.#low;
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i] as number;
      high = Math.imul(high ^ byte, 0x9e3779b1);
      low = Math.imul(low ^ byte, 0x5f356495);
    }
    this.#high = high;
    this.#low = low;
  }

  /** The number of what was added since the last one. */
  end(): number {
    let high = this.#high;
    let low = this.#low;
    this.#high = FIRST_HIGH;
    this.#low = FIRST_LOW;
    high = Math.imul(high ^ (high >>> 16), 0x85ebca6b) ^ Math.imul(low ^ (low >>> 13), 0xc2b2ae35);
    low = Math.imul(low ^ (low >>> 16), 0x85ebca6b) ^ Math.imul(high ^ (high >>> 13), 0xc2b2ae35);
    return (high & HIGH_BITS) * LANE + (low >>> 0);
  }
}

const names = new NumberHash();

/**
 * A number that stands for a name. Two names with one number are one name to the checks: at ten million names that
 * happens once in two hundred directories, and hides one finding or makes one that a second look takes back.
 */
export function nameNumber(...parts: readonly Uint8Array[]): number {
  for (const part of parts) names.add(part);
  return names.end();
}

/**
 * Room for lists of numbers, cut from pieces of memory that are so large that the system takes them back whole: many
 * small ones leave holes behind, which the process keeps. What of a piece is not used costs nothing.
 */
export class NumberPool {
  readonly #free = new Map<number, Float64Array[]>();
  #piece: Float64Array = new Float64Array(0);
  #used = 0;

  /** Room for so many numbers, or somewhat more. */
  acquire(length: number): Float64Array {
    const rounded = Math.max(LENGTH_MIN, 2 ** Math.ceil(Math.log2(length)));
    const left = this.#free.get(rounded)?.pop();
    if (left !== undefined) return left;
    if (rounded < CUT_NUMBERS || rounded > PIECE_NUMBERS / 2) return new Float64Array(rounded);
    if (this.#used + rounded > this.#piece.length) {
      this.#piece = new Float64Array(PIECE_NUMBERS);
      this.#used = 0;
    }
    this.#used += rounded;
    return this.#piece.subarray(this.#used - rounded, this.#used);
  }

  /** Room that is not used any more is for the next that wants as much. */
  release(room: Float64Array): void {
    if (room.length === 0) return;
    const left = this.#free.get(room.length) ?? [];
    left.push(room);
    this.#free.set(room.length, left);
  }
}

/** A list of numbers, of eight bytes each. */
export class NumberList {
  readonly #pool: NumberPool;
  #memory: Float64Array = new Float64Array(0);
  #length = 0;

  constructor(rooms: NumberPool) {
    this.#pool = rooms;
  }

  /** A list of these, which are of use to nobody else. */
  static of(numbers: Float64Array): NumberList {
    const list = new NumberList(new NumberPool());
    list.#memory = numbers;
    list.#length = numbers.length;
    return list;
  }

  get length(): number {
    return this.#length;
  }

  push(number: number): void {
    if (this.#length === this.#memory.length) {
      const larger = this.#pool.acquire(this.#length + 1);
      larger.set(this.#memory);
      this.#pool.release(this.#memory);
      this.#memory = larger;
    }
    this.#memory[this.#length++] = number;
  }

  /** A view that holds until the next is added. */
  get numbers(): Float64Array {
    return this.#memory.subarray(0, this.#length);
  }

  /** Forgets all but the first. */
  truncate(length: number): void {
    this.#length = Math.min(this.#length, length);
  }
}

/** Sorts numbers in their place and leaves out those that are there already; answers how many there are then. */
export function sortUnique(numbers: Float64Array, repeated?: (number: number) => void): number {
  let kept = 0;
  for (const number of numbers.sort()) {
    if (kept === 0 || numbers[kept - 1] !== number) numbers[kept++] = number;
    else repeated?.(number);
  }
  return kept;
}

/** Names of one kind, as their numbers: eight bytes each, whatever their length. */
export class NameTable {
  #list: NumberList;
  #sorted = true;
  #compactAt = COMPACT_AT;
  readonly #repeated: number[] = [];

  constructor(rooms: NumberPool) {
    this.#list = new NumberList(rooms);
  }

  /** A table of numbers that are known: each once, in order, and some of those that were there more than once. */
  static of(numbers: Float64Array, repeated: readonly number[]): NameTable {
    const table = new NameTable(new NumberPool());
    table.#list = NumberList.of(numbers);
    table.#repeated.push(...repeated);
    return table;
  }

  add(number: number): void {
    if (this.#list.length === this.#compactAt) {
      this.#compact();
      this.#compactAt = Math.max(COMPACT_AT, this.#list.length * 2);
    }
    this.#list.push(number);
    this.#sorted = false;
  }

  /** Different names. */
  get size(): number {
    this.#compact();
    return this.#list.length;
  }

  /** The numbers, each once, in order. A view that holds until the next is added. */
  get numbers(): Float64Array {
    this.#compact();
    return this.#list.numbers;
  }

  /** Some of the numbers that were added more than once. */
  get repeated(): readonly number[] {
    this.#compact();
    return this.#repeated;
  }

  #compact(): void {
    if (this.#sorted) return;
    const kept = sortUnique(this.#list.numbers, (number) => {
      if (this.#repeated.length < REPEATED_MAX) this.#repeated.push(number);
    });
    this.#list.truncate(kept);
    this.#sorted = true;
  }
}

/** The numbers of one table that another one lacks: how many, and the first of them. */
export function missingNames(
  items: NameTable,
  known: NameTable,
  samples: number,
): { count: number; first: number[] } {
  const [some, all] = [items.numbers, known.numbers];
  const first: number[] = [];
  let count = 0;
  let at = 0;
  for (const number of some) {
    while (at < all.length && (all[at] as number) < number) at += 1;
    if (all[at] === number) continue;
    if (count++ < samples) first.push(number);
  }
  return { count, first };
}
