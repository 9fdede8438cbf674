import { setTimeout as sleep } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import type { Client } from '@connectrpc/connect';
import { LightkeeperError } from '../../core/errors.ts';
import type { FetchSchedule, NextFetch } from '../../core/following/schedule.ts';
import { parseManifest } from '../../core/manifest.ts';
import { epochOf, positionEntry } from '../../core/position.ts';
import { TokenBucket } from '../../core/rate.ts';
import type { StoredSnapshot } from '../../core/snapshot.ts';
import { hex, UNIT_ID_BYTES } from '../../core/unit.ts';
import {
  AcknowledgementSchema,
  type FollowRequest,
  FollowRequestSchema,
  type FollowResponse,
  type FramePart,
  HelloSchema,
  type ListedSnapshot,
  type PeerService,
  type SnapshotOffer,
  SnapshotsWantedSchema,
  type UnitsWanted,
  UnitsWantedSchema,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import { monotonic } from '../../host/clock.ts';
import { version } from '../../host/version.ts';
import { checkOfPeer } from '../store/receive/check-frame.ts';
import type { FrameReceiver } from '../store/receive/frame-receiver.ts';
import { FrameSender } from '../store/send/frame-sender.ts';
import type { Store } from '../store/store.ts';
import { fetchSnapshot } from './fetch-snapshot.ts';
import { FrameJoiner } from './frame-parts.ts';
import { Handshake, type HandshakeParts } from './handshake.ts';
import { holdingsOf } from './holdings.ts';
import { knownDigests } from './line.ts';
import { MessageQueue } from './message-queue.ts';
import { OFFERS_WANTED_MAX, PROTOCOL_MAX, PROTOCOL_MIN } from './protocol.ts';
import { factsAbout, newFacts } from './received-facts.ts';
import { checkOffer, ReceivedOffers } from './received-offers.ts';
import { brokenRule } from './refusals.ts';
import { STALL_LIMITS, type StallLimits, StallWatch } from './stall-watch.ts';
import { replyBytes, unitReplies } from './unit-replies.ts';
import { REQUEST_UNITS_MAX, UnitRequests } from './unit-requests.ts';

/** Bytes of one entry of a list of snapshots, about. */
const LISTED_BYTES = 120;
/** Bytes of messages that are queued for the source before writing waits. */
const QUEUED_BYTES_MAX = 1 << 20;
/** Frames that are checked and written at the same time. */
const RECEIVING_MAX = 3;
/** Most messages with new facts that are stored in a minute. */
const FACTS_PER_MINUTE = 3000;
/** Time after which a snapshot is fetched again of which the source lacked units, in milliseconds. */
const RETRY_INCOMPLETE_MS = 60_000;
/** Snapshots of the history whose offers are asked for at once. */
const OFFERS_AHEAD = 8;

/** What a follower needs to follow one graph. */
export interface FollowParts extends HandshakeParts {
  /** Name of this agent. */
  readonly agent: string;
  readonly receiver: FrameReceiver;
  readonly onEvent: (event: FollowEvent) => void;
  /** When the source counts as stalled; undefined for the usual limits. */
  readonly stallLimits?: StallLimits;
  /** Time until a snapshot is fetched again of which the source lacked units; undefined for the usual one. */
  readonly retryMs?: number;
}

/** What happens on a stream. */
export type FollowEvent =
  | { readonly type: 'welcomed'; readonly agent: string; readonly version: string }
  | { readonly type: 'committed'; readonly snapshot: StoredSnapshot; readonly isHistory: boolean }
  | { readonly type: 'incomplete'; readonly digest: Uint8Array; readonly missing: number }
  | { readonly type: 'received'; readonly bytes: number }
  /** Nothing remains to be fetched. */
  | { readonly type: 'idle' };

type RequestMessage = FollowRequest['message'];

/** Follows a graph on one stream until the source ends it, the signal aborts or a rule is broken. */
export async function followOnce(
  client: Client<typeof PeerService>,
  parts: FollowParts,
  signal: AbortSignal,
): Promise<void> {
  await new FollowSession(parts).run(client, signal);
}

class FollowSession {
  readonly #parts: FollowParts;
  readonly #store: Store;
  readonly #out = new MessageQueue<FollowRequest>(QUEUED_BYTES_MAX);
  readonly #requests: UnitRequests;
  readonly #joiner = new FrameJoiner();
  readonly #receiving = new Set<Promise<void>>();
  readonly #offers = new ReceivedOffers();
  readonly #wantedOffers = new Set<string>();
  readonly #sender: FrameSender;
  #failure: { readonly error: unknown } | undefined;
  readonly #handshake: Handshake;
  #schedule: FetchSchedule | undefined;
  #older: Uint8Array[] = [];
  #wake: () => void = () => {};
  #watch: StallWatch | undefined;
  readonly #factsRate = new TokenBucket(FACTS_PER_MINUTE, monotonic() / 60);
  /** Ends the wait for what the source may have healed meanwhile. */
  #retry: NodeJS.Timeout | undefined;
  /** Whether a message is being worked on. */
  #isBusy = false;
  /** Whether something is being sent that the source asked for. */
  #isAnswering = false;

  constructor(parts: FollowParts) {
    this.#parts = parts;
    this.#store = parts.store;
    this.#sender = new FrameSender(parts.store);
    this.#handshake = new Handshake(parts);
    this.#requests = new UnitRequests((wantId, unitIds) =>
      this.#send({ case: 'unitsWanted', value: create(UnitsWantedSchema, { wantId, unitIds }) }),
    );
  }

  async run(client: Client<typeof PeerService>, signal: AbortSignal): Promise<void> {
    const ended = new AbortController();
    const either = AbortSignal.any([signal, ended.signal]);
    await this.#send({ case: 'hello', value: await this.#hello() });
    const fail = (error: unknown) => {
      this.#failure ??= { error };
      // What fetches may wait for units that will never come, and for a place in the queue.
      this.#requests.fail(this.#failure.error);
      this.#out.end();
      this.#wake();
      ended.abort();
    };
    const watch = new StallWatch(this.#parts.stallLimits ?? STALL_LIMITS, {
      isWelcome: () => this.#handshake.isWelcome,
      isWaiting: () => this.#isWaiting(),
      onStall: fail,
    });
    this.#watch = watch;
    const reading = this.#read(client.follow(this.#out, { signal: either })).then(
      () =>
        fail(new LightkeeperError('UNAVAILABLE', 'Cannot go on following: the source has ended the stream')),
      fail,
    );
    const fetching = this.#fetchAll(either).catch(fail);
    try {
      await Promise.all([reading, fetching]);
    } finally {
      watch.stop();
      clearTimeout(this.#retry);
      this.#out.end();
      this.#requests.fail(this.#failure?.error ?? new Error('the stream has ended'));
      await Promise.allSettled(this.#receiving);
    }
    signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #isWaiting(): boolean {
    if (this.#isAnswering) return true;
    if (this.#isBusy || this.#receiving.size > 0) return false;
    return !this.#handshake.isComplete || this.#requests.open > 0 || this.#wantedOffers.size > 0;
  }

  async #hello() {
    const head = await this.#store.index.head(this.#parts.graphId);
    return create(HelloSchema, {
      protocolMin: PROTOCOL_MIN,
      protocolMax: PROTOCOL_MAX,
      graphId: this.#parts.graphId,
      agent: this.#parts.agent,
      storeId: this.#store.config.storeId,
      version,
      ...(head === undefined ? {} : { epoch: epochOf(head) }),
      knownDigests: await knownDigests(this.#store, this.#parts.graphId),
    });
  }

  async #send(content: RequestMessage, bytes = 0): Promise<void> {
    await this.#out.push(create(FollowRequestSchema, { message: content }), bytes);
  }

  // ----- messages of the source -----

  async #read(responses: AsyncIterable<FollowResponse>): Promise<void> {
    for await (const { message: content } of responses) {
      if (this.#failure !== undefined) throw this.#failure.error;
      if (content.case !== 'welcome' && !this.#handshake.isWelcome)
        throw brokenRule('the first message is no Welcome');
      this.#isBusy = true;
      await this.#take(content);
      this.#isBusy = false;
    }
  }

  async #take(content: FollowResponse['message']): Promise<void> {
    switch (content.case) {
      case 'welcome':
        await this.#handshake.begin(content.value);
        this.#parts.onEvent({ type: 'welcomed', agent: content.value.agent, version: content.value.version });
        return;
      case 'positionLog':
        await this.#handshake.addPositions(content.value);
        for (const { length } of content.value.entries) this.#watch?.progress(length);
        return;
      case 'snapshotList':
        this.#watch?.progress(content.value.snapshots.length * LISTED_BYTES);
        if (await this.#handshake.addList(content.value)) await this.#start();
        return;
      case 'offer':
        await this.#addOffer(content.value);
        return;
      case 'snapshotsGone':
        for (const digest of content.value.digests) this.#dropOffer(digest);
        return;
      case 'framePart':
        await this.#addFrame(content.value);
        return;
      case 'unitsMissing':
        this.#requests.missing(content.value.wantId, content.value.unitIds);
        return;
      case 'facts':
        await this.#storeFacts(content.value.annotations);
        return;
      case 'unitsWanted':
        await this.#answer(content.value);
        return;
      case 'holdingsWanted':
        for await (const value of holdingsOf(this.#store, this.#parts.graphId, content.value.number))
          await this.#sendAsked(
            { case: 'holdings', value },
            value.digests.length + value.damagedDigests.length,
          );
        return;
      default:
        throw brokenRule('a message is empty');
    }
  }

  /** Begins to fetch what the list has, once that is complete. */
  async #start(): Promise<void> {
    const { schedule, staleFacts } = await this.#handshake.schedule();
    this.#schedule = schedule;
    for (let at = 0; at < staleFacts.length; at += OFFERS_WANTED_MAX)
      await this.#wantOffers(staleFacts.slice(at, at + OFFERS_WANTED_MAX));
    await this.#acknowledge();
    this.#wake();
  }

  async #addOffer(offer: SnapshotOffer): Promise<void> {
    const { listed, digest } = checkOffer(offer);
    const name = hex(digest);
    if (this.#wantedOffers.delete(name)) this.#watch?.restart();
    const state = await this.#store.index.known(digest);
    if (state?.manifest !== undefined) {
      await this.#storeFacts(offer.annotations);
      this.#schedule?.list(listed, false);
      return;
    }
    if (state?.deleted === true) return;
    await this.#checkPlace(offer.manifest, listed);
    this.#schedule?.list(listed, true);
    this.#offers.add(name, offer);
    this.#wake();
  }

  /** Checks that a snapshot belongs to the graph and has its place in the log. PEER_INVALID if not. */
  async #checkPlace(bytes: Uint8Array, { digest, epoch, sequence }: ListedSnapshot): Promise<void> {
    const manifest = checkOfPeer('a manifest', () => parseManifest(bytes));
    const { graphId } = this.#parts;
    if (manifest.graphId !== graphId) throw brokenRule(`it offers a snapshot of graph "${manifest.graphId}"`);
    const position = positionEntry(manifest, digest);
    if (epochOf(position).number !== epoch || position.sequence !== sequence)
      throw brokenRule('an offer has another place than its snapshot');
    await this.#handshake.checkPosition(position);
  }

  #dropOffer(digest: Uint8Array): void {
    this.#wantedOffers.delete(hex(digest));
    this.#schedule?.gone(digest);
    this.#wake();
  }

  /** Checks a frame and appends it, beside the next ones. */
  async #addFrame(part: FramePart): Promise<void> {
    const frame = this.#joiner.add(part);
    this.#watch?.progress(part.data.length);
    if (frame === undefined || !this.#requests.admit(frame.wantId)) return;
    while (this.#receiving.size >= RECEIVING_MAX) await Promise.race(this.#receiving);
    const receiving: Promise<void> = this.#parts.receiver
      .receive(frame.bytes, (id) => this.#requests.isWanted(id))
      .then(({ ids }) => {
        this.#requests.arrived(ids);
        this.#parts.onEvent({ type: 'received', bytes: frame.bytes.length });
      })
      .catch((error: unknown) => {
        this.#failure ??= { error };
        this.#requests.fail(error);
        this.#wake();
      })
      .finally(() => this.#receiving.delete(receiving));
    this.#receiving.add(receiving);
  }

  /** Sends units that the source lost. */
  async #answer(wanted: UnitsWanted): Promise<void> {
    const units = wanted.unitIds.length / UNIT_ID_BYTES;
    if (!Number.isInteger(units) || units === 0 || units > REQUEST_UNITS_MAX)
      throw brokenRule('its request for units is too long, or cut');
    for await (const reply of unitReplies(this.#store, this.#sender, wanted))
      await this.#sendAsked(reply, replyBytes(reply));
  }

  /** Sends what the source asked for. The time in which the source does not read them counts as stalled. */
  async #sendAsked(content: RequestMessage, bytes: number): Promise<void> {
    this.#isAnswering = true;
    await this.#send(content, bytes);
    this.#isAnswering = false;
    this.#watch?.progress(bytes);
  }

  // ----- fetching -----

  async #fetchAll(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      if (this.#failure !== undefined) throw this.#failure.error;
      const next = this.#schedule?.next();
      const offer = next === undefined ? undefined : this.#offers.get(hex(next.snapshot.digest));
      if (next !== undefined && offer !== undefined) await this.#fetch(next, offer);
      else {
        if (next !== undefined) await this.#wantOffers([next.snapshot.digest]);
        else if (this.#schedule !== undefined) {
          await this.#acknowledgeOlder();
          this.#parts.onEvent({ type: 'idle' });
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          if (signal.aborted || this.#failure !== undefined) resolve();
        });
      }
    }
  }

  async #wantOffers(digests: readonly Uint8Array[]): Promise<void> {
    const unasked = digests.filter((digest) => !this.#wantedOffers.has(hex(digest)));
    if (unasked.length === 0) return;
    for (const digest of unasked) this.#wantedOffers.add(hex(digest));
    await this.#send({ case: 'snapshotsWanted', value: create(SnapshotsWantedSchema, { digests: unasked }) });
  }

  async #fetch({ snapshot: { digest }, isHistory }: NextFetch, offer: SnapshotOffer): Promise<void> {
    const { receiver, onEvent } = this.#parts;
    const beganMs = monotonic();
    const manifest = parseManifest(offer.manifest);
    const position = positionEntry(manifest, Buffer.from(digest));
    const missing = await fetchSnapshot(
      {
        has: (id) => receiver.has(id) || this.#requests.isWanted(Buffer.from(id)),
        piece: (id, kind) => receiver.piece(id, kind),
        request: (ids) => this.#requests.request(ids),
        isComplete: (id) => receiver.isComplete(id),
      },
      manifest,
    );
    this.#offers.delete(hex(digest));
    if (missing > 0) {
      this.#schedule?.failed(digest);
      this.#retryLater();
      onEvent({ type: 'incomplete', digest, missing });
      return;
    }
    const snapshot = await receiver.commit({
      manifest: offer.manifest,
      positions: this.#handshake.positionsUpTo(position),
      annotations: factsAbout(digest, offer.annotations),
      durationMs: Math.round(monotonic() - beganMs),
    });
    this.#handshake.stored(position);
    this.#watch?.restart();
    onEvent({ type: 'committed', snapshot, isHistory });
    if (this.#schedule?.fetched(digest) === true) await this.#acknowledge();
    else this.#older.push(digest);
    if (this.#older.length >= OFFERS_AHEAD) await this.#acknowledgeOlder();
  }

  #retryLater(): void {
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      this.#schedule?.retryFailed();
      this.#wake();
    }, this.#parts.retryMs ?? RETRY_INCOMPLETE_MS);
  }

  async #storeFacts(annotations: readonly Uint8Array[]): Promise<void> {
    const news = await newFacts(this.#store, this.#parts.graphId, annotations);
    if (news.length === 0) return;
    // Each call makes a pack. A source that sends facts without end is slowed down.
    const waitMs = 60 * this.#factsRate.take(1, monotonic() / 60);
    if (waitMs > 0) await sleep(waitMs);
    await this.#parts.receiver.commitRecords({ positions: [], annotations: news });
  }

  // ----- acknowledging -----

  async #acknowledge(): Promise<void> {
    const held = this.#schedule?.held;
    if (held === undefined) return;
    const entry = await this.#store.index.position(this.#parts.graphId, held.digest);
    if (entry === undefined) return;
    const olderDigests = this.#older.splice(0);
    const { sequence, digest } = entry;
    await this.#send({
      case: 'acknowledgement',
      value: create(AcknowledgementSchema, { epoch: epochOf(entry), sequence, digest, olderDigests }),
    });
  }

  async #acknowledgeOlder(): Promise<void> {
    if (this.#older.length > 0) await this.#acknowledge();
  }
}
