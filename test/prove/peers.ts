import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { toBinary } from '@bufbuild/protobuf';
import { type Client, ConnectError } from '@connectrpc/connect';
import { BULK_CODECS } from '../../agent/peer/bulk-codec.ts';
import { followOnce } from '../../agent/peer/follow-session.ts';
import { Followers } from '../../agent/peer/followers.ts';
import { MessageQueue } from '../../agent/peer/message-queue.ts';
import { serveFollower } from '../../agent/peer/source-session.ts';
import { STALL_LIMITS, type StallLimits } from '../../agent/peer/stall-watch.ts';
import { FrameReceiver } from '../../agent/store/receive/frame-receiver.ts';
import { Store } from '../../agent/store/store.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { hex } from '../../core/unit.ts';
import { mix, type Random, random } from '../../demo/random.ts';
import {
  type FollowRequest,
  FollowRequestSchema,
  type FollowResponse,
  FollowResponseSchema,
  type PeerService,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import { monotonic } from '../../host/clock.ts';
import { fillGraph } from '../support/fill.ts';
import { annotation } from '../support/lies.ts';
import { LIAR, said } from '../support/lying-peer.ts';
import { mutateBytes } from './mutate.ts';
import { callsInProcess, FAILURES_SHOWN, GRAPH, type Scratch, scratch } from './store-calls.ts';

/** No case may take longer. */
const CASE_MS_MAX = 2000;
/** A source that is lied about may say nothing more. */
const STALL = { welcomeMs: 150, stallMs: 150, progressBytes: 1 };
/** Cases with one store of a follower. */
const CASES_PER_STORE = 25;
/** Shares of the cases. */
const DECODED = 0.6;
const SERVED = 0.25;

/** A sound stream between two stores, to be broken. */
export interface PeerCorpus {
  readonly seed: number;
  readonly folder: Scratch;
  readonly source: Store;
  readonly digests: ReadonlySet<string>;
  readonly requests: readonly Buffer[];
  readonly responses: readonly Buffer[];
}

/** Makes a store with a few snapshots, and records how another one follows it. */
export async function makePeerCorpus(seed: number): Promise<PeerCorpus> {
  const folder = scratch('peers', { memory: true });
  const calls = callsInProcess(folder.fresh('source'));
  const dir = folder.fresh('dir');
  const digests = new Set<string>();
  for (let version = 1; version <= 3; version++) {
    fillGraph(dir, version);
    const { position } = await calls.snapshot(dir);
    digests.add(String(position?.digest));
  }
  const source = await Store.open(calls.store);
  const requests: Buffer[] = [];
  const responses: Buffer[] = [];
  const record = {
    request: (bytes: Buffer) => void requests.push(bytes),
    response: (bytes: Buffer) => void responses.push(bytes),
  };
  const corpus = { seed, folder, source, digests, requests, responses };
  const store = await Store.open(folder.fresh('follower'), { create: true });
  const outcome = await follow(
    corpus,
    store,
    (response) => {
      record.response(encode(response));
      return response;
    },
    {
      see: (request) => record.request(Buffer.from(toBinary(FollowRequestSchema, request))),
      stallLimits: STALL_LIMITS,
    },
  );
  assert.equal(outcome, 'idle', 'a sound stream ends well');
  await store.close();
  // Kinds of messages that a sound stream of this length does not have.
  const digest = Buffer.from([...digests][0] ?? '', 'hex');
  const pinned = { case: 'pinned', value: { pinned: true } } as never;
  responses.push(
    encode(said({ case: 'facts', value: { annotations: [annotation(digest, pinned, LIAR)] } as never })),
    encode(said({ case: 'snapshotsGone', value: { digests: [digest] } as never })),
    encode(said({ case: 'unitsWanted', value: { wantId: 1n, unitIds: Buffer.alloc(64) } as never })),
    encode(said({ case: 'unitsMissing', value: { wantId: 1n, unitIds: Buffer.alloc(32) } as never })),
  );
  return corpus;
}

function encode(response: FollowResponse): Buffer {
  return Buffer.from(toBinary(FollowResponseSchema, response));
}

function decode<T>(name: string, bytes: Buffer): T {
  const codec = BULK_CODECS.get(name);
  assert.ok(codec !== undefined);
  return codec.deserialize(bytes) as T;
}

/** Serves the source of a corpus to one follower. */
function serve({ source }: PeerCorpus, requests: AsyncIterable<FollowRequest>, signal: AbortSignal) {
  return serveFollower(
    requests,
    {
      store: source,
      agent: 'source',
      followers: new Followers(),
      admit: ({ agent }) => ({ name: agent, target: undefined }),
      isGuarded: () => false,
      address: '127.0.0.1',
      onFrame: () => Promise.resolve([]),
    },
    signal,
  );
}

/** Follows the source of a corpus until nothing remains to be fetched, or the stream fails. */
async function follow(
  corpus: PeerCorpus,
  store: Store,
  change: (response: FollowResponse) => FollowResponse | undefined,
  {
    see = () => {},
    stallLimits = STALL,
  }: { readonly see?: (request: FollowRequest) => void; readonly stallLimits?: StallLimits } = {},
): Promise<'idle' | 'refused'> {
  const ended = new AbortController();
  const client = {
    follow: async function* (out: AsyncIterable<FollowRequest>) {
      const seen = (async function* () {
        for await (const request of out) {
          see(request);
          yield request;
        }
      })();
      for await (const response of serve(corpus, seen, ended.signal)) {
        const changed = change(response);
        if (changed !== undefined) yield changed;
      }
    },
  } as unknown as Client<typeof PeerService>;
  const receiver = await FrameReceiver.open(store, { reserveBytes: 0n });
  let isIdle = false;
  try {
    await followOnce(
      client,
      {
        store,
        graphId: GRAPH,
        agent: 'follower',
        receiver,
        retained: (listed) => Promise.resolve(new Set(listed.map(({ digest }) => hex(digest)))),
        keepFork: () => Promise.resolve(),
        onEvent: ({ type }) => {
          if (type !== 'idle') return;
          isIdle = true;
          ended.abort();
        },
        stallLimits,
      },
      ended.signal,
    );
  } catch (error) {
    if (!isIdle) mustBeTyped(error);
  } finally {
    ended.abort();
    await receiver.close();
  }
  return isIdle ? 'idle' : 'refused';
}

function mustBeTyped(error: unknown): void {
  const isTyped = error instanceof LightkeeperError || error instanceof ConnectError;
  if (!isTyped || (error instanceof LightkeeperError && error.code === 'INTERNAL')) throw error;
}

function pick<T>(draw: Random, items: readonly T[]): T {
  return items[draw(items.length)] as T;
}

/** Decodes broken messages of every kind. */
async function decodeBroken(draw: Random, { requests, responses }: PeerCorpus): Promise<void> {
  const all = [...requests, ...responses];
  const bytes = mutateBytes(draw, pick(draw, all), all);
  for (const name of BULK_CODECS.keys()) {
    try {
      decode(name, bytes);
    } catch (error) {
      mustBeTyped(error);
    }
  }
  await Promise.resolve();
}

/** Serves a follower whose messages are broken, in another order, or of another stream. */
async function serveBroken(draw: Random, corpus: PeerCorpus): Promise<void> {
  const { requests, responses } = corpus;
  const queue = new MessageQueue<FollowRequest>(1 << 30);
  const ended = new AbortController();
  const [hello] = requests;
  const sent = draw(4) === 0 ? [] : [hello as Buffer];
  for (let n = draw(12); n >= 0; n--) {
    const sound = pick(draw, requests);
    sent.push(draw(3) === 0 ? sound : mutateBytes(draw, sound, [...requests, ...responses]));
  }
  try {
    for (const bytes of sent) await queue.push(decode(FollowRequestSchema.typeName, bytes));
  } catch (error) {
    mustBeTyped(error);
  }
  queue.end();
  try {
    for await (const _ of serve(corpus, queue, ended.signal));
  } catch (error) {
    mustBeTyped(error);
  } finally {
    ended.abort();
  }
}

/** Follows a source some of whose messages are broken, lost, repeated or in another order. */
async function followBroken(draw: Random, corpus: PeerCorpus, store: Store): Promise<void> {
  const others = corpus.responses;
  const share = 1 + draw(12);
  await follow(corpus, store, (response) => {
    if (draw(share) !== 0) return response;
    const kind = draw(6);
    if (kind === 0) return undefined;
    const sound = kind === 1 ? pick(draw, others) : encode(response);
    const bytes = kind <= 2 ? sound : mutateBytes(draw, sound, others);
    return decode<FollowResponse>(FollowResponseSchema.typeName, bytes);
  });
}

/** The store of the follower in the cases, which is made anew now and then. */
class FollowerStore {
  readonly #corpus: PeerCorpus;
  #store: Store | undefined;
  #root = '';
  #cases = 0;

  constructor(corpus: PeerCorpus) {
    this.#corpus = corpus;
  }

  async open(): Promise<Store> {
    if (this.#cases % CASES_PER_STORE === 0) await this.check();
    this.#cases += 1;
    if (this.#store === undefined) {
      this.#root = this.#corpus.folder.fresh('follower');
      this.#store = await Store.open(this.#root, { create: true });
    }
    return this.#store;
  }

  /** Checks that the store is sound, and holds nothing but snapshots of the source. */
  async check(): Promise<void> {
    if (this.#store === undefined) return;
    for await (const [, { digest, manifest }] of this.#store.index.records({ graphId: GRAPH }))
      assert.ok(
        manifest === undefined || this.#corpus.digests.has(hex(digest)),
        'the ids are those of the source',
      );
    await this.#store.close();
    this.#store = undefined;
    assert.deepEqual(await callsInProcess(this.#root).verify('bytes'), [], 'the store is sound');
  }
}

async function inTime(run: () => Promise<void>): Promise<void> {
  const began = monotonic();
  const ended = new AbortController();
  const late = sleep(10 * CASE_MS_MAX, 'late', { signal: ended.signal, ref: true }).catch(() => '');
  const first = await Promise.race([run(), late]);
  ended.abort();
  assert.ok(first !== 'late', 'it hangs');
  // The time of one case includes that of other processes of the machine.
  const tookMs = monotonic() - began;
  assert.ok(tookMs < 5 * CASE_MS_MAX, `it took ${Math.round(tookMs)} ms`);
}

/** Runs cases of every kind. Returns their numbers. */
export async function runPeerCases(
  corpus: PeerCorpus,
  count: number,
  fail: (error: unknown) => void,
): Promise<Record<string, number>> {
  const store = new FollowerStore(corpus);
  const stray = (error: unknown) => fail(new Error('an unhandled rejection', { cause: error }));
  process.on('unhandledRejection', stray);
  const counts: Record<string, number> = { decoded: 0, served: 0, followed: 0 };
  try {
    for (let n = 0; n < count; n++) {
      const draw = random(mix(corpus.seed, n));
      const place = draw(1000) / 1000;
      const kind = place < DECODED ? 'decoded' : place < DECODED + SERVED ? 'served' : 'followed';
      counts[kind] = (counts[kind] ?? 0) + 1;
      const run = async () => {
        if (kind === 'decoded') await decodeBroken(draw, corpus);
        else if (kind === 'served') await serveBroken(draw, corpus);
        else await followBroken(draw, corpus, await store.open());
      };
      await inTime(run).catch((error: unknown) =>
        fail(new Error(`${kind}, seed ${corpus.seed}, case ${n}: ${String(error)}`, { cause: error })),
      );
    }
    await store.check().catch(fail);
    await new Promise((resolve) => setImmediate(resolve));
  } finally {
    process.off('unhandledRejection', stray);
  }
  return counts;
}

/** Closes the store of a corpus, which must be sound, and removes its folder. */
export async function dropPeerCorpus({ source, folder }: PeerCorpus): Promise<void> {
  await source.close();
  const findings = await callsInProcess(source.root).verify('bytes');
  folder.drop();
  assert.deepEqual(findings, [], 'the store of the source is sound');
}

/** The proof: tens of thousands of broken messages and streams. */
export async function run(log: (line: string) => void): Promise<void> {
  const seed = Number(process.env.LIGHTKEEPER_SEED ?? 1);
  const count = Number(process.env.LIGHTKEEPER_COUNT ?? 10_000);
  const corpus = await makePeerCorpus(seed);
  log(`seed ${seed}: ${corpus.requests.length} requests, ${corpus.responses.length} responses`);
  const failures: string[] = [];
  const counts = await runPeerCases(corpus, count, (error) => failures.push(String(error)));
  for (const [name, cases] of Object.entries(counts)) log(`${cases} ${name}`);
  await dropPeerCorpus(corpus);
  log(
    `${failures.length} failures, ${Math.round(process.memoryUsage.rss() / 2 ** 20)} MiB of resident memory`,
  );
  for (const failure of failures.slice(0, FAILURES_SHOWN)) log(failure);
  assert.equal(failures.length, 0, `${failures.length} failures`);
}
