const LANE = 2 ** 32;
const HIGH_BITS = 0x1fffff;
const FIRST_HIGH = 0x1b873593;
const FIRST_LOW = 0x52dce729;
const LENGTH_MIN = 1024;
/** Numbers in one piece of memory. */
// Pieces above 32 MiB are returned to the system by glibc as soon as they are free.
const PIECE_NUMBERS = 8 << 20;
/** Shortest array that is cut from a piece. Most graphs need only shorter ones. */
const CUT_NUMBERS = 4 << 10;
/** Numbers after which a table first removes duplicates. */
// Many references name the same few things.
const COMPACT_AT = 1 << 20;
const REPEATED_MAX = 20;

/** Hashes bytes that arrive in parts to 53 bits, independent of where they are split. */
// Two multiplicative lanes with the final mix of MurmurHash3 (Appleby 2011): a cryptographic hash costs more than
// everything else.
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

  /** Returns the hash of what was added since the last call. */
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

/** Returns the number that stands for a name in the checks. */
// A collision makes two names one. At ten million names that happens in one of two hundred directories; it hides
// one finding, or reports one that the second read withdraws.
export function nameNumber(...parts: readonly Uint8Array[]): number {
  for (const part of parts) names.add(part);
  return names.end();
}

/** Allocates arrays of numbers from large pieces of memory and reuses released ones. */
// The system takes large pieces back whole, while many small ones leave holes that the process keeps. Unused parts
// of a piece cost nothing.
export class NumberPool {
  readonly #free = new Map<number, Float64Array[]>();
  #piece: Float64Array = new Float64Array(0);
  #used = 0;

  /** Returns an array of at least `length` numbers. */
  acquire(length: number): Float64Array {
    const rounded = Math.max(LENGTH_MIN, 2 ** Math.ceil(Math.log2(length)));
    const free = this.#free.get(rounded)?.pop();
    if (free !== undefined) return free;
    if (rounded < CUT_NUMBERS || rounded > PIECE_NUMBERS / 2) return new Float64Array(rounded);
    if (this.#used + rounded > this.#piece.length) {
      this.#piece = new Float64Array(PIECE_NUMBERS);
      this.#used = 0;
    }
    this.#used += rounded;
    return this.#piece.subarray(this.#used - rounded, this.#used);
  }

  /** Makes an array available to the next `acquire` of its length. */
  release(memory: Float64Array): void {
    if (memory.length === 0) return;
    const free = this.#free.get(memory.length) ?? [];
    free.push(memory);
    this.#free.set(memory.length, free);
  }
}

/** A growing list of numbers of eight bytes each. */
export class NumberList {
  readonly #pool: NumberPool;
  #memory: Float64Array = new Float64Array(0);
  #length = 0;

  constructor(pool: NumberPool) {
    this.#pool = pool;
  }

  /** Makes a list that takes over an array. */
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

  /** A view that is valid until the next `push`. */
  get numbers(): Float64Array {
    return this.#memory.subarray(0, this.#length);
  }

  /** Shortens the list to at most `length` numbers. */
  truncate(length: number): void {
    this.#length = Math.min(this.#length, length);
  }
}

/** Sorts numbers in place, removes duplicates, and returns how many remain. */
export function sortUnique(numbers: Float64Array, repeated?: (number: number) => void): number {
  let kept = 0;
  for (const number of numbers.sort()) {
    if (kept === 0 || numbers[kept - 1] !== number) numbers[kept++] = number;
    else repeated?.(number);
  }
  return kept;
}

/** A set of names as numbers of eight bytes each, whatever their length. */
export class NameTable {
  #list: NumberList;
  #sorted = true;
  #compactAt = COMPACT_AT;
  readonly #repeated: number[] = [];

  constructor(pool: NumberPool) {
    this.#list = new NumberList(pool);
  }

  /** Makes a table of sorted, unique numbers and a sample of those that occurred twice. */
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

  /** Number of different names. */
  get size(): number {
    this.#compact();
    return this.#list.length;
  }

  /** The sorted, unique numbers, as a view that is valid until the next `add`. */
  get numbers(): Float64Array {
    this.#compact();
    return this.#list.numbers;
  }

  /** A sample of the numbers that were added more than once. */
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
