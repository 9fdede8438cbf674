import { factsFingerprint, travellingAnnotations } from '../../core/following/facts.ts';
import { compareEpochs, ReceivedLog } from '../../core/following/history.ts';
import { FetchSchedule, type HeldPosition } from '../../core/following/schedule.ts';
import { COUNTER_END, parsePosition } from '../../core/manifest.ts';
import { epochOf, MINT_ID_BYTES } from '../../core/position.ts';
import type { SnapshotState } from '../../core/snapshot.ts';
import { hex, sameBytes } from '../../core/unit.ts';
import type { PositionEntry } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import type {
  ListedSnapshot,
  PositionLogPart,
  SnapshotListPart,
  Welcome,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import type { Epoch } from '../../gen/lightkeeper/v1/types_pb.ts';
import { checkOfPeer } from '../store/receive/check-frame.ts';
import type { Store } from '../store/store.ts';
import { isOffered } from './listing.ts';
import { AGENT_NAME_MAX, PART_ENTRIES_MAX, PROTOCOL_MAX, PROTOCOL_MIN, VERSION_MAX } from './protocol.ts';
import { ReceivedPositions } from './received-positions.ts';
import { brokenRule, checkEpochs, forkedEpoch, sourceBehind } from './refusals.ts';

/** Most positions of a log, and most snapshots of a list, before the first snapshot is fetched. */
const POSITIONS_MAX = 1_000_000;
/** Most snapshots of a list that are considered: the newest ones. */
const LISTED_MAX = 100_000;
/** Most characters of tags in a list. The tags of further snapshots are ignored. */
const LISTED_TAGS_MAX = 8 << 20;
/** End of the numbers of epochs that are followed. */
// So that this store can always mint a newer one.
const EPOCH_END = 2n ** 62n;
/** The last millisecond of the year 9999. */
const CAPTURED_MS_MAX = 253_402_300_799_999n;
const FINGERPRINT_BYTES_MAX = 32;

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
  readonly #positions = new ReceivedPositions();
  #listed: ListedSnapshot[] = [];
  #listedCount = 0;
  #tagLetters = 0;

  constructor(parts: HandshakeParts) {
    this.#parts = parts;
    this.#store = parts.store;
  }

  /** Whether the source has said Welcome. */
  get isWelcome(): boolean {
    return this.#welcome !== undefined;
  }

  /** Whether the log and the list are complete. */
  get isComplete(): boolean {
    return this.#isListComplete;
  }

  /** Checks the Welcome of the source. REFUSED if its epoch is older, or of another primary. */
  async begin(welcome: Welcome): Promise<void> {
    if (this.#welcome !== undefined) throw brokenRule('there is a second Welcome');
    const { graphId } = this.#parts;
    const { protocol, epoch, commonDigest, headDigest, agent, storeId } = welcome;
    if (protocol < PROTOCOL_MIN || protocol > PROTOCOL_MAX) throw brokenRule(`it chose protocol ${protocol}`);
    const isDigest = ({ length }: Uint8Array) => length === 0 || length === 32;
    const hasEpoch = epoch === undefined ? headDigest.length === 0 : isEpoch(epoch);
    if (storeId.length !== 16 || !isDigest(commonDigest) || !isDigest(headDigest) || !hasEpoch)
      throw brokenRule('its Welcome is incomplete');
    if (agent.length > AGENT_NAME_MAX || welcome.version.length > VERSION_MAX)
      throw brokenRule('its name or version is too long');
    if (sameBytes(storeId, this.#store.config.storeId)) throw brokenRule('it is this store');
    const common =
      commonDigest.length === 0 ? undefined : await this.#store.index.position(graphId, commonDigest);
    if (commonDigest.length > 0 && common === undefined)
      throw brokenRule('it claims a common position that was not named');
    const head = await this.#store.index.head(graphId);
    // A source without a snapshot may get its first one later.
    if (epoch !== undefined) checkEpochs(compareEpochs(epoch, head?.epoch), { graphId, source: agent });
    this.#welcome = welcome;
    this.#log = new ReceivedLog(graphId, commonDigest, common === undefined ? {} : { after: common });
  }

  /** Adds positions, those of new snapshots too. Compares both histories once the log is complete. */
  async addPositions({ entries, last }: PositionLogPart): Promise<void> {
    const log = this.#log;
    if (log === undefined || entries.length > PART_ENTRIES_MAX)
      throw brokenRule('a part of its log is too long');
    for (const bytes of entries) {
      const entry = checkOfPeer('a position', () => parsePosition(bytes));
      if (!isEpoch(epochOf(entry))) throw brokenRule('an epoch of its log is out of range');
      const own = await this.#store.index.positionOf(entry.digest);
      if (own !== undefined && !isSamePlace(own, entry))
        throw brokenRule('an entry of its log has another place in this store');
      log.add(entry, own !== undefined);
      if (!this.#isLogComplete && log.count > POSITIONS_MAX) throw brokenRule('its log is too long');
      if (own === undefined) this.#positions.add(entry, bytes);
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
    const order = log.last === undefined ? 'same' : compareEpochs(log.last.epoch, epoch);
    if (order === 'older' || order === 'rival')
      throw brokenRule('its log ends in another epoch than its head');
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
      checkListed(listed);
      this.#listedCount += 1;
      if (this.#listedCount > POSITIONS_MAX) throw brokenRule('its list is too long');
      if (this.#listed.length < LISTED_MAX) this.#listed.push(this.#compact(listed));
    }
    this.#isListComplete = last;
    return last;
  }

  /** Returns an entry of the list that holds no more memory than it needs. */
  #compact(listed: ListedSnapshot): ListedSnapshot {
    for (const [key, value] of Object.entries(listed.tags)) this.#tagLetters += key.length + value.length;
    return Object.assign(listed, {
      // A view would hold the whole message that it lies in.
      digest: Uint8Array.from(listed.digest),
      facts: Uint8Array.from(listed.facts),
      tags: this.#tagLetters > LISTED_TAGS_MAX ? {} : listed.tags,
    });
  }

  /** Returns the positions up to that of a snapshot that are not stored yet, as sent. */
  // A position is stored with its snapshot or a later one, so that the head is always a snapshot that was held.
  positionsUpTo(position: PositionEntry): Uint8Array[] {
    return this.#positions.upTo(position);
  }

  /** Forgets the positions up to that of a snapshot, which are stored now. */
  stored(position: PositionEntry): void {
    this.#positions.dropUpTo(position);
  }

  /** Returns what to fetch, once the list is complete. */
  async schedule(): Promise<HandshakeResult> {
    const listed = this.#listed.splice(0);
    const schedule = new FetchSchedule(await this.#held());
    const retained = await this.#parts.retained(listed);
    const staleFacts: Uint8Array[] = [];
    for (const one of listed) {
      const state = await this.#store.index.known(one.digest);
      const isHeld = state?.manifest !== undefined && !state.deleted;
      const isRetained = !isHeld && state?.deleted !== true && retained.has(hex(one.digest));
      schedule.list(one, isRetained && (await this.#isPlaced(one)));
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

  /** Reports whether the log has a listed snapshot. PEER_INVALID if it has another place there. */
  // One whose position is unknown could not be stored. The log may have lost its beginning.
  async #isPlaced({ digest, epoch, sequence }: ListedSnapshot): Promise<boolean> {
    const known = await this.#position(digest);
    if (known !== undefined && (epochOf(known).number !== epoch || known.sequence !== sequence))
      throw brokenRule('a listed snapshot has another place than in its log');
    return known !== undefined;
  }

  async #position(digest: Uint8Array): Promise<PositionEntry | undefined> {
    return this.#positions.find(digest) ?? (await this.#store.index.position(this.#parts.graphId, digest));
  }

  #hasFacts({ record }: SnapshotState, { facts }: ListedSnapshot): boolean {
    const known = travellingAnnotations(record, this.#store.config.storeId);
    return sameBytes(factsFingerprint(known), facts);
  }

  /** Checks that a snapshot has the place that the log gives it. PEER_INVALID if it has another one. */
  async checkPosition(position: PositionEntry): Promise<void> {
    const known = await this.#position(position.digest);
    if (
      known === undefined ||
      !isSamePlace(known, position) ||
      !sameBytes(known.parentDigest, position.parentDigest)
    )
      throw brokenRule('a snapshot has another place than in its log');
  }
}

/** Reports whether an epoch is one that can be followed. */
function isEpoch({ number, mintId }: Epoch): boolean {
  return number >= 1n && number < EPOCH_END && mintId.length === MINT_ID_BYTES;
}

/** Reports whether two positions are in the same place of the same graph. */
function isSamePlace(one: PositionEntry, other: PositionEntry): boolean {
  return (
    one.graphId === other.graphId &&
    one.sequence === other.sequence &&
    compareEpochs(one.epoch, other.epoch) === 'same'
  );
}

/** Checks an entry of a list of snapshots, or that of an offer. PEER_INVALID if it is out of range. */
export function checkListed({ digest, epoch, sequence, capturedMs, facts }: ListedSnapshot): void {
  const isInRange =
    digest.length === 32 &&
    epoch < EPOCH_END &&
    sequence > 0n &&
    sequence < COUNTER_END &&
    capturedMs <= CAPTURED_MS_MAX &&
    facts.length <= FINGERPRINT_BYTES_MAX;
  if (!isInRange) throw brokenRule('an entry of its list is out of range');
}
