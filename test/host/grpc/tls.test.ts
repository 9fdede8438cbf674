import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { before, describe, it, type TestContext } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { create } from '@bufbuild/protobuf';
import { type Client, createClient, type ServiceImpl } from '@connectrpc/connect';
import { PeerService, WatchGraphsResponseSchema } from '../../../gen/lightkeeper/v1/peer_pb.ts';
import { type GrpcPeer, grpcService, peerOf, serveGrpc } from '../../../host/grpc/server.ts';
import { dialGrpc } from '../../../host/grpc/transport.ts';
import { fromConnect } from '../../../host/rpc-errors.ts';
import { loadTls, type TlsFiles, type TlsSource } from '../../../host/tls.ts';
import { type Authority, newAuthority } from '../../support/certificates.ts';

const ADDRESS = { host: '127.0.0.1', port: 0, fallback: false };

/** A source that does not change. */
async function fixed(files: TlsFiles): Promise<TlsSource> {
  const current = await loadTls(files);
  return { current, onChange: () => () => {} };
}

interface Served {
  readonly port: number;
  readonly peers: GrpcPeer[];
}

async function served(t: TestContext, files: TlsFiles | undefined): Promise<Served> {
  const peers: GrpcPeer[] = [];
  const handlers: Partial<ServiceImpl<typeof PeerService>> = {
    watchGraphs: async function* (requests, context) {
      peers.push(peerOf(context));
      for await (const { number } of requests) yield create(WatchGraphsResponseSchema, { number });
    },
  };
  const service = grpcService(PeerService, handlers as ServiceImpl<typeof PeerService>);
  const tls = files === undefined ? undefined : await fixed(files);
  const { port, close } = await serveGrpc(ADDRESS, [service], { tls });
  t.after(() => close(0));
  return { port, peers };
}

async function dialled(t: TestContext, url: string, files?: TlsFiles): Promise<Client<typeof PeerService>> {
  const connection = dialGrpc(url, files === undefined ? {} : { tls: await fixed(files) });
  t.after(() => connection.close());
  return createClient(PeerService, connection);
}

/** Makes a call. Returns the code of its failure; undefined if it succeeds. */
async function failureOf(
  client: Client<typeof PeerService>,
): Promise<{ code: string; message: string } | undefined> {
  async function* one() {
    yield { number: 7n };
  }
  try {
    for await (const { number } of client.watchGraphs(one(), { timeoutMs: 10_000 })) assert.equal(number, 7n);
    return undefined;
  } catch (error) {
    return fromConnect(error);
  }
}

