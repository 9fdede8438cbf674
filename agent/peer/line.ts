import { isNamedDistance, KNOWN_DIGESTS_MAX, LineWalk } from '../../core/following/history.ts';
import type { PositionEntry } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import type { Store } from '../store/store.ts';

/** Yields the positions on the line of a graph's head, newest first; those of forks are left out. */
export async function* lineOf(store: Store, graphId: string): AsyncGenerator<PositionEntry> {
  const head = await store.index.head(graphId);
  if (head === undefined) return;
  const walk = new LineWalk(head.digest);
  for await (const entry of store.index.positions(graphId, { reverse: true }))
    if (walk.add(entry)) yield entry;
}

/** Returns digests of a graph's line by which another store can find the newest one that both have. */
export async function knownDigests(store: Store, graphId: string): Promise<Uint8Array[]> {
  const digests: Uint8Array[] = [];
  let distance = 0;
  let oldest: Uint8Array | undefined;
  for await (const { digest } of lineOf(store, graphId)) {
    if (isNamedDistance(distance) && digests.length < KNOWN_DIGESTS_MAX - 1) digests.push(digest);
    oldest = digest;
    distance += 1;
  }
  if (oldest !== undefined && !digests.includes(oldest)) digests.push(oldest);
  return digests;
}

/** The end of a line that another store lacks. */
export interface LineEnd {
  /** Newest entry that both stores have; undefined if none is known. */
  readonly common: PositionEntry | undefined;
  /** Entries after it, oldest first. */
  readonly entries: readonly PositionEntry[];
}

/** Returns the part of a graph's line that comes after the newest of these digests. */
export async function lineAfter(
  store: Store,
  graphId: string,
  digests: readonly Uint8Array[],
): Promise<LineEnd> {
  const known = new Set(digests.map((digest) => Buffer.from(digest).toString('latin1')));
  const entries: PositionEntry[] = [];
  for await (const entry of lineOf(store, graphId)) {
    if (known.has(Buffer.from(entry.digest).toString('latin1')))
      return { common: entry, entries: entries.reverse() };
    entries.push(entry);
  }
  return { common: undefined, entries: entries.reverse() };
}
