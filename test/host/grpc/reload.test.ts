import assert from 'node:assert/strict';
import { copyFileSync, rmSync, writeFileSync } from 'node:fs';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'node:tls';
import { create } from '@bufbuild/protobuf';
import { createClient, type ServiceImpl } from '@connectrpc/connect';
import { PeerService, WatchGraphsResponseSchema } from '../../../gen/lightkeeper/v1/peer_pb.ts';
import { grpcService, peerOf, serveGrpc } from '../../../host/grpc/server.ts';
import { dialGrpc } from '../../../host/grpc/transport.ts';
import { type TlsEvent, type TlsFiles, watchTls } from '../../../host/tls.ts';
import { newAuthority } from '../../support/certificates.ts';

const ADDRESS = { host: '127.0.0.1', port: 0, fallback: false };
/** Longer than a test takes: files are looked at when a test says so. */
const NEVER_MS = 3_600_000;

async function watched(t: TestContext, files: TlsFiles) {
  const events: TlsEvent[] = [];
  const tls = await watchTls(files, { onEvent: (event) => events.push(event), pollMs: NEVER_MS });
  t.after(() => tls.close());
  return { tls, events };
}

async function* ticks(signal: AbortSignal) {
  for (let number = 1n; !signal.aborted; number++) {
    yield { number };
    await sleep(20);
  }
}

/** Serves a stream that returns what it receives, and records the names of the callers. */
async function echoing(t: TestContext, files: TlsFiles) {
  const names: (string | undefined)[] = [];
  const handlers: Partial<ServiceImpl<typeof PeerService>> = {
    watchGraphs: async function* (requests, context) {
      names.push(peerOf(context).certificateName);
      for await (const { number } of requests) yield create(WatchGraphsResponseSchema, { number });
    },
  };
  const source = await watched(t, files);
  const service = grpcService(PeerService, handlers as ServiceImpl<typeof PeerService>);
  const { port, close } = await serveGrpc(ADDRESS, [service], { tls: source.tls });
  t.after(() => close(0));
  return { ...source, port, names };
}

/** Returns the serial number and the end of the certificate that a new handshake gets. */
async function handshake(port: number): Promise<{ serial: string; expiresMs: number }> {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] });
  socket.on('error', () => {});
  try {
    await new Promise((resolve) => socket.once('secureConnect', resolve));
    const { serialNumber, valid_to } = socket.getPeerCertificate();
    return { serial: serialNumber, expiresMs: Date.parse(valid_to) };
  } finally {
    socket.destroy();
  }
}

/** Makes one call on a connection of its own. */
async function callOnce(t: TestContext, port: number, files: TlsFiles): Promise<void> {
  const { tls } = await watched(t, files);
  const connection = dialGrpc(`https://127.0.0.1:${port}`, { tls });
  const end = AbortSignal.abort();
  try {
    async function* one() {
      yield* ticks(end);
      yield { number: 1n };
    }
    let replies = 0;
    for await (const _ of createClient(PeerService, connection).watchGraphs(one(), { timeoutMs: 5000 }))
      replies += 1;
    assert.equal(replies, 1);
  } finally {
    connection.close();
  }
}

