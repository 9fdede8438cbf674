import type { Manifest } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { now } from '../../../host/clock.ts';
import { storableTime } from '../../watch/names.ts';
import type { Entry } from '../../watch/scan.ts';
import type { Store } from '../store.ts';

/** Change times in one value of the index. */
export const TIMES_PER_VALUE = 4096;
/** Bytes of the digest before them: that of the snapshot to whose files they belong. */
export const DIGEST_BYTES = 32;

/** Reads the change times of a snapshot's files, which only this machine has. */
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

  /** Returns the change time of the file at a place in nanoseconds since 1970; undefined if it is not known. */
  async at(place: number): Promise<bigint | undefined> {
    const n = Math.floor(place / TIMES_PER_VALUE);
    if (n !== this.#n) {
      this.#n = n;
      const value = await this.#store.index.local.changeTimes(this.#graphId, n);
      const matches = value?.subarray(0, DIGEST_BYTES).equals(this.#digest) === true;
      this.#times = matches ? value?.subarray(DIGEST_BYTES) : undefined;
    }
    const at = (place % TIMES_PER_VALUE) * 8;
    return this.#times === undefined || at + 8 > this.#times.length
      ? undefined
      : this.#times.readBigInt64LE(at);
  }
}

/** Encodes the change times of a snapshot's files as values of the index, each with the digest of the snapshot. */
export function* packChangeTimes(
  entries: readonly Entry[],
  digest: Uint8Array,
): Generator<[n: number, value: Buffer]> {
  for (let from = 0; from < entries.length; from += TIMES_PER_VALUE) {
    const part = entries.slice(from, from + TIMES_PER_VALUE);
    const value = Buffer.alloc(DIGEST_BYTES + part.length * 8);
    value.set(digest);
    for (const [i, { ctimeNs }] of part.entries())
      value.writeBigInt64LE(storableTime(ctimeNs), DIGEST_BYTES + i * 8);
    yield [from / TIMES_PER_VALUE, value];
  }
}

/** Returns the newest change time of a snapshot's files in milliseconds since 1970; now if none is known. */
// Change times, not modification times: a copy can preserve those, but only the kernel sets these.
export async function newestChangeMs(
  store: Store,
  { manifest, digest }: { readonly manifest: Manifest; readonly digest: Uint8Array },
): Promise<number> {
  let newestNs: bigint | undefined;
  for (let n = 0; ; n++) {
    const times = await store.index.local.changeTimes(manifest.graphId, n);
    if (times?.subarray(0, DIGEST_BYTES).equals(digest) !== true) break;
    for (let at = DIGEST_BYTES; at + 8 <= times.length; at += 8) {
      const time = times.readBigInt64LE(at);
      if (newestNs === undefined || time > newestNs) newestNs = time;
    }
  }
  return newestNs === undefined ? now() : Number(newestNs / 1000000n);
}