describe('gRPC with TLS', () => {
  let authority: Authority;
  let server: TlsFiles;
  before(async () => {
    authority = await newAuthority();
    server = await authority.issue('agent-a');
  });

  for (const host of ['127.0.0.1', 'localhost']) {
    it(`gives a handler the common name of a caller that dials ${host}`, async (t) => {
      const { port, peers } = await served(t, server);
      const client = await dialled(t, `https://${host}:${port}`, await authority.issue('agent-b'));
      assert.equal(await failureOf(client), undefined);
      assert.deepEqual(
        peers.map(({ certificateName }) => certificateName),
        ['agent-b'],
      );
    });
  }

  it('shows a borrowed certificate by the name that is in it', async (t) => {
    const { port, peers } = await served(t, server);
    const borrowed = await authority.issue('somebody-else');
    assert.equal(await failureOf(await dialled(t, `https://127.0.0.1:${port}`, borrowed)), undefined);
    assert.equal(peers[0]?.certificateName, 'somebody-else');
  });

  it('has no name for a caller without TLS', async (t) => {
    const { port, peers } = await served(t, undefined);
    assert.equal(await failureOf(await dialled(t, `http://127.0.0.1:${port}`)), undefined);
    assert.deepEqual(
      peers.map(({ certificateName }) => certificateName),
      [undefined],
    );
  });

  const callers: Readonly<Record<string, () => Promise<TlsFiles>>> = {
    'an expired certificate': () => authority.issue('late', { seconds: -60 }),
    'a certificate of another authority': async () => {
      const foreign = await (await newAuthority()).issue('agent-b');
      return { ...foreign, ca: authority.ca };
    },
  };
  for (const [what, files] of Object.entries(callers)) {
    it(`refuses a caller with ${what} before a handler runs`, async (t) => {
      const { port, peers } = await served(t, server);
      const failure = await failureOf(await dialled(t, `https://127.0.0.1:${port}`, await files()));
      assert.equal(failure?.code, 'UNAVAILABLE');
      assert.deepEqual(peers, []);
    });
  }

  it('refuses each call of a certificate with two common names', async (t) => {
    const { port, peers } = await served(t, server);
    const client = await dialled(
      t,
      `https://127.0.0.1:${port}`,
      await authority.issue('agent-b, CN=agent-c'),
    );
    const failure = await failureOf(client);
    assert.equal(failure?.code, 'REFUSED');
    assert.match(failure?.message ?? '', /one common name/);
    assert.deepEqual(peers, []);
  });

  it('refuses a caller without a certificate', async (t) => {
    const { port, peers } = await served(t, server);
    const ended = new Promise<string>((resolve) => {
      const socket = connectTls({
        port,
        host: '127.0.0.1',
        ca: readFileSync(authority.ca),
        ALPNProtocols: ['h2'],
      });
      socket.on('error', (error) => resolve(error.message));
      socket.on('close', () => resolve('closed'));
    });
    assert.match(await ended, /certificate required|closed|handshake failure/i);
    assert.deepEqual(peers, []);
  });

  it('refuses a caller without TLS', async (t) => {
    const { port, peers } = await served(t, server);
    const failure = await failureOf(await dialled(t, `http://127.0.0.1:${port}`));
    assert.equal(failure?.code, 'UNAVAILABLE');
    assert.deepEqual(peers, []);
  });

  const servers: Readonly<Record<string, [() => Promise<TlsFiles>, RegExp]>> = {
    'of another authority': [
      async () => (await newAuthority()).issue('agent-a'),
      /unable to verify|self.signed|issuer/i,
    ],
    'that has expired': [() => authority.issue('expired', { seconds: -60 }), /expired/],
    'for another host': [
      () => authority.issue('elsewhere', { hosts: ['db.example'] }),
      /altnames|does not match/i,
    ],
  };
  for (const [what, [files, message]] of Object.entries(servers)) {
    it(`does not call a server with a certificate ${what}, and says so`, async (t) => {
      const { port, peers } = await served(t, await files());
      const client = await dialled(t, `https://127.0.0.1:${port}`, await authority.issue('agent-b'));
      const failure = await failureOf(client);
      assert.equal(failure?.code, 'UNAVAILABLE');
      assert.match(failure?.message ?? '', message);
      assert.deepEqual(peers, []);
    });
  }

  it('is refused for a URL that cannot be dialled', () => {
    for (const url of ['https://127.0.0.1:1', 'ftp://127.0.0.1:1', '127.0.0.1:1', ''])
      assert.throws(() => dialGrpc(url), { code: 'INVALID_ARGUMENT' }, url);
  });

  it('closes connections beyond its limit at once and serves the others', async (t) => {
    const service = grpcService(PeerService, {} as ServiceImpl<typeof PeerService>);
    const { port, close } = await serveGrpc(ADDRESS, [service], { connectionsMax: 2 });
    t.after(() => close(0));
    const states: string[] = [];
    const sockets = [1, 2, 3].map((i) =>
      connect(port, '127.0.0.1')
        .on('data', () => (states[i] = 'open'))
        .on('error', () => {})
        .on('close', () => (states[i] = 'closed')),
    );
    t.after(() => {
      for (const socket of sockets) socket.destroy();
    });
    for (const socket of sockets) socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.deepEqual(states.slice(1).sort(), ['closed', 'open', 'open']);
  });
});
