import type { PositionEntry } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import type { Epoch } from '../../gen/lightkeeper/v1/types_pb.ts';
import { LightkeeperError } from '../errors.ts';
import { epochOf } from '../position.ts';
import { hex, sameBytes } from '../unit.ts';

/** Most digests of its own log that a follower names. */
export const KNOWN_DIGESTS_MAX = 64;

/** How the epoch of the other side relates to the own one. */
export type EpochOrder = 'same' | 'older' | 'newer' | 'rival';

/** Compares the newest epoch of the other side with the own one; undefined is a side that knows none. */
// Two primaries may mint one number; the mint id tells them apart.
export function compareEpochs(other: Epoch | undefined, own: Epoch | undefined): EpochOrder {
  if (other === undefined || own === undefined)
    return other === own ? 'same' : own === undefined ? 'newer' : 'older';
  if (other.number !== own.number) return other.number > own.number ? 'newer' : 'older';
  return sameBytes(other.mintId, own.mintId) ? 'same' : 'rival';
}

/** Reports whether to name the entry at `distance` entries behind the head: the first ones, then ever fewer. */
export function isNamedDistance(distance: number): boolean {
  if (distance < 8) return true;
  // Three of each power of two: 8, 10, 13, 16, 21, 26, 32 and so on.
  const power = 2 ** Math.floor(Math.log2(distance));
  return [1, 1.3, 1.6].some((factor) => Math.floor(power * factor) === distance);
}

/**
 * Follows a history from its head towards its beginning. `add` takes the entries of a position log, newest first, and
 * returns whether the entry is on the line of the head; entries of forks are not.
 */
export class LineWalk {
  #next: Uint8Array;

  constructor(headDigest: Uint8Array) {
    this.#next = headDigest;
  }

  add({ digest, parentDigest }: Pick<PositionEntry, 'digest' | 'parentDigest'>): boolean {
    if (!sameBytes(digest, this.#next)) return false;
    this.#next = parentDigest;
    return true;
  }
}

/** The part of the source's log that the follower received, checked entry by entry. */
export class ReceivedLog {
  readonly #graphId: string;
  readonly #common: Uint8Array;
  #last: PositionEntry | undefined;
  #count = 0;
  /** Newest entry that the follower has in its own log; empty before the first. */
  #shared: Uint8Array;

  /**
   * `common` is the newest digest that both sides are known to have; empty if there is none. `after` is its entry in
   * the own log, which the received log continues.
   */
  constructor(graphId: string, common: Uint8Array, { after }: { readonly after?: PositionEntry } = {}) {
    this.#graphId = graphId;
    this.#common = common;
    this.#shared = common;
    this.#last = after;
  }

  /** Number of entries received. */
  get count(): number {
    return this.#count;
  }

  /** Newest entry; undefined if there is none. */
  get last(): PositionEntry | undefined {
    return this.#last;
  }

  /** Adds the next entry. PEER_INVALID unless it continues the line. `isOwn` tells whether the own log has it. */
  add(entry: PositionEntry, isOwn: boolean): void {
    const { graphId, parentDigest, sequence, digest } = entry;
    if (graphId !== this.#graphId) throw invalidLog(`an entry belongs to graph "${graphId}"`);
    const before = this.#last;
    const parent = before?.digest ?? this.#common;
    // A log that begins anew may have lost its beginning.
    const begins = before === undefined && this.#common.length === 0;
    if (!begins && !sameBytes(parentDigest, parent))
      throw invalidLog('an entry does not continue the one before it');
    if (before !== undefined) {
      const [one, other] = [epochOf(before), epochOf(entry)];
      const isSame = one.number === other.number && sameBytes(one.mintId, other.mintId);
      if (!isSame && other.number <= one.number) throw invalidLog('its epochs do not advance');
      if (sequence <= before.sequence) throw invalidLog('its sequence does not advance');
    }
    if (sequence === 0n) throw invalidLog('an entry has no place in the history');
    this.#last = entry;
    this.#count += 1;
    if (isOwn) this.#shared = digest;
  }

  /** Returns the relation of the histories once the log is complete. */
  relation(sides: Omit<Sides, 'sharedDigest' | 'logEnd'>): HistoryRelation {
    const logEnd = this.#last?.digest ?? this.#common;
    return relateHistories({ ...sides, sharedDigest: this.#shared, logEnd });
  }
}

/** What a follower knows of both histories. */
export interface Sides {
  /** Digest of the follower's head; undefined if it has no snapshot of the graph. */
  readonly ownHead: Uint8Array | undefined;
  /** Digest of the source's head; empty if it has no snapshot of the graph. */
  readonly sourceHead: Uint8Array;
  /** Whether the follower's log has the source's head. */
  readonly hasSourceHead: boolean;
  /** Newest position that both logs have; empty if there is none. */
  readonly sharedDigest: Uint8Array;
  /** Last position of the source's log. */
  readonly logEnd: Uint8Array;
}

/** How the history of a follower relates to that of its source. */
export type HistoryRelation =
  /** The source's history continues the follower's, or equals it. */
  | { readonly kind: 'continues' }
  /** The source has no snapshot yet. */
  | { readonly kind: 'empty-source' }
  /** The follower's history continues the source's. */
  | { readonly kind: 'source-behind' }
  /** Each has positions that the other lacks, after the shared one; its digest is empty if they share none. */
  | { readonly kind: 'forked'; readonly sharedDigest: Uint8Array };

/** Relates two histories. PEER_INVALID if the source's log does not end at its head. */
export function relateHistories({
  ownHead,
  sourceHead,
  hasSourceHead,
  sharedDigest,
  logEnd,
}: Sides): HistoryRelation {
  if (sourceHead.length === 0) return { kind: 'empty-source' };
  if (ownHead === undefined || sameBytes(ownHead, sourceHead)) return { kind: 'continues' };
  if (hasSourceHead) return { kind: 'source-behind' };
  if (!sameBytes(logEnd, sourceHead))
    throw invalidLog(`it does not end at the head ${hex(sourceHead).slice(0, 12)}`);
  return sameBytes(sharedDigest, ownHead) ? { kind: 'continues' } : { kind: 'forked', sharedDigest };
}

function invalidLog(state: string): LightkeeperError {
  return new LightkeeperError(
    'PEER_INVALID',
    `Cannot follow the source: its position log is wrong: ${state}`,
  );
}
