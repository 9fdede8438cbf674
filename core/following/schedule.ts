import type { ListedSnapshot } from '../../gen/lightkeeper/v1/peer_pb.ts';
import { hex, sameBytes } from '../unit.ts';

/** Position of the newest snapshot that a follower holds durably. */
export type HeldPosition = Pick<ListedSnapshot, 'epoch' | 'sequence' | 'digest'>;

/** Most snapshots that wait to be fetched. Beyond it the one that was listed first is passed over. */
const PENDING_MAX = 100_000;

/** What to fetch next, and whether it moves the acknowledged position. */
export interface NextFetch {
  readonly snapshot: ListedSnapshot;
  /** Whether it lies before the newest one that is held. */
  readonly isHistory: boolean;
}

/** Reports whether a position lies after another one in the history of a graph. */
export function isAfter(
  one: Pick<ListedSnapshot, 'epoch' | 'sequence'>,
  other: Pick<ListedSnapshot, 'epoch' | 'sequence'>,
): boolean {
  return one.epoch > other.epoch || (one.epoch === other.epoch && one.sequence > other.sequence);
}

/**
 * Orders what a follower fetches: the newest usable snapshot by the source's hint, then the newest one, then history,
 * newest first. A snapshot that fails is passed over until the source is asked again.
 */
// The newest usable point is what a loss of the source would need.
export class FetchSchedule {
  readonly #pending = new Map<string, ListedSnapshot>();
  readonly #failed = new Set<string>();
  #held: HeldPosition | undefined;
  #newest: HeldPosition | undefined;

  /** `held` is the newest snapshot that the follower has. */
  constructor(held: HeldPosition | undefined) {
    this.#held = held;
  }

  /** Newest snapshot that is held. */
  get held(): HeldPosition | undefined {
    return this.#held;
  }

  /** Newest snapshot of the source. */
  get newest(): HeldPosition | undefined {
    return this.#newest;
  }

  /** Number of snapshots that remain to be fetched. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Records that the source has a snapshot; `isWanted` tells whether the follower lacks it and would keep it. */
  list(snapshot: ListedSnapshot, isWanted: boolean): void {
    if (this.#newest === undefined || isAfter(snapshot, this.#newest)) this.#newest = snapshot;
    if (!isWanted) return;
    this.#pending.set(hex(snapshot.digest), snapshot);
    for (const [name] of this.#pending) {
      if (this.#pending.size <= PENDING_MAX) break;
      this.#pending.delete(name);
      this.#failed.delete(name);
    }
  }

  /** Returns what to fetch next; undefined if there is nothing. */
  next(): NextFetch | undefined {
    let newest: ListedSnapshot | undefined;
    let usable: ListedSnapshot | undefined;
    for (const [name, snapshot] of this.#pending) {
      if (this.#failed.has(name)) continue;
      if (newest === undefined || isAfter(snapshot, newest)) newest = snapshot;
      if (snapshot.usable && (usable === undefined || isAfter(snapshot, usable))) usable = snapshot;
    }
    const isAhead = (one: ListedSnapshot | undefined) =>
      one !== undefined && (this.#held === undefined || isAfter(one, this.#held));
    const snapshot = usable !== undefined && isAhead(usable) ? usable : newest;
    return snapshot === undefined ? undefined : { snapshot, isHistory: !isAhead(snapshot) };
  }

  /** Records that a snapshot is held now. Returns whether it moved the held position. */
  fetched(digest: Uint8Array): boolean {
    const snapshot = this.#pending.get(hex(digest));
    this.#pending.delete(hex(digest));
    if (snapshot === undefined) return false;
    if (this.#held !== undefined && !isAfter(snapshot, this.#held)) return false;
    this.#held = snapshot;
    return true;
  }

  /** Records that the source no longer holds a snapshot. */
  gone(digest: Uint8Array): void {
    this.#pending.delete(hex(digest));
    this.#failed.delete(hex(digest));
    if (this.#newest !== undefined && sameBytes(this.#newest.digest, digest)) this.#newest = this.#held;
  }

  /** Records that the source could not give all units of a snapshot. */
  failed(digest: Uint8Array): void {
    this.#failed.add(hex(digest));
  }

  /** Allows the snapshots that failed to be fetched again. */
  retryFailed(): void {
    this.#failed.clear();
  }

  /** Whether the newest snapshot of the source is held. */
  get isCaughtUp(): boolean {
    return (
      this.#newest === undefined ||
      (this.#held !== undefined && sameBytes(this.#held.digest, this.#newest.digest))
    );
  }
}
