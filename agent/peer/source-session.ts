import { setTimeout as sleep } from 'node:timers/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { compareEpochs, KNOWN_DIGESTS_MAX } from '../../core/following/history.ts';
import { isGraphId } from '../../core/graph-id.ts';
import { isBeyond } from '../../core/position.ts';
import { TokenBucket } from '../../core/rate.ts';
import { sameBytes, UNIT_ID_BYTES } from '../../core/unit.ts';
import { type PositionEntry, PositionEntrySchema } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import {
  type Acknowledgement,
  FactsUpdateSchema,
  type FollowRequest,
  type FollowResponse,
  FollowResponseSchema,
  type Hello,
  HoldingsWantedSchema,
  type ListedSnapshot,
  PositionLogPartSchema,
  SnapshotListPartSchema,
  SnapshotsGoneSchema,
  type UnitsWanted,
  UnitsWantedSchema,
  WelcomeSchema,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import { monotonic } from '../../host/clock.ts';
import { version } from '../../host/version.ts';
import { FrameSender } from '../store/send/frame-sender.ts';
import type { Store } from '../store/store.ts';
import type { Follower, Followers } from './followers.ts';
import { FrameJoiner } from './frame-parts.ts';
import { HoldingsRequests } from './holdings.ts';
import { lineAfter } from './line.ts';
import {
  annotationsOf,
  isOffered,
  listedBytes,
  listedSnapshot,
  OFFERED_MANIFEST_BYTES_MAX,
  offerOf,
} from './listing.ts';
import { MessageQueue } from './message-queue.ts';
import {
  AGENT_NAME_MAX,
  chooseProtocol,
  OFFERS_WANTED_MAX,
  PART_ENTRIES_MAX,
  VERSION_MAX,
} from './protocol.ts';
import type { AdmittedFollower } from './targets.ts';
import type { FrameStorer } from './unit-reception.ts';
import { replyBytes, unitReplies } from './unit-replies.ts';
import { REQUEST_UNITS_MAX, UnitRequests } from './unit-requests.ts';

/** Bytes of frames that are queued for a follower before reading waits. */
const QUEUED_BYTES_MAX = 4 << 20;
/** Most requests of a follower that wait for their turn. */
const WAITING_REQUESTS_MAX = 16;
/** Bytes of a part of the list of snapshots, about. */
const PART_BYTES = 1 << 20;
/** Milliseconds that a follower has for its first message. */
export const HELLO_TIMEOUT_MS = 10_000;

/** What a stream of a source needs. */
export interface SourceParts {
  readonly store: Store;
  /** Name of this agent. */
  readonly agent: string;
  readonly followers: Followers;
  /** Admits a caller that says hello, or rejects it. */
  readonly admit: (hello: Hello) => AdmittedFollower;
  /** Reports whether this agent serves a graph that has no snapshot yet. */
  readonly isGuarded: (graphId: string) => boolean;
  readonly address: string;
  /** Stores frames that the follower sent because the source asked for them. */
  readonly onFrame: FrameStorer;
}

/** Serves one `Follow` stream. Yields the messages of the source until the follower leaves or breaks a rule. */
export async function* serveFollower(
  requests: AsyncIterable<FollowRequest>,
  parts: SourceParts,
  signal: AbortSignal,
): AsyncGenerator<FollowResponse> {
  const iterator = requests[Symbol.asyncIterator]();
  const hello = await firstMessage(iterator);
  const admitted = parts.admit(hello);
  const protocol = chooseProtocol(hello);
  if (sameBytes(hello.storeId, parts.store.config.storeId)) {
    throw new LightkeeperError(
      'REFUSED',
      `Cannot follow "${hello.graphId}": source and follower are one store`,
      {
        hint: 'name the other agent with follow',
      },
    );
  }
  const session = new SourceSession(parts, { hello, admitted, protocol });
  yield* session.run(iterator, signal);
}

async function firstMessage(requests: AsyncIterator<FollowRequest>): Promise<Hello> {
  const ended = new AbortController();
  const late = sleep(HELLO_TIMEOUT_MS, undefined, { signal: ended.signal, ref: false }).catch(
    () => undefined,
  );
  const first = await Promise.race([requests.next(), late]);
  ended.abort();
  if (first === undefined)
    throw new LightkeeperError('DEADLINE', 'Cannot serve a follower: it sent no first message in time');
  const message = first.done === true ? undefined : first.value.message;
  if (message?.case !== 'hello') throw brokenRule('the first message is no Hello');
  const { graphId, storeId, knownDigests, agent, version: itsVersion } = message.value;
  if (!isGraphId(graphId)) throw brokenRule('it names no graph');
  if (storeId.length !== 16) throw brokenRule('it names no store');
  if (agent.length > AGENT_NAME_MAX || itsVersion.length > VERSION_MAX)
    throw brokenRule('its name or version is too long');
  if (knownDigests.length > KNOWN_DIGESTS_MAX || knownDigests.some(({ length }) => length !== 32))
    throw brokenRule('its digests are not digests');
  return message.value;
}

function brokenRule(state: string): LightkeeperError {
  return new LightkeeperError('PEER_INVALID', `Cannot serve a follower: ${state}`);
}

class SourceSession {
  readonly #parts: SourceParts;
  readonly #store: Store;
  readonly #hello: Hello;
  readonly #protocol: number;
  readonly #follower: Follower;
  readonly #bucket: TokenBucket | undefined;
  readonly #out = new MessageQueue<FollowResponse>(QUEUED_BYTES_MAX);
  readonly #sender: FrameSender;
  readonly #unitRequests: UnitRequests;
  readonly #joiner = new FrameJoiner();
  readonly #holdings = new HoldingsRequests((number) =>
    this.#send({ case: 'holdingsWanted', value: create(HoldingsWantedSchema, { number }) }),
  );
  /** Requests of the follower for units, in order. */
  readonly #wanted: UnitsWanted[] = [];
  #wakeSender: () => void = () => {};
  /** Newest position that was sent. */
  #last: PositionEntry | undefined;
  #version = 0;

  constructor(
    parts: SourceParts,
    { hello, admitted, protocol }: { hello: Hello; admitted: AdmittedFollower; protocol: number },
  ) {
    this.#parts = parts;
    this.#store = parts.store;
    this.#hello = hello;
    this.#protocol = protocol;
    this.#sender = new FrameSender(parts.store);
    const rate = admitted.target?.bytesPerSecond;
    this.#bucket = rate === undefined ? undefined : new TokenBucket(rate, monotonic());
    this.#unitRequests = new UnitRequests((wantId, unitIds) =>
      this.#send({ case: 'unitsWanted', value: create(UnitsWantedSchema, { wantId, unitIds }) }),
    );
    this.#follower = parts.followers.connect({
      name: admitted.name,
      target: admitted.target,
      graphId: hello.graphId,
      address: parts.address,
      storeId: Buffer.from(hello.storeId).toString('hex'),
      version: hello.version,
      held: undefined,
      acknowledgedMs: undefined,
      requestUnits: (ids) => this.#unitRequests.request(ids),
      requestHoldings: () => this.#holdings.request(),
      end: (error) => this.#out.end(error),
    });
  }

  async *run(requests: AsyncIterator<FollowRequest>, signal: AbortSignal): AsyncGenerator<FollowResponse> {
    const ended = new AbortController();
    const either = AbortSignal.any([signal, ended.signal]);
    const fail = (error: unknown) => this.#out.end(error);
    const tasks = [
      this.#greet().then(() => this.#watch(either)),
      this.#read(requests),
      this.#sendFrames(either),
    ];
    for (const task of tasks) task.catch(fail);
    const aborted = () => this.#out.end(signal.reason);
    signal.addEventListener('abort', aborted, { once: true });
    // The follower ends the stream by ending its requests.
    tasks[1]?.then(() => this.#out.end()).catch(() => {});
    let reason = '';
    let failure: unknown = new LightkeeperError('UNAVAILABLE', 'Cannot read from the follower: it has left');
    try {
      yield* this.#out;
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error);
      failure = error;
      throw error;
    } finally {
      signal.removeEventListener('abort', aborted);
      ended.abort();
      this.#wakeSender();
      this.#out.end();
      this.#unitRequests.fail(failure);
      this.#holdings.fail(failure);
      this.#parts.followers.disconnect(this.#follower, reason);
      await Promise.allSettled([tasks[0], tasks[2]]);
    }
  }

  async #send(message: FollowResponse['message'], bytes = 0): Promise<void> {
    await this.#out.push(create(FollowResponseSchema, { message }), bytes);
  }

  // ----- what the source has -----

  /** Sends the welcome, the position log and the list of snapshots. */
  async #greet(): Promise<void> {
    const { graphId, knownDigests } = this.#hello;
    this.#version = this.#store.changes.version;
    const head = await this.#store.index.head(graphId);
    if (head === undefined && !this.#parts.isGuarded(graphId)) {
      throw new LightkeeperError(
        'NOT_FOUND',
        `Cannot follow "${graphId}": this agent has no graph of that id`,
        {
          hint: 'check graphs[].id on both sides',
        },
      );
    }
    const { common, entries } = await lineAfter(this.#store, graphId, knownDigests);
    const welcome = create(WelcomeSchema, {
      protocol: this.#protocol,
      agent: this.#parts.agent,
      storeId: this.#store.config.storeId,
      version,
      ...(head?.epoch === undefined ? {} : { epoch: head.epoch }),
      commonDigest: common?.digest ?? new Uint8Array(),
      headDigest: head?.digest ?? new Uint8Array(),
    });
    await this.#send({ case: 'welcome', value: welcome });
    await this.#sendPositions(entries);
    this.#last = entries.at(-1) ?? common;
    await this.#sendList();
  }

  async #sendPositions(entries: readonly PositionEntry[]): Promise<void> {
    for (let at = 0; at === 0 || at < entries.length; at += PART_ENTRIES_MAX) {
      const part = entries
        .slice(at, at + PART_ENTRIES_MAX)
        .map((entry) => toBinary(PositionEntrySchema, entry));
      const last = at + PART_ENTRIES_MAX >= entries.length;
      const bytes = part.reduce((sum, { length }) => sum + length, 0);
      const value = create(PositionLogPartSchema, { entries: part, last });
      await this.#send({ case: 'positionLog', value }, bytes);
    }
  }

  async #sendList(): Promise<void> {
    const { graphId, storeId } = this.#hello;
    let snapshots: ListedSnapshot[] = [];
    let bytes = 0;
    const send = async (last: boolean) => {
      const value = create(SnapshotListPartSchema, { snapshots, last });
      await this.#send({ case: 'snapshotList', value }, bytes);
      snapshots = [];
      bytes = 0;
    };
    for await (const [, state] of this.#store.index.records({ graphId })) {
      if (!isOffered(state)) continue;
      const listed = listedSnapshot(state, storeId);
      snapshots.push(listed);
      bytes += listedBytes(listed);
      if (snapshots.length >= PART_ENTRIES_MAX || bytes >= PART_BYTES) await send(false);
    }
    await send(true);
  }

  // ----- what changes -----

  /** Sends new positions, snapshots and facts until the signal. */
  async #watch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#store.changes.after(this.#version, signal);
      if (signal.aborted) return;
      const since = this.#version;
      this.#version = this.#store.changes.version;
      await this.#sendNew();
      await this.#sendFacts(since);
    }
  }

  async #sendNew(): Promise<void> {
    const { graphId } = this.#hello;
    const range = this.#last === undefined ? {} : { after: this.#last };
    const entries: PositionEntry[] = [];
    let last = this.#last;
    for await (const entry of this.#store.index.positions(graphId, range)) {
      if (last !== undefined && !sameBytes(entry.parentDigest, last.digest)) continue;
      entries.push(entry);
      last = entry;
    }
    const head = await this.#store.index.head(graphId);
    if (head !== undefined && last !== undefined && !sameBytes(head.digest, last.digest)) {
      throw new LightkeeperError(
        'UNAVAILABLE',
        `Cannot go on with "${graphId}": its history has another line now`,
        {
          hint: 'the follower connects again by itself',
        },
      );
    }
    if (entries.length === 0) return;
    await this.#sendPositions(entries);
    this.#last = last;
    // Older ones are history by now: the follower asks for those that it wants.
    for (const { digest } of entries.slice(-OFFERS_WANTED_MAX)) await this.#sendOffer(digest);
  }

  async #sendOffer(digest: Uint8Array): Promise<boolean> {
    const snapshot = await this.#find(digest);
    if (snapshot === undefined) return false;
    const offer = await offerOf(this.#store, snapshot, this.#hello.storeId);
    // No follower would take it.
    if (offer.manifest.length > OFFERED_MANIFEST_BYTES_MAX) return false;
    await this.#send({ case: 'offer', value: offer }, offer.manifest.length + bytesOf(offer.annotations));
    return true;
  }

  async #find(digest: Uint8Array) {
    const state = (await this.#store.index.find(digest))?.state;
    const isIt =
      state !== undefined &&
      isOffered(state) &&
      sameBytes(state.digest, digest) &&
      state.manifest.graphId === this.#hello.graphId;
    return isIt ? state : undefined;
  }

  async #sendFacts(since: number): Promise<void> {
    const changed = this.#store.changes.factsSince(since);
    if (changed === undefined) {
      throw new LightkeeperError('UNAVAILABLE', 'Cannot tell which facts have changed: there are too many', {
        hint: 'the follower connects again by itself',
      });
    }
    for (const digest of changed) {
      const snapshot = await this.#find(digest);
      if (snapshot === undefined) continue;
      const annotations = annotationsOf(snapshot, this.#hello.storeId);
      if (annotations.length > 0)
        await this.#send(
          { case: 'facts', value: create(FactsUpdateSchema, { annotations }) },
          bytesOf(annotations),
        );
    }
  }

  // ----- what the follower asks for -----

  async #read(requests: AsyncIterator<FollowRequest>): Promise<void> {
    for (;;) {
      const { done, value } = await requests.next();
      if (done === true) return;
      await this.#take(value);
    }
  }

  async #take({ message }: FollowRequest): Promise<void> {
    switch (message.case) {
      case 'snapshotsWanted':
        await this.#offer(message.value.digests);
        return;
      case 'unitsWanted':
        this.#want(message.value);
        return;
      case 'acknowledgement':
        await this.#acknowledge(message.value);
        return;
      case 'framePart': {
        const frame = this.#joiner.add(message.value);
        if (frame === undefined || !this.#unitRequests.admit(frame.wantId)) return;
        const wanted = (id: Buffer) => this.#unitRequests.isWanted(id);
        this.#unitRequests.arrived(await this.#parts.onFrame(frame.bytes, wanted));
        return;
      }
      case 'holdings':
        this.#holdings.take(message.value);
        return;
      case 'unitsMissing':
        this.#unitRequests.missing(message.value.wantId, message.value.unitIds);
        return;
      default:
        throw brokenRule('a message is empty, or a second Hello');
    }
  }

  async #offer(digests: readonly Uint8Array[]): Promise<void> {
    if (digests.length > OFFERS_WANTED_MAX) throw brokenRule('it asks for too many snapshots at once');
    const gone: Uint8Array[] = [];
    for (const digest of digests) if (!(await this.#sendOffer(digest))) gone.push(digest);
    if (gone.length > 0)
      await this.#send(
        { case: 'snapshotsGone', value: create(SnapshotsGoneSchema, { digests: gone }) },
        bytesOf(gone),
      );
  }

  #want(wanted: UnitsWanted): void {
    const { length } = wanted.unitIds;
    const units = length / UNIT_ID_BYTES;
    if (!Number.isInteger(units) || units === 0 || units > REQUEST_UNITS_MAX)
      throw brokenRule('a request for units is too long, or cut');
    if (this.#wanted.length >= WAITING_REQUESTS_MAX) throw brokenRule('it has too many open requests');
    this.#wanted.push(wanted);
    this.#wakeSender();
  }

  async #sendFrames(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const wanted = this.#wanted.shift();
      if (wanted !== undefined) await this.#answer(wanted, signal);
      else
        await new Promise<void>((resolve) => {
          this.#wakeSender = resolve;
        });
    }
  }

  async #answer(wanted: UnitsWanted, signal: AbortSignal): Promise<void> {
    for await (const reply of unitReplies(this.#store, this.#sender, wanted)) {
      const bytes = replyBytes(reply);
      const waitMs = reply.case === 'framePart' ? (this.#bucket?.take(bytes, monotonic()) ?? 0) : 0;
      if (waitMs > 0) await sleep(waitMs, undefined, { signal });
      await this.#send(reply, bytes);
      if (reply.case === 'framePart' && reply.value.offset + bytes === reply.value.frameLength)
        this.#parts.followers.sent(this.#follower, reply.value.frameLength);
    }
  }

  /** Records what the follower holds. PEER_INVALID for what it cannot hold. */
  async #acknowledge({ epoch, sequence, digest }: Acknowledgement): Promise<void> {
    if (epoch === undefined || digest.length !== 32) throw brokenRule('an acknowledgement is incomplete');
    const { graphId } = this.#hello;
    const known = await this.#store.index.position(graphId, digest);
    const position = create(PositionEntrySchema, { graphId, epoch, sequence, digest });
    if (known === undefined && (await this.#isBeforeLog(position))) return;
    const isSame =
      known !== undefined && known.sequence === sequence && compareEpochs(known.epoch, epoch) === 'same';
    if (!isSame) throw brokenRule('it acknowledges a snapshot that this store never had');
    this.#parts.followers.acknowledge(this.#follower, { epoch: epoch.number, sequence, digest });
  }

  /** Reports whether a position lies before the first one of the log, which may have lost its beginning. */
  async #isBeforeLog(position: PositionEntry): Promise<boolean> {
    for await (const first of this.#store.index.positions(position.graphId)) return isBeyond(first, position);
    return false;
  }
}

function bytesOf(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, { length }) => sum + length, 0);
}
