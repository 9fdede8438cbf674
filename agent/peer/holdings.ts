import { create } from '@bufbuild/protobuf';
import { isDamaged } from '../../core/snapshot.ts';
import { type HoldingsPart, HoldingsPartSchema } from '../../gen/lightkeeper/v1/peer_pb.ts';
import type { Store } from '../store/store.ts';
import { isOffered } from './listing.ts';
import { brokenRule } from './refusals.ts';

/** Most digests of one part. */
const PART_DIGESTS_MAX = 10_000;
const DIGEST_BYTES = 32;
/** Most snapshots that a follower lists. */
// Memory holds the digest of each: about 25 MB in all.
const HOLDINGS_MAX = 200_000;

/** Yields the digests of the snapshots of a graph that a store holds, in parts. */
export async function* holdingsOf(
  store: Store,
  graphId: string,
  number: bigint,
): AsyncGenerator<HoldingsPart> {
  let [whole, damaged]: [Uint8Array[], Uint8Array[]] = [[], []];
  const part = (last: boolean) => {
    const value = { number, digests: Buffer.concat(whole), damagedDigests: Buffer.concat(damaged), last };
    [whole, damaged] = [[], []];
    return create(HoldingsPartSchema, value);
  };
  for await (const [, state] of store.index.records({ graphId })) {
    if (!isOffered(state)) continue;
    (isDamaged(state) ? damaged : whole).push(state.digest);
    if (whole.length + damaged.length >= PART_DIGESTS_MAX) yield part(false);
  }
  yield part(true);
}

/** What a follower holds, by digests in hex. */
export interface Holdings {
  readonly whole: ReadonlySet<string>;
  readonly damaged: ReadonlySet<string>;
}

/** Asks for holdings on one stream, one request at a time. */
export class HoldingsRequests {
  readonly #send: (number: bigint) => Promise<void>;
  #number = 0n;
  #open:
    | {
        readonly whole: Set<string>;
        readonly damaged: Set<string>;
        readonly settle: (holdings: Holdings) => void;
        readonly reject: (error: unknown) => void;
      }
    | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  /** `send` sends a request. */
  constructor(send: (number: bigint) => Promise<void>) {
    this.#send = send;
  }

  /** Resolves with what the follower holds. */
  async request(): Promise<Holdings> {
    const mine = this.#turn.then(() => this.#request());
    this.#turn = mine.catch(() => {});
    return await mine;
  }

  async #request(): Promise<Holdings> {
    this.#number += 1n;
    const holdings = new Promise<Holdings>((settle, reject) => {
      this.#open = { whole: new Set(), damaged: new Set(), settle, reject };
    });
    this.#send(this.#number).catch((error: unknown) => this.#open?.reject(error));
    return await holdings;
  }

  /** Takes a part. PEER_INVALID for one that nobody asked for. */
  take({ number, digests, damagedDigests, last }: HoldingsPart): void {
    const open = this.#open;
    if (open === undefined || number !== this.#number)
      throw brokenRule('it lists holdings that nobody asked for');
    addDigests(open.whole, digests);
    addDigests(open.damaged, damagedDigests);
    if (open.whole.size + open.damaged.size > HOLDINGS_MAX) throw brokenRule('it lists too many holdings');
    if (!last) return;
    this.#open = undefined;
    open.settle(open);
  }

  /** Rejects the open request. */
  fail(error: unknown): void {
    this.#open?.reject(error);
    this.#open = undefined;
  }
}

function addDigests(set: Set<string>, digests: Uint8Array): void {
  const count = digests.length / DIGEST_BYTES;
  if (!Number.isInteger(count) || count > PART_DIGESTS_MAX)
    throw brokenRule('a list of holdings is cut, or too long');
  const all = Buffer.from(digests.buffer, digests.byteOffset, digests.length);
  for (let at = 0; at < all.length; at += DIGEST_BYTES) set.add(all.toString('hex', at, at + DIGEST_BYTES));
}
