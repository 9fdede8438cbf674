const BITS = 1 << 23;
const WORDS_OF_ID = 4;

/**
 * A set of unit ids that never denies one that was added, and seldom takes another for one: of a million, one in
 * forty. 1 MiB, however many there are. Ids are hashes, so their own words say which bits they set (Bloom,
 * "Space/time trade-offs in hash coding with allowable errors", CACM 1970).
 */
export class IdFilter {
  readonly #bits = new Uint8Array(BITS / 8);

  /** Adds the id at `start` of `ids`. */
  add(ids: Uint8Array, start = 0): void {
    for (let word = 0; word < WORDS_OF_ID; word++) {
      const bit = bitAt(ids, start + word * 4);
      this.#bits[bit >> 3] = (this.#bits[bit >> 3] as number) | (1 << (bit & 7));
    }
  }

  /** False if the id was certainly never added. */
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
