import { factsFingerprint, travellingAnnotations } from '../../core/following/facts.ts';
import { compareEpochs, ReceivedLog } from '../../core/following/history.ts';
import { FetchSchedule, type HeldPosition } from '../../core/following/schedule.ts';
import { parsePosition } from '../../core/manifest.ts';
import { epochOf, isBeyond } from '../../core/position.ts';
import type { SnapshotState } from '../../core/snapshot.ts';
import { hex, sameBytes } from '../../core/unit.ts';
import type { PositionEntry } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import type {
  ListedSnapshot,
  PositionLogPart,
  SnapshotListPart,
  Welcome,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import type { Store } from '../store/store.ts';
import { isOffered } from './listing.ts';
import { PART_ENTRIES_MAX, PROTOCOL_MAX, PROTOCOL_MIN } from './protocol.ts';
import { findSnapshot } from './received-facts.ts';
import { brokenRule, checkEpochs, forkedEpoch, sourceBehind } from './refusals.ts';

/** Most positions, and most snapshots, of one graph. */
const POSITIONS_MAX = 1_000_000;

/** What the handshake of a follower needs. */
export interface HandshakeParts {
  readonly store: Store;
  readonly graphId: string;
  /** Returns the digests, in hex, of the listed snapshots that the retention of this agent would keep. */
  readonly retained: (listed: readonly ListedSnapshot[]) => Promise<ReadonlySet<string>>;
  /** Keeps the points of the graph after `ancestor` as a fork. An empty one is that of all points. */
  readonly keepFork: (ancestor: Uint8Array) => Promise<void>;
}

/** What a follower does after the handshake. */
export interface HandshakeResult {
  readonly schedule: FetchSchedule;
  /** Digests of snapshots that are held, and of which the source knows other facts. */
  readonly staleFacts: readonly Uint8Array[];
}

/** Compares the history of a source with the follower's own, message by message. */
export class Handshake {
  readonly #parts: HandshakeParts;
  readonly #store: Store;
  #welcome: Welcome | undefined;
  #log: ReceivedLog | undefined;
  #isLogComplete = false;
  #isListComplete = false;
  /** Positions that were received and are not stored yet, oldest first. */
  readonly #positions: { readonly bytes: Uint8Array; readonly entry: PositionEntry }[] = [];
  #listed: ListedSnapshot[] = [];

  constructor(parts: HandshakeParts) {
    this.#parts = parts;
    this.#store = parts.store;
  }

  /** Whether the source has said Welcome. */
  get isWelcome(): boolean {
    return this.#welcome !== undefined;
  }

  /** Checks the Welcome of the source. REFUSED if its epoch is older, or of another primary. */
  async begin(welcome: Welcome): Promise<void> {
    if (this.#welcome !== undefined) throw brokenRule('there is a second Welcome');
    const { graphId } = this.#parts;
    const { protocol, epoch, commonDigest, headDigest, agent, storeId } = welcome;
    if (protocol < PROTOCOL_MIN || protocol > PROTOCOL_MAX) throw brokenRule(`it chose protocol ${protocol}`);
    const isDigest = ({ length }: Uint8Array) => length === 0 || length === 32;
    const hasEpoch = epoch === undefined ? headDigest.length === 0 : epoch.mintId.length === 16;
    if (storeId.length !== 16 || !isDigest(commonDigest) || !isDigest(headDigest) || !hasEpoch)
      throw brokenRule('its Welcome is incomplete');
    if (sameBytes(storeId, this.#store.config.storeId)) throw brokenRule('it is this store');
    if (commonDigest.length > 0 && (await this.#store.index.position(graphId, commonDigest)) === undefined)
      throw brokenRule('it claims a common position that was not named');
    const head = await this.#store.index.head(graphId);
    // A source without a snapshot may get its first one later.
    if (epoch !== undefined) checkEpochs(compareEpochs(epoch, head?.epoch), { graphId, source: agent });
    this.#welcome = welcome;
    this.#log = new ReceivedLog(graphId, commonDigest);
  }

  /** Adds positions, those of new snapshots too. Compares both histories once the log is complete. */
  async addPositions({ entries, last }: PositionLogPart): Promise<void> {
    const log = this.#log;
    if (log === undefined || entries.length > PART_ENTRIES_MAX)
      throw brokenRule('a part of its log is too long');
    for (const bytes of entries) {
      const entry = parsePosition(bytes);
      const isOwn = (await this.#store.index.position(this.#parts.graphId, entry.digest)) !== undefined;
      log.add(entry, isOwn);
      if (log.count > POSITIONS_MAX) throw brokenRule('its log is too long');
      if (!isOwn) this.#positions.push({ bytes, entry });
    }
    if (!last || this.#isLogComplete) return;
    this.#isLogComplete = true;
    await this.#compare(log);
  }

  async #compare(log: ReceivedLog): Promise<void> {
    const { graphId, keepFork } = this.#parts;
    const { index } = this.#store;
    const { headDigest = new Uint8Array(), epoch } = this.#welcome ?? {};
    const head = await index.head(graphId);
    const hasSourceHead = headDigest.length > 0 && (await index.position(graphId, headDigest)) !== undefined;
    const relation = log.relation({ ownHead: head?.digest, sourceHead: headDigest, hasSourceHead });
    switch (relation.kind) {
      case 'continues':
        return;
      case 'empty-source':
        if (head !== undefined) throw sourceBehind(graphId);
        return;
      case 'source-behind':
        throw sourceBehind(graphId);
      case 'forked':
        if (compareEpochs(epoch, head?.epoch) !== 'newer') throw forkedEpoch(graphId);
        await keepFork(relation.sharedDigest);
    }
  }

  /** Adds snapshots that the source has. Returns whether the list is complete. */
  async addList({ snapshots, last }: SnapshotListPart): Promise<boolean> {
    if (!this.#isLogComplete || this.#isListComplete || snapshots.length > PART_ENTRIES_MAX)
      throw brokenRule('a part of its list is out of order');
    for (const listed of snapshots) {
      if (listed.digest.length !== 32 || listed.sequence === 0n) throw brokenRule('its list is wrong');
      this.#listed.push(listed);
      if (this.#listed.length > POSITIONS_MAX) throw brokenRule('its list is too long');
    }
    this.#isListComplete = last;
    return last;
  }

  /** Returns the positions up to that of a snapshot that are not stored yet, as sent. */
  // A position is stored with its snapshot or a later one, so that the head is always a snapshot that was held.
  positionsUpTo(position: PositionEntry): Uint8Array[] {
    return this.#positions.filter(({ entry }) => !isBeyond(entry, position)).map(({ bytes }) => bytes);
  }

  /** Forgets the positions up to that of a snapshot, which are stored now. */
  stored(position: PositionEntry): void {
    const left = this.#positions.findIndex(({ entry }) => isBeyond(entry, position));
    this.#positions.splice(0, left === -1 ? this.#positions.length : left);
  }

  /** Returns what to fetch, once the list is complete. */
  async schedule(): Promise<HandshakeResult> {
    const listed = this.#listed.splice(0);
    const schedule = new FetchSchedule(await this.#held());
    const retained = await this.#parts.retained(listed);
    const staleFacts: Uint8Array[] = [];
    for (const one of listed) {
      const state = await findSnapshot(this.#store, one.digest);
      const isHeld = state?.manifest !== undefined && !state.deleted;
      const isWanted = !isHeld && state?.deleted !== true && retained.has(hex(one.digest));
      schedule.list(one, isWanted);
      if (isHeld && !this.#hasFacts(state, one)) staleFacts.push(one.digest);
    }
    return { schedule, staleFacts };
  }

  /** Returns the newest snapshot of the graph that this store holds. */
  async #held(): Promise<HeldPosition | undefined> {
    for await (const [, state] of this.#store.index.records({ graphId: this.#parts.graphId })) {
      if (!isOffered(state)) continue;
      const { sequence } = state.manifest;
      return { epoch: epochOf(state.manifest).number, sequence, digest: state.digest };
    }
    return undefined;
  }

  #hasFacts({ record }: SnapshotState, { facts }: ListedSnapshot): boolean {
    const known = travellingAnnotations(record, this.#store.config.storeId);
    return sameBytes(factsFingerprint(known), facts);
  }

  /** Checks that a snapshot has the place that the log gives it. PEER_INVALID if it has another one. */
  async checkPosition(position: PositionEntry): Promise<void> {
    const { digest, sequence, parentDigest } = position;
    const known =
      this.#positions.find(({ entry }) => sameBytes(entry.digest, digest))?.entry ??
      (await this.#store.index.position(this.#parts.graphId, digest));
    const isSame =
      known !== undefined &&
      known.sequence === sequence &&
      compareEpochs(known.epoch, position.epoch) === 'same' &&
      sameBytes(known.parentDigest, parentDigest);
    if (!isSame) throw brokenRule('a snapshot has another place than in its log');
  }
}
