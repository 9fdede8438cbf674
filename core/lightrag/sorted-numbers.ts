// Sets of numbers as sorted arrays without repetition. No function changes its arguments; a result may be one of them.

export const NO_NUMBERS: Float64Array = new Float64Array(0);

/** Returns the numbers that are in `numbers` and not in `others`. */
export function without(numbers: Float64Array, others: Float64Array): Float64Array {
  return others.length === 0 ? numbers : select(numbers, others, false);
}

/** Returns the numbers that are in both sets. */
export function common(numbers: Float64Array, others: Float64Array): Float64Array {
  return select(numbers, others, true);
}

/** Reports whether every number of `numbers` is in `others`. */
export function isWithin(numbers: Float64Array, others: Float64Array): boolean {
  return without(numbers, others).length === 0;
}

/** Returns the numbers that are in either set. */
export function union(numbers: Float64Array, others: Float64Array): Float64Array {
  const all = new Float64Array(numbers.length + others.length);
  let length = 0;
  let at = 0;
  for (const number of numbers) {
    while (at < others.length && (others[at] as number) < number) all[length++] = others[at++] as number;
    if (others[at] === number) at += 1;
    all[length++] = number;
  }
  for (; at < others.length; at++) all[length++] = others[at] as number;
  return all.subarray(0, length);
}

/** Reports whether a set has a number. */
export function has(numbers: Float64Array, number: number): boolean {
  let [low, high] = [0, numbers.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    const found = numbers[middle] as number;
    if (found === number) return true;
    if (found < number) low = middle + 1;
    else high = middle - 1;
  }
  return false;
}

/** Returns the set of some numbers in any order. */
export function setOf(numbers: Iterable<number>): Float64Array {
  return Float64Array.from(new Set(numbers)).sort();
}

function select(numbers: Float64Array, others: Float64Array, wanted: boolean): Float64Array {
  let found: Float64Array | undefined;
  let length = 0;
  let at = 0;
  for (const number of numbers) {
    while (at < others.length && (others[at] as number) < number) at += 1;
    if ((others[at] === number) !== wanted) continue;
    // Most sets differ in few numbers, so that memory is taken as it is needed.
    found ??= new Float64Array(16);
    if (length === found.length) {
      const larger = new Float64Array(Math.min(numbers.length, length * 4));
      larger.set(found);
      found = larger;
    }
    found[length++] = number;
  }
  return found?.subarray(0, length) ?? NO_NUMBERS;
}
