import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { create } from '@bufbuild/protobuf';
import { createClient } from '@connectrpc/connect';
import { DirectoryPackStore } from '../../agent/pack/directory-pack-store.ts';
import { readPackTable } from '../../agent/pack/reader.ts';
import { BULK_CODECS } from '../../agent/peer/bulk-codec.ts';
import { MessageQueue } from '../../agent/peer/message-queue.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  type FollowRequest,
  FollowRequestSchema,
  type FollowResponse,
  HelloSchema,
  PeerService,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import { dialGrpc, type GrpcConnection } from '../../host/grpc/transport.ts';
import { fromConnect } from '../../host/rpc-errors.ts';
import { fillGraph, noise } from '../support/fill.ts';
import { type Case, liesOfSource, TERMINAL } from '../support/lies.ts';
import { grpcMessage, lyingSource, rawHttp2, rawTcp } from '../support/lying-peer.ts';
import { type Json, type Machine, machines } from '../support/machines.ts';
import { atEnd, until } from '../support/place.ts';

/** Time for what a slow machine does in seconds. */
const WAIT_MS = 120_000;
/** Memory of a follower of 67 hostile graphs at once. */
const RSS_MAX = 400 * 1024 * 1024;
/** Memory of a source with a thousand streams that nobody reads. */
// More than its queues hold: about 20 MiB for each of the twelve streams that it admits, and more when they end.
const SOURCE_RSS_MAX = 1200 * 1024 * 1024;

/** Lies of which nothing may be stored, however often they are told. */
const UNSTORABLE =
  'escape absolute dots nul own order huge-file link-nul million huge no-list bomb-small bomb-cap bomb-wrong garbage-frame unwanted fact-own fact-deleted'.split(
    ' ',
  );

/** Keeps the greatest resident memory of a process. */
function watchMemory(t: TestContext, pid: number): () => number {
  let most = 0;
  const timer = setInterval(() => {
    try {
      const [, kib] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
      most = Math.max(most, Number(kib) * 1024);
    } catch {
      // The process has ended.
    }
  }, 100);
  t.after(() => clearInterval(timer));
  return () => most;
}

/** Sources that do not speak the protocol at all, by the names of graphs. */
async function rawSources(t: TestContext): Promise<Map<string, { url: string; says: RegExp }>> {
  const bytes = (...messages: Buffer[]) => rawHttp2(t, (stream) => stream.write(Buffer.concat(messages)));
  const drip = await rawHttp2(t, (stream) => {
    stream.write(grpcMessage(Buffer.alloc(1), { length: 1000 }));
    const timer = setInterval(() => stream.write(Buffer.from([0])), 1000);
    stream.once('close', () => clearInterval(timer));
  });
  const zipped = gzipSync(Buffer.alloc(256 << 20));
  return new Map([
    ['raw-garbage', { url: await bytes(grpcMessage(Buffer.alloc(900, 0xfd))), says: /code=PEER_INVALID/ }],
    ['raw-fields', { url: await bytes(grpcMessage(fields(3 << 20))), says: /code=PEER_INVALID/ }],
    ['raw-long', { url: await bytes(grpcMessage(Buffer.alloc(5 << 20))), says: /larger than max/ }],
    [
      'raw-claims',
      { url: await bytes(grpcMessage(Buffer.alloc(10), { length: 0xffff_fff0 })), says: /larger than max/ },
    ],
    [
      'raw-zip',
      {
        url: await rawHttp2(t, (stream) => stream.write(grpcMessage(zipped, { compressed: true })), {
          'grpc-encoding': 'gzip',
        }),
        says: /code=(PEER_INVALID|UNAVAILABLE)/,
      },
    ],
    [
      'raw-cut',
      {
        url: await rawHttp2(t, (stream) => stream.end(grpcMessage(Buffer.alloc(9), { length: 900 }))),
        says: /code=/,
      },
    ],
    ['raw-drip', { url: drip, says: /code=DEADLINE/ }],
    [
      'raw-tcp',
      {
        url: await rawTcp(t, (socket) => socket.write(Buffer.alloc(100_000, 0x41))),
        says: /code=UNAVAILABLE/,
      },
    ],
    ['raw-mute', { url: await rawTcp(t, () => {}), says: /code=(DEADLINE|UNAVAILABLE)/ }],
  ]);
}

/** A list of snapshots with a million empty ones. */
function fields(length: number): Buffer {
  const inner = Buffer.alloc(length, Buffer.from([0x0a, 0]));
  return prefixed(0x1a, inner);
}

/** A field with its length. */
function prefixed(tag: number, inner: Buffer): Buffer {
  const out = [tag];
  for (let rest = inner.length; ; rest >>= 7) {
    if (rest < 128) return Buffer.concat([Buffer.from([...out, rest]), inner]);
    out.push((rest & 127) | 128);
  }
}

