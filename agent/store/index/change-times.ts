import type { Manifest } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { now } from '../../../host/clock.ts';
import { storableTime } from '../../watch/names.ts';
import type { Entry } from '../../watch/scan.ts';
import type { Store } from '../store.ts';

/** Change times in one value of the index. */
export const TIMES_A_VALUE = 4096;
export const DIGEST_BYTES = 32;

/** The change times of a snapshot's files, which only this machine knows. */
export class ChangeTimes {
  readonly #store: Store;
  readonly #graphId: string;
  readonly #digest: Uint8Array;
  #n = -1;
  #times: Buffer | undefined;

  constructor(store: Store, graphId: string, digest: Uint8Array) {
    this.#store = store;
    this.#graphId = graphId;
    this.#digest = digest;
  }

  async at(place: number): Promise<bigint | undefined> {
    const n = Math.floor(place / TIMES_A_VALUE);
    if (n !== this.#n) {
      this.#n = n;
      const value = await this.#store.index.changeTimes(this.#graphId, n);
      const ours = value?.subarray(0, DIGEST_BYTES).equals(this.#digest) === true;
      this.#times = ours ? value?.subarray(DIGEST_BYTES) : undefined;
    }
    const at = (place % TIMES_A_VALUE) * 8;
    return this.#times === undefined || at + 8 > this.#times.length
      ? undefined
      : this.#times.readBigInt64LE(at);
  }
}

/**
 * Change times as the index keeps them: `TIMES_A_VALUE` to a value, behind the digest of the snapshot whose
 * files they are of.
 */
export function* packChangeTimes(
  entries: readonly Entry[],
  digest: Uint8Array,
): Generator<[n: number, value: Buffer]> {
  for (let from = 0; from < entries.length; from += TIMES_A_VALUE) {
    const part = entries.slice(from, from + TIMES_A_VALUE);
    const value = Buffer.alloc(DIGEST_BYTES + part.length * 8);
    value.set(digest);
    for (const [i, { ctimeNs }] of part.entries())
      value.writeBigInt64LE(storableTime(ctimeNs), DIGEST_BYTES + i * 8);
    yield [from / TIMES_A_VALUE, value];
  }
}

/**
 * When the directory of a graph's newest snapshot last changed, in milliseconds since 1970; now, if that is not known.
 * Times that a copy keeps are not believed: only the kernel sets these.
 */
export async function newestChangeMs(
  store: Store,
  { manifest, digest }: { readonly manifest: Manifest; readonly digest: Uint8Array },
): Promise<number> {
  let newestNs: bigint | undefined;
  for (let n = 0; ; n++) {
    const times = await store.index.changeTimes(manifest.graphId, n);
    if (times?.subarray(0, DIGEST_BYTES).equals(digest) !== true) break;
    for (let at = DIGEST_BYTES; at + 8 <= times.length; at += 8) {
      const time = times.readBigInt64LE(at);
      if (newestNs === undefined || time > newestNs) newestNs = time;
    }
  }
  return newestNs === undefined ? now() : Number(newestNs / 1000000n);
}
