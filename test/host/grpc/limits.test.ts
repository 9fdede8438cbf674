import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { createClient, type ServiceImpl } from '@connectrpc/connect';
import {
  FetchUnitsResponseSchema,
  PeerService,
  WatchGraphsResponseSchema,
} from '../../../gen/lightkeeper/v1/peer_pb.ts';
import { type GrpcListener, grpcService, MESSAGE_BYTES_MAX, serveGrpc } from '../../../host/grpc/server.ts';
import { dialGrpc } from '../../../host/grpc/transport.ts';
import { fromConnect } from '../../../host/rpc-errors.ts';

const ADDRESS = { host: '127.0.0.1', port: 0, fallback: false };

async function served(t: TestContext, handlers: Partial<ServiceImpl<typeof PeerService>>) {
  const listener = await serveGrpc(ADDRESS, [
    grpcService(PeerService, handlers as ServiceImpl<typeof PeerService>),
  ]);
  t.after(() => listener.close(0));
  return { listener, client: dialled(t, listener) };
}

function dialled(t: TestContext, { port }: GrpcListener) {
  const connection = dialGrpc(`http://127.0.0.1:${port}`);
  t.after(() => connection.close());
  return createClient(PeerService, connection);
}

/** Returns each request, until the caller ends. */
const echo: Partial<ServiceImpl<typeof PeerService>> = {
  watchGraphs: async function* (requests) {
    for await (const { number } of requests) yield create(WatchGraphsResponseSchema, { number });
  },
};

async function* numbers(until: () => boolean) {
  for (let number = 1n; !until(); number++) {
    yield { number };
    await sleep(20);
  }
}

async function codeOf(run: () => Promise<unknown>): Promise<string> {
  try {
    await run();
    return 'done';
  } catch (error) {
    return fromConnect(error).code;
  }
}

describe('a gRPC listener that closes', { concurrency: 4, timeout: 60_000 }, () => {
  it('lets calls finish, and takes no new ones', async (t) => {
    const { listener, client } = await served(t, echo);
    let isDone = false;
    let seen = 0;
    const stream = codeOf(async () => {
      for await (const _ of client.watchGraphs(numbers(() => isDone))) seen += 1;
    });
    while (seen < 3) await sleep(10);
    const closed = listener.close(10_000);
    const during = seen;
    await assert.rejects(async () => {
      for await (const _ of dialled(t, listener).watchGraphs(numbers(() => true))) assert.fail();
    });
    while (seen < during + 3) await sleep(10);
    isDone = true;
    assert.equal(await stream, 'done');
    await closed;
  });

  it('ends calls that go on after the grace', async (t) => {
    const { listener, client } = await served(t, echo);
    let seen = 0;
    const stream = codeOf(async () => {
      for await (const _ of client.watchGraphs(numbers(() => false))) seen += 1;
    });
    while (seen < 3) await sleep(10);
    const beganMs = performance.now();
    await listener.close(200);
    assert.notEqual(await stream, 'done');
    const ms = performance.now() - beganMs;
    assert.ok(ms >= 190 && ms < 3000, `${ms} ms`);
  });

  it('ends connections without calls at once', async (t) => {
    const { listener } = await served(t, echo);
    const socket = connect(listener.port, '127.0.0.1');
    const ended = new Promise((resolve) =>
      socket
        .resume()
        .on('error', () => {})
        .once('close', resolve),
    );
    await new Promise((resolve) => socket.once('connect', resolve));
    await sleep(100);
    await listener.close(10_000);
    await ended;
  });
});

describe('a gRPC call', { concurrency: 4, timeout: 60_000 }, () => {
  it('with a message over the limit fails alone', async (t) => {
    const data = new Uint8Array(MESSAGE_BYTES_MAX + 1);
    const { client } = await served(t, {
      ...echo,
      fetchUnits: async function* () {
        yield create(FetchUnitsResponseSchema, { message: { case: 'framePart', value: { data } } });
      },
    });
    const fetch = async () => {
      for await (const _ of client.fetchUnits({})) assert.fail('it is too large');
    };
    await assert.rejects(fetch, /larger than max/);
    let asked = 0;
    for await (const _ of client.watchGraphs(numbers(() => asked++ > 0))) asked += 1;
    assert.ok(asked > 1);
  });

  it('ends at its deadline, and aborts the handler', async (t) => {
    let isAborted = false;
    const { client } = await served(t, {
      fetchUnits: async function* (_, { signal }) {
        yield create(FetchUnitsResponseSchema, {});
        while (!signal.aborted) await sleep(10);
        isAborted = true;
      },
    });
    const code = await codeOf(async () => {
      for await (const _ of client.fetchUnits({}, { timeoutMs: 2000 }));
    });
    assert.equal(code, 'DEADLINE');
    for (let i = 0; i < 100 && !isAborted; i++) await sleep(20);
    assert.equal(isAborted, true);
  });

  it('waits while its connection has 256 others', async (t) => {
    let open = 0;
    let isDone = false;
    const { client } = await served(t, {
      watchGraphs: async function* (requests) {
        open += 1;
        for await (const { number } of requests) yield create(WatchGraphsResponseSchema, { number });
        open -= 1;
      },
    });
    const calls = Array.from({ length: 260 }, () =>
      codeOf(async () => {
        for await (const _ of client.watchGraphs(numbers(() => isDone)));
      }),
    );
    for (let i = 0; i < 200 && open < 256; i++) await sleep(20);
    await sleep(300);
    assert.equal(open, 256);
    isDone = true;
    assert.deepEqual([...new Set(await Promise.all(calls))], ['done']);
  });

  it('is not needed to notice that the other end is silent', { timeout: 40_000 }, async (t) => {
    const { listener } = await served(t, echo);
    const socket = connect(listener.port, '127.0.0.1');
    t.after(() => socket.destroy());
    const beganMs = performance.now();
    // The preface and empty settings, and then not even a reply to a ping.
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
    socket.on('data', () => {}).on('error', () => {});
    await new Promise((resolve) => socket.once('close', resolve));
    const ms = performance.now() - beganMs;
    assert.ok(ms > 9000 && ms < 30_000, `${ms} ms`);
  });
});
