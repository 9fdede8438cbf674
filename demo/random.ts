/** Returns a whole number from 0 to `below` - 1. */
export type Random = (below: number) => number;

/** Mixes numbers into one 32-bit number, so that every part of a corpus has its own stream. */
export function mix(...values: number[]): number {
  let hash = 0x9e3779b9;
  for (const value of values) {
    hash = Math.imul(hash ^ value, 0x85ebca6b);
    hash ^= hash >>> 13;
    hash = Math.imul(hash, 0xc2b2ae35);
    hash ^= hash >>> 16;
  }
  return hash >>> 0;
}

/** Returns the random stream of a key (splitmix32). */
export function random(key: number): Random {
  let state = key | 0;
  return (below) => {
    state = (state + 0x9e3779b9) | 0;
    let bits = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    bits = Math.imul(bits ^ (bits >>> 15), 0x735a2d97);
    return Math.floor((((bits ^ (bits >>> 15)) >>> 0) / 2 ** 32) * below);
  };
}

/** The key of a vector; vectors are equal only if all three numbers are. */
export type VectorKey = readonly [number, number, number];

const WARM_UP_ROUNDS = 12;

/** Fills `vector` with the unit vector of a key. */
// The generator is sfc32, written inline because the bytes of a corpus are mostly vectors: a call per element would
// double the time.
export function fillUnitVector(vector: Float32Array, key: VectorKey): void {
  let [a, b, c] = key;
  let squares = 0;
  for (let i = -WARM_UP_ROUNDS, counter = 1; i < vector.length; i += 1, counter += 1) {
    const bits = (a + b + counter) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + bits) | 0;
    if (i < 0) continue;
    const value = (bits & 0xffff) + (bits >>> 16) - 0xffff;
    vector[i] = value;
    squares += value * value;
  }
  const scale = 1 / Math.sqrt(squares);
  for (let i = 0; i < vector.length; i += 1) vector[i] = (vector[i] as number) * scale;
}

/** Rounds `from`, all of it within ±1, to float16 (nearest, ties to even, like numpy). */
export function roundToHalf(from: Float32Array, into: Uint16Array): void {
  const bits = new Uint32Array(from.buffer, from.byteOffset, from.length);
  for (let i = 0; i < from.length; i += 1) {
    const word = bits[i] as number;
    const sign = (word >>> 16) & 0x8000;
    const magnitude = word & 0x7fffffff;
    const isSubnormal = magnitude < 0x38800000;
    into[i] =
      sign |
      (isSubnormal
        ? roundToEven(Math.abs(from[i] as number) * 2 ** 24)
        : (magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  }
}

function roundToEven(value: number): number {
  const whole = Math.floor(value);
  const rest = value - whole;
  return rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? whole + 1 : whole;
}
