const BITS = 1 << 23;
const WORDS_OF_ID = 4;

/**
 * A set of unit ids without false negatives, in 1 MiB. With a million ids one lookup in forty is a false positive.
 */
// Ids are hashes, so their own words choose the bits (Bloom, "Space/time trade-offs in hash coding with allowable
// errors", CACM 1970).
export class IdFilter {
  readonly #bits = new Uint8Array(BITS / 8);

  /** Adds the id at `start` of `ids`. */
  add(ids: Uint8Array, start = 0): void {
    for (let word = 0; word < WORDS_OF_ID; word++) {
      const bit = bitAt(ids, start + word * 4);
      this.#bits[bit >> 3] = (this.#bits[bit >> 3] as number) | (1 << (bit & 7));
    }
  }

  /** Reports whether an id may have been added. False is certain. */
  mayHold(id: Uint8Array): boolean {
    for (let word = 0; word < WORDS_OF_ID; word++) {
      const bit = bitAt(id, word * 4);
      if (((this.#bits[bit >> 3] as number) & (1 << (bit & 7))) === 0) return false;
    }
    return true;
  }
}

function bitAt(ids: Uint8Array, at: number): number {
  return (
    ((ids[at] as number) | ((ids[at + 1] as number) << 8) | ((ids[at + 2] as number) << 16)) & (BITS - 1)
  );
}