/** The last error of each followed graph, by its id. */
async function errorsOf(machine: Machine): Promise<Map<string, string>> {
  const { graphs } = await machine.json(['status']);
  return new Map(
    (graphs as Json[]).map(({ graphId, source }) => [
      String(graphId),
      String((source as Json | undefined)?.lastError ?? ''),
    ]),
  );
}

function logged(machine: Machine, graph: string): string[] {
  const lines = machine.agent?.stderr.split('\n') ?? [];
  return lines.filter((line) => line.includes(` graph=${graph} `) || line.endsWith(` graph=${graph}`));
}

function isRefused(machine: Machine, graph: string, { code, says }: Pick<Case, 'code' | 'says'>): boolean {
  return logged(machine, graph).some(
    (line) => (code === undefined || line.includes(`code=${code}`)) && (says?.test(line) ?? true),
  );
}

describe('a follower of hostile sources', { timeout: 600_000 }, () => {
  it('refuses each with a code, keeps its memory and store, and serves the other graph', async (t) => {
    const [a, b] = (await machines(t, 'a', 'b')) as [Machine, Machine];
    fillGraph(a.dir);
    await a.guard();
    await until('a point', async () => (await a.ids()).length > 0, WAIT_MS);
    const lies = liesOfSource();
    const { url, attempts } = await lyingSource(t, new Map([...lies].map(([name, { lie }]) => [name, lie])));
    const raw = await rawSources(t);
    const graphs = [
      `{id: g, follow: "${a.url}"}`,
      ...[...lies.keys()].map((id) => `{id: ${id}, follow: "${url}"}`),
      ...[...raw].map(([id, { url: at }]) => `{id: ${id}, follow: "${at}"}`),
    ];
    const settings = join(b.root, 'b.yaml');
    writeFileSync(settings, `graphs:\n${graphs.map((graph) => `  - ${graph}\n`).join('')}`);
    const agent = await b.start('--config', settings);
    const memory = watchMemory(t, agent.pid);
    const open = new Map<string, Pick<Case, 'code' | 'says'>>(raw);
    for (const [name, one] of lies) if (one.code !== undefined) open.set(name, one);
    await until(
      'every lie is refused',
      () => {
        for (const [name, one] of open) if (isRefused(b, name, one)) open.delete(name);
        return open.size === 0;
      },
      WAIT_MS,
    ).catch((error: unknown) => {
      throw new Error(
        `${[...open.keys()].map((name) => `${name}: ${logged(b, name).join('\n')}`).join('\n')}\n${String(error)}`,
      );
    });
    for (const name of lies.keys()) assert.ok((attempts.get(name) ?? 0) > 0, `${name} was told`);
    // The other graph is served meanwhile.
    fillGraph(a.dir, 2);
    await until('a second point', async () => (await a.ids()).length === 2, WAIT_MS);
    const [newest] = await a.ids();
    await until('it is here', async () => (await b.ids()).includes(String(newest)), WAIT_MS);
    const found = await b.list();
    const graphsWithPoints = new Set(found.map(({ graphId }) => String(graphId)));
    for (const name of UNSTORABLE) assert.ok(!graphsWithPoints.has(name), `${name} has left a snapshot`);
    const shown = [
      agent.text,
      (await b.run(['list', '--state', b.state, '--json'])).stdout,
      (await b.run(['list', '--state', b.state])).stdout,
    ];
    shown.push((await b.run(['status', '--state', b.state])).stdout);
    shown.push((await b.run(['status', '--state', b.state, '--json'])).stdout);
    assert.ok(graphsWithPoints.has('strings'), 'the one with the terminal escapes is stored');
    for (const text of shown)
      for (const character of TERMINAL)
        if (character < ' ' || character > '~')
          assert.ok(
            !text.includes(character),
            `U+${character.charCodeAt(0).toString(16)} is escaped: ${text.slice(0, 300)}`,
          );
    // A link is data.
    const to = join(b.root, 'restored');
    const [link] = found.filter(({ graphId }) => graphId === 'link');
    await b.json(['restore', String(link?.snapshotId), '--to', to, '--allow-torn']);
    assert.match(
      (await b.run(['show', String(link?.snapshotId), '--state', b.state])).stdout,
      /-> \/etc\/passwd/,
    );
    assert.match((await errorsOf(b)).get('escape') ?? '', /leaves its folder/, 'the status has the reason');
    await sleep(5000);
    assert.ok(memory() < RSS_MAX, `${Math.round(memory() / 2 ** 20)} MiB of memory`);
    t.diagnostic(`${Math.round(memory() / 2 ** 20)} MiB of memory, ${lies.size + raw.size} lies`);
    assert.equal(agent.hasEnded, false);
    await b.stop();
    await b.verified();
    await a.verified();
  });
});

