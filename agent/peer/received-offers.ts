import { sameBytes, sha256 } from '../../core/unit.ts';
import type { ListedSnapshot, SnapshotOffer } from '../../gen/lightkeeper/v1/peer_pb.ts';
import { checkListed } from './handshake.ts';
import { OFFERED_ANNOTATIONS_BYTES_MAX, OFFERED_MANIFEST_BYTES_MAX } from './listing.ts';
import { brokenRule } from './refusals.ts';

/** Most offers that are held in memory, and their bytes. */
const OFFERS_MAX = 256;
const OFFERS_BYTES_MAX = 4 << 20;
/** Most annotations of one offer. */
const ANNOTATIONS_MAX = 1000;

/** An offer whose digest and sizes were checked. */
export interface CheckedOffer {
  readonly digest: Buffer;
  /** Its entry, which holds nothing else in memory. */
  readonly listed: ListedSnapshot;
}

/** Checks the digest and the sizes of an offer. PEER_INVALID if it breaks a rule. */
export function checkOffer({ manifest, annotations, listed }: SnapshotOffer): CheckedOffer {
  const digest = sha256(manifest);
  if (listed === undefined || !sameBytes(listed.digest, digest))
    throw brokenRule('an offer does not hash to its digest');
  checkListed(listed);
  const bytes = annotations.reduce((sum, { length }) => sum + length, 0);
  const isSmall =
    manifest.length <= OFFERED_MANIFEST_BYTES_MAX &&
    annotations.length <= ANNOTATIONS_MAX &&
    bytes <= OFFERED_ANNOTATIONS_BYTES_MAX;
  if (!isSmall) throw brokenRule('an offer is too long');
  // The tags serve the retention of what is in the list.
  return { digest, listed: Object.assign(listed, { digest, facts: new Uint8Array(), tags: {} }) };
}

/** The offers of snapshots that are not fetched yet. Beyond their bounds the oldest ones are forgotten. */
// What is forgotten is asked for again.
export class ReceivedOffers {
  readonly #offers = new Map<string, SnapshotOffer>();
  #bytes = 0;

  /** Adds an offer by the digest of its snapshot in hex. */
  add(name: string, offer: SnapshotOffer): void {
    this.delete(name);
    this.#offers.set(name, compact(offer));
    this.#bytes += bytesOf(offer);
    for (const [oldest] of this.#offers) {
      if (oldest === name || (this.#offers.size <= OFFERS_MAX && this.#bytes <= OFFERS_BYTES_MAX)) break;
      this.delete(oldest);
    }
  }

  get(name: string): SnapshotOffer | undefined {
    return this.#offers.get(name);
  }

  delete(name: string): void {
    const offer = this.#offers.get(name);
    if (offer === undefined) return;
    this.#offers.delete(name);
    this.#bytes -= bytesOf(offer);
  }
}

// A view would hold the whole message that it lies in.
function compact(offer: SnapshotOffer): SnapshotOffer {
  return Object.assign(offer, {
    manifest: Buffer.from(offer.manifest),
    annotations: offer.annotations.map((bytes) => Buffer.from(bytes)),
  });
}

function bytesOf({ manifest, annotations }: SnapshotOffer): number {
  return annotations.reduce((sum, { length }) => sum + length, manifest.length);
}
