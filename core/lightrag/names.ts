const LANE = 2 ** 32;
const HIGH_BITS = 0x1fffff;
const FIRST_HIGH = 0x1b873593;
const FIRST_LOW = 0x52dce729;
const FIRST_ROOM = 1024;
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

/** A list of numbers, of eight bytes each. */
export class NumberList {
  #room: Float64Array;
  #length: number;

  constructor(numbers: Float64Array = new Float64Array(0)) {
    this.#room = numbers;
    this.#length = numbers.length;
  }

  get length(): number {
    return this.#length;
  }

  push(number: number): void {
    if (this.#length === this.#room.length) {
      const larger = new Float64Array(Math.max(FIRST_ROOM, Math.ceil(this.#length * 1.5)));
      larger.set(this.#room);
      this.#room = larger;
    }
    this.#room[this.#length++] = number;
  }

  /** A view that holds until the next is added. */
  get numbers(): Float64Array {
    return this.#room.subarray(0, this.#length);
  }

  /** Forgets all but the first. */
  keep(length: number): void {
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
  #list = new NumberList();
  #sorted = true;
  #compactAt = COMPACT_AT;
  readonly #repeated: number[] = [];

  /** A table of numbers that are known: each once, in order, and some of those that were there more than once. */
  static of(numbers: Float64Array, repeated: readonly number[]): NameTable {
    const table = new NameTable();
    table.#list = new NumberList(numbers);
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
    this.#list.keep(kept);
    this.#sorted = true;
  }
}

/** The numbers of one table that another one lacks: how many, and the first of them. */
export function lacking(
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