/** Where a follower dials, and the connection if there is one. */
interface Dialled {
  readonly url: string;
  readonly connection?: GrpcConnection;
}

/** A stream of a follower that says what it wants. */
class LyingFollower {
  readonly out = new MessageQueue<FollowRequest>(1 << 30);
  readonly responses: AsyncIterator<FollowResponse>;
  readonly #ended = new AbortController();

  constructor(
    t: TestContext,
    { url, connection = dialGrpc(url, { codecs: BULK_CODECS }) }: Dialled,
    agent: string,
  ) {
    const stream = createClient(PeerService, connection).follow(this.out, { signal: this.#ended.signal });
    this.responses = stream[Symbol.asyncIterator]();
    atEnd(t, () => {
      this.#ended.abort();
      connection.close();
    });
    this.say({ case: 'hello', value: hello(agent) as never });
  }

  say(message: FollowRequest['message']): void {
    // What the queue holds after its end goes nowhere.
    this.out.push(create(FollowRequestSchema, { message })).catch(() => {});
  }

  /** Reads until the source ends the stream. Returns the code of its error. */
  async code(): Promise<string> {
    const late = sleep(WAIT_MS, 'it goes on', { ref: false });
    return await Promise.race([this.#read(), late]);
  }

  /** Reads until the source has said so many things that units are missing. Returns `told`, or why it ended. */
  async told(missing: number): Promise<string> {
    return await this.#read(missing);
  }

  async #read(missing = Number.POSITIVE_INFINITY): Promise<string> {
    try {
      for (let found = 0; found < missing; ) {
        const { done, value } = await this.responses.next();
        if (done === true) return 'ended';
        if ((value as FollowResponse).message.case === 'unitsMissing') found += 1;
      }
      return 'told';
    } catch (error) {
      return fromConnect(error).code;
    }
  }

  leave(): void {
    this.#ended.abort();
  }
}

function hello(agent: string) {
  const storeId = createHash('sha256').update(agent).digest().subarray(0, 16);
  return create(HelloSchema, { protocolMin: 1, protocolMax: 1, graphId: 'g', agent, storeId, version: '1' });
}

const idsOf = (count: number, seed = 0) =>
  Buffer.concat(
    Array.from({ length: count }, (_, n) => createHash('sha256').update(`${seed} ${n}`).digest()),
  );

/** Requests that end a stream with PEER_INVALID. */
const WRONG_REQUESTS: readonly (readonly [name: string, messages: readonly FollowRequest['message'][]])[] = [
  ['a second Hello', [{ case: 'hello', value: hello('again') }]],
  ['an empty message', [{ case: undefined }]],
  ['too many units', [{ case: 'unitsWanted', value: { wantId: 1n, unitIds: idsOf(5000) } as never }]],
  ['a cut request', [{ case: 'unitsWanted', value: { wantId: 1n, unitIds: Buffer.alloc(33) } as never }]],
  [
    'an acknowledgement of what never was',
    [
      {
        case: 'acknowledgement',
        value: {
          epoch: { number: 1n, mintId: Buffer.alloc(16) },
          sequence: 9n,
          digest: Buffer.alloc(32, 5),
        } as never,
      },
    ],
  ],
  ['an acknowledgement of nothing', [{ case: 'acknowledgement', value: { sequence: 1n } as never }]],
  [
    'a frame',
    [{ case: 'framePart', value: { wantId: 1n, frameLength: 3, offset: 0, data: Buffer.alloc(3) } as never }],
  ],
  ['missing units', [{ case: 'unitsMissing', value: { wantId: 1n, unitIds: Buffer.alloc(32) } as never }]],
];

describe('a source of hostile followers', { timeout: 600_000 }, () => {
  it('refuses each with a code, keeps its memory, and serves the others', async (t) => {
    const [a, b] = (await machines(t, 'a', 'b')) as [Machine, Machine];
    fillGraph(a.dir);
    for (let n = 0; n < 8; n++) writeFileSync(join(a.dir, `large-${n}`), noise(n, 4_000_000));
    const agent = await a.guard();
    await until('a point', async () => (await a.ids()).length > 0, WAIT_MS);
    const memory = watchMemory(t, agent.pid);
    for (const [name, messages] of WRONG_REQUESTS) {
      const follower = new LyingFollower(t, a, 'wrong');
      for (const message of messages) follower.say(message);
      assert.equal(await follower.code(), 'PEER_INVALID', name);
    }
    const named = new LyingFollower(t, a, 'x'.repeat(100_000));
    assert.equal(await named.code(), 'PEER_INVALID');
    // One that asks for a million units, and one that asks for what exists and reads nothing of it.
    const greedy = new LyingFollower(t, a, 'greedy');
    for (let n = 0; n < 250; n++)
      greedy.say({ case: 'unitsWanted', value: { wantId: BigInt(n + 1), unitIds: idsOf(4096, n) } as never });
    assert.match(
      await greedy.told(250),
      /^(told|PEER_INVALID)$/,
      'it is told what is missing, or has asked too fast',
    );
    greedy.leave();
    const units = await unitsOf(a);
    const connections = Array.from({ length: 10 }, () => dialGrpc(a.url, { codecs: BULK_CODECS }));
    const lazy = Array.from({ length: 1000 }, (_, n) => {
      const connection = connections[n % 10] ?? assert.fail();
      const follower = new LyingFollower(t, { url: a.url, connection }, `lazy${TERMINAL}${n % 100}`);
      // The call begins with the first read.
      follower.responses.next().catch(() => {});
      for (let i = 1; i < 50; i++)
        follower.say({ case: 'unitsWanted', value: { wantId: BigInt(i), unitIds: units } as never });
      return follower;
    });
    await sleep(5000);
    // Others are served meanwhile: a configured one, and the probes.
    const status = await a.json(['status']);
    for (const character of TERMINAL)
      if (character < ' ' || character > '~')
        assert.ok(!(await a.run(['status', '--state', a.state])).stdout.includes(character));
    assert.ok(JSON.stringify(status).length < 1_000_000);
    for (const one of lazy) one.leave();
    await b.follow(a);
    await b.caughtUp();
    assert.deepEqual(await b.ids(), await a.ids());
    assert.ok(memory() < SOURCE_RSS_MAX, `${Math.round(memory() / 2 ** 20)} MiB of memory`);
    t.diagnostic(`${Math.round(memory() / 2 ** 20)} MiB of memory`);
    assert.equal(agent.hasEnded, false);
    await b.stop();
    await a.stop();
    await a.verified();
  });

  it('outlives connections that speak no protocol', async (t) => {
    const [a, b] = (await machines(t, 'a', 'b')) as [Machine, Machine];
    fillGraph(a.dir);
    const agent = await a.guard();
    await until('a point', async () => (await a.ids()).length > 0, WAIT_MS);
    const memory = watchMemory(t, agent.pid);
    for (const bytes of [
      Buffer.alloc(200_000, 0x41),
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      preface(Buffer.alloc(100_000, 0xff)),
    ])
      await rawSend(t, a.port, bytes);
    for (const message of [
      grpcMessage(Buffer.alloc(900, 0xfd)),
      grpcMessage(Buffer.alloc(5 << 20)),
      grpcMessage(Buffer.alloc(9), { length: 0xffff_fff0 }),
      grpcMessage(gzipSync(Buffer.alloc(256 << 20)), { compressed: true }),
      grpcMessage(manyDigests()),
    ])
      await rawCall(t, a.url, message);
    await b.follow(a);
    await b.caughtUp();
    assert.deepEqual(await b.ids(), await a.ids());
    assert.ok(memory() < RSS_MAX, `${Math.round(memory() / 2 ** 20)} MiB of memory`);
    assert.equal(agent.hasEnded, false);
    await a.stop();
  });
});

/** A Hello with a million empty digests. */
function manyDigests(): Buffer {
  return prefixed(0x0a, Buffer.alloc(2 << 20, Buffer.from([0x42, 0])));
}

function preface(bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), bytes]);
}

