import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { createClient, type ServiceImpl } from '@connectrpc/connect';
import { LightkeeperError } from '../../../core/errors.ts';
import {
  FetchUnitsResponseSchema,
  PeerService,
  WatchGraphsResponseSchema,
} from '../../../gen/lightkeeper/v1/peer_pb.ts';
import { grpcService, peerOf, serveGrpc } from '../../../host/grpc/server.ts';
import { dialGrpc } from '../../../host/grpc/transport.ts';
import { fromConnect } from '../../../host/rpc-errors.ts';

const ADDRESS = { host: '127.0.0.1', port: 0, fallback: false };

async function served(t: TestContext, handlers: Partial<ServiceImpl<typeof PeerService>>) {
  const service = grpcService(PeerService, handlers as ServiceImpl<typeof PeerService>);
  const listener = await serveGrpc(ADDRESS, [service]);
  const connection = dialGrpc(`http://127.0.0.1:${listener.port}`);
  t.after(async () => {
    connection.close();
    await listener.close(0);
  });
  return createClient(PeerService, connection);
}

async function* numbers(count: number) {
  for (let number = 1; number <= count; number++) yield { number: BigInt(number) };
}

describe('a gRPC stream', () => {
  it('carries requests and replies both ways, in order', async (t) => {
    const addresses = new Set<string>();
    const client = await served(t, {
      watchGraphs: async function* (requests, context) {
        addresses.add(peerOf(context).address.replace(/:\d+$/, ''));
        for await (const { number } of requests) yield create(WatchGraphsResponseSchema, { number });
      },
    });
    const seen: bigint[] = [];
    for await (const { number } of client.watchGraphs(numbers(300))) seen.push(number);
    assert.deepEqual(
      seen,
      Array.from({ length: 300 }, (_, i) => BigInt(i + 1)),
    );
    assert.deepEqual([...addresses], ['127.0.0.1']);
  });

  it('ends with the code, the message and the hint of a handler that fails', async (t) => {
    const client = await served(t, {
      // biome-ignore lint/correctness/useYield: it fails before it yields.
      fetchUnits: async function* () {
        throw new LightkeeperError('IN_USE', 'Cannot read it: it is locked', { hint: 'wait' });
      },
    });
    const read = async () => {
      for await (const _ of client.fetchUnits({})) assert.fail('there is no reply');
    };
    await assert.rejects(read, (error: unknown) => {
      const { code, message, hint } = fromConnect(error);
      assert.deepEqual([code, message, hint], ['IN_USE', 'Cannot read it: it is locked', 'wait']);
      return true;
    });
  });

  it('aborts the handler when the caller leaves', async (t) => {
    let left = false;
    const client = await served(t, {
      watchGraphs: async function* (requests, { signal }) {
        const aborted = once(signal, 'abort');
        for await (const { number } of requests) {
          yield create(WatchGraphsResponseSchema, { number });
          await aborted;
          left = true;
        }
      },
    });
    const abort = new AbortController();
    const read = async () => {
      for await (const _ of client.watchGraphs(numbers(1), { signal: abort.signal })) abort.abort();
    };
    await assert.rejects(read);
    for (let i = 0; i < 100 && !left; i++) await sleep(20);
    assert.equal(left, true);
  });

  it('makes a sender wait for a slow reader', async (t) => {
    let made = 0;
    const data = new Uint8Array(1 << 20);
    const client = await served(t, {
      fetchUnits: async function* () {
        for (; made < 200; made++) {
          const message = { case: 'framePart' as const, value: { data } };
          yield create(FetchUnitsResponseSchema, { message });
        }
      },
    });
    let read = 0;
    for await (const _ of client.fetchUnits({})) {
      read += 1;
      if (read > 1) continue;
      await sleep(500);
      assert.ok(made < 60, `${made} messages were made although one was read`);
    }
    assert.equal(read, 200);
  });

  it('fails at once where nobody listens', async () => {
    const connection = dialGrpc('http://127.0.0.1:1');
    const read = async () => {
      for await (const _ of createClient(PeerService, connection).watchGraphs(numbers(1))) assert.fail();
    };
    await assert.rejects(read, (error: unknown) => fromConnect(error).code === 'UNAVAILABLE');
    connection.close();
  });
});