describe('a certificate that is replaced', () => {
  it('serves new connections while a stream goes on, also after the old one has expired', async (t) => {
    const authority = await newAuthority();
    const files = await authority.issue('agent-a', { seconds: 3 });
    const { tls, events, port } = await echoing(t, files);
    const { tls: callerTls } = await watched(t, await authority.issue('agent-b', { seconds: 3 }));
    const connection = dialGrpc(`https://127.0.0.1:${port}`, { tls: callerTls });
    t.after(() => connection.close());
    const stop = new AbortController();
    let seen = 0n;
    const stream = (async () => {
      for await (const { number } of createClient(PeerService, connection).watchGraphs(ticks(stop.signal))) {
        assert.equal(number, seen + 1n);
        seen = number;
      }
    })();
    while (seen < 5n) await sleep(10);
    const before = await handshake(port);
    await authority.issue('agent-a');
    await tls.check();
    const replaced = await handshake(port);
    assert.notEqual(replaced.serial, before.serial);
    assert.deepEqual(
      events.map(({ kind }) => kind),
      ['loaded'],
    );
    // The certificates that the stream began with have ended.
    await sleep(Math.max(0, before.expiresMs - Date.now()) + 500);
    const atExpiry = seen;
    await callOnce(t, port, await authority.issue('agent-c'));
    while (seen < atExpiry + 5n) await sleep(10);
    stop.abort();
    await stream;
  });

  it('is used by a client at its next connect', async (t) => {
    const authority = await newAuthority();
    const server = await echoing(t, await authority.issue('agent-a'));
    const own = await authority.issue('agent-b', { seconds: -60 });
    const { tls } = await watched(t, own);
    const call = async () => {
      const connection = dialGrpc(`https://127.0.0.1:${server.port}`, { tls });
      try {
        const requests = ticks(AbortSignal.abort());
        for await (const _ of createClient(PeerService, connection).watchGraphs(requests)) assert.fail();
      } finally {
        connection.close();
      }
    };
    await assert.rejects(call);
    await authority.issue('agent-b');
    await tls.check();
    await call();
    assert.deepEqual(server.names, ['agent-b']);
  });

  it('is trusted by a new authority from then on', async (t) => {
    const [first, second] = [await newAuthority(), await newAuthority()];
    const files = await first.issue('agent-a');
    const { tls, port } = await echoing(t, files);
    await callOnce(t, port, await first.issue('agent-b'));
    const caller = { ...(await second.issue('agent-b')), ca: first.ca };
    await assert.rejects(callOnce(t, port, caller));
    const own = first.folder;
    copyFileSync(second.ca, `${own}/ca.crt`);
    await tls.check();
    const later = await second.issue('agent-c');
    // The server's own certificate is still of the first authority, which the caller does not know.
    await assert.rejects(callOnce(t, port, later), /unable to verify|issuer/i);
    const replacement = await second.issue('agent-a');
    copyFileSync(replacement.key, files.key);
    copyFileSync(replacement.cert, files.cert);
    await tls.check();
    await callOnce(t, port, later);
  });
});

describe('files that cannot be used', () => {
  const faults: Readonly<Record<string, (files: TlsFiles) => Promise<void>>> = {
    'an empty certificate': async ({ cert }) => writeFileSync(cert, ''),
    'an absent key': async ({ key }) => rmSync(key),
    'an authority that is no certificate': async ({ ca }) => writeFileSync(ca, 'x'),
    'a key of another certificate': async ({ key }) =>
      copyFileSync((await (await newAuthority()).issue('x')).key, key),
    'an expired certificate': async ({ cert, key }) => {
      const expired = await (await newAuthority()).issue('agent-a', { seconds: -60 });
      copyFileSync(expired.key, key);
      copyFileSync(expired.cert, cert);
    },
  };
  for (const [what, spoil] of Object.entries(faults)) {
    it(`leave the certificate before them in use and are reported once: ${what}`, async (t) => {
      const authority = await newAuthority();
      const files = await authority.issue('agent-a');
      const { tls, events } = await watched(t, files);
      const { current } = tls;
      await spoil(files);
      for (let i = 0; i < 5; i++) await tls.check();
      assert.equal(tls.current, current);
      assert.deepEqual(
        events.map(({ kind }) => kind),
        ['unusable'],
      );
      writeFileSync(files.ca, current.ca);
      await authority.issue('agent-a');
      await tls.check();
      assert.notEqual(tls.current, current);
      assert.equal(events.at(-1)?.kind, 'loaded');
    });
  }

  it('are not reported while they are being replaced', async (t) => {
    const authority = await newAuthority();
    const files = await authority.issue('agent-a');
    const { tls, events } = await watched(t, files);
    const other = await authority.issue('agent-b');
    copyFileSync(other.key, files.key);
    await tls.check();
    copyFileSync(other.cert, files.cert);
    await tls.check();
    assert.deepEqual(
      events.map(({ kind }) => kind),
      ['loaded'],
    );
    assert.equal(tls.current.name, 'agent-b');
  });

  it('are refused at the start', async () => {
    const files = await (await newAuthority()).issue('agent-a');
    writeFileSync(files.cert, 'x');
    const onEvent = () => assert.fail();
    await assert.rejects(watchTls(files, { onEvent }), { code: 'INVALID_ARGUMENT' });
    rmSync(files.cert);
    await assert.rejects(watchTls(files, { onEvent }), { code: 'IO' });
  });

  it('are looked at by themselves', async (t) => {
    const authority = await newAuthority();
    const files = await authority.issue('agent-a');
    const events: TlsEvent[] = [];
    const tls = await watchTls(files, { onEvent: (event) => events.push(event), pollMs: 20 });
    t.after(() => tls.close());
    await authority.issue('agent-a');
    for (let i = 0; i < 200 && events.length === 0; i++) await sleep(20);
    assert.equal(events[0]?.kind, 'loaded');
  });
});