/** Sends bytes to a port, and waits until the other side ends the connection, or a second. */
async function rawSend(t: TestContext, port: number, bytes: Buffer): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  atEnd(t, () => socket.destroy());
  socket.write(bytes);
  socket.resume();
  await Promise.race([once(socket, 'close'), sleep(1000)]);
}

/** Calls Follow by hand with these bytes, and waits until the call ends, or a few seconds. */
async function rawCall(t: TestContext, url: string, bytes: Buffer): Promise<void> {
  const session = connectHttp2(url);
  session.on('error', () => {});
  atEnd(t, () => session.destroy());
  const call = session.request({
    ':method': 'POST',
    ':path': '/lightkeeper.v1.PeerService/Follow',
    'content-type': 'application/grpc+proto',
    'grpc-encoding': 'gzip',
    te: 'trailers',
  });
  call.on('error', () => {});
  call.resume();
  call.write(bytes);
  await Promise.race([once(call, 'close').catch(() => {}), sleep(3000)]);
  session.destroy();
}

/** Returns the ids of all units of file bytes of a machine's store, which is open: by following it. */
async function unitsOf(machine: Machine): Promise<Buffer> {
  const packs = new DirectoryPackStore(machine.store);
  const ids: Uint8Array[] = [];
  for await (const { packId, size } of packs.list())
    for (const { unitIds, kind } of (await readPackTable(packs, packId, size)).frames)
      if (kind === UnitKind_Value.BYTES) ids.push(unitIds);
  const all = Buffer.concat(ids);
  assert.ok(all.length > 0);
  return all.subarray(0, 4096 * 32);
}
