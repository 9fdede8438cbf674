import { parsePosition } from '../../core/manifest.ts';
import { isBeyond } from '../../core/position.ts';
import type { PositionEntry } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { checkOfPeer } from '../store/receive/check-frame.ts';

/** Most positions that are held: the newest ones. */
// A log without its beginning is a log. Memory must not grow with what a source claims.
const POSITIONS_HELD_MAX = 50_000;

/** The positions of a source that are not stored yet, oldest first. Each lies beyond the one before it. */
export class ReceivedPositions {
  /** Encoded entries by their digests in latin1. */
  readonly #entries = new Map<string, Buffer>();

  /** Adds the newest position. */
  add(entry: PositionEntry, bytes: Uint8Array): void {
    // A view would hold the whole message that it lies in.
    this.#entries.set(nameOf(entry.digest), Buffer.from(bytes));
    for (const [oldest] of this.#entries) {
      if (this.#entries.size <= POSITIONS_HELD_MAX) break;
      this.#entries.delete(oldest);
    }
  }

  /** Returns the position with a digest; undefined if it is not held. */
  find(digest: Uint8Array): PositionEntry | undefined {
    const bytes = this.#entries.get(nameOf(digest));
    return bytes === undefined ? undefined : parsed(bytes);
  }

  /** Returns the encoded positions up to one, oldest first. */
  upTo(position: PositionEntry): Uint8Array[] {
    const found: Uint8Array[] = [];
    for (const bytes of this.#entries.values()) {
      if (isBeyond(parsed(bytes), position)) break;
      found.push(bytes);
    }
    return found;
  }

  /** Removes the positions up to one. */
  dropUpTo(position: PositionEntry): void {
    for (const [name, bytes] of this.#entries) {
      if (isBeyond(parsed(bytes), position)) break;
      this.#entries.delete(name);
    }
  }
}

function nameOf(digest: Uint8Array): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength).toString('latin1');
}

function parsed(bytes: Uint8Array): PositionEntry {
  return checkOfPeer('a position', () => parsePosition(bytes));
}
