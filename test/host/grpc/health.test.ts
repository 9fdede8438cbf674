import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { createClient } from '@connectrpc/connect';
import {
  Health,
  HealthCheckResponse_ServingStatus as Status,
} from '../../../gen/grpc/health/v1/health_pb.ts';
import { healthService } from '../../../host/grpc/health.ts';
import { serveGrpc } from '../../../host/grpc/server.ts';
import { dialGrpc } from '../../../host/grpc/transport.ts';
import { watchTls } from '../../../host/tls.ts';
import { newAuthority } from '../../support/certificates.ts';
import { goTool } from '../../support/go-tool.ts';
import { runToEnd } from '../../support/program.ts';

const ADDRESS = { host: '127.0.0.1', port: 0, fallback: false };
const PROBE = 'github.com/grpc-ecosystem/grpc-health-probe@latest';

async function served(t: TestContext, options: Partial<Parameters<typeof serveGrpc>[2]> = {}) {
  const state = { isServing: true };
  const drain = new AbortController();
  const service = healthService({
    services: ['a.B'],
    isServing: (name) => name === 'a.B' || state.isServing,
    signal: drain.signal,
    watchMs: 20,
  });
  const { port, close } = await serveGrpc(ADDRESS, [service], options);
  t.after(() => close(0));
  return { state, drain, port, close };
}

async function started(t: TestContext) {
  const server = await served(t);
  const connection = dialGrpc(`http://127.0.0.1:${server.port}`);
  t.after(() => connection.close());
  return { ...server, client: createClient(Health, connection) };
}

describe('the health service', () => {
  it('reports the server and each service', async (t) => {
    const { state, client } = await started(t);
    assert.equal((await client.check({})).status, Status.SERVING);
    state.isServing = false;
    assert.equal((await client.check({})).status, Status.NOT_SERVING);
    assert.equal((await client.check({ service: 'a.B' })).status, Status.SERVING);
    const { statuses } = await client.list({});
    assert.deepEqual(
      Object.entries(statuses).map(([name, { status }]) => [name, status]),
      [
        ['', Status.NOT_SERVING],
        ['a.B', Status.SERVING],
      ],
    );
  });

  it('has no status for an unknown service', async (t) => {
    const { client } = await started(t);
    await assert.rejects(client.check({ service: 'x' }), /not_found/);
    const watch = new AbortController();
    const read = async () => {
      for await (const { status } of client.watch({ service: 'x' }, { signal: watch.signal })) {
        assert.equal(status, Status.SERVICE_UNKNOWN);
        watch.abort();
      }
    };
    await assert.rejects(read);
  });

  it('tells a watcher each change, and the end', async (t) => {
    const { state, drain, client } = await started(t);
    const seen: Status[] = [];
    for await (const { status } of client.watch({})) {
      seen.push(status);
      if (seen.length === 1) state.isServing = false;
      if (seen.length === 2) state.isServing = true;
      if (seen.length === 3) drain.abort();
    }
    assert.deepEqual(seen, [Status.SERVING, Status.NOT_SERVING, Status.SERVING, Status.NOT_SERVING]);
  });

  it('does not delay the end of the server', async (t) => {
    const { drain, client, close } = await started(t);
    const statuses = client.watch({})[Symbol.asyncIterator]();
    await statuses.next();
    drain.abort();
    const beganMs = performance.now();
    await close(10_000);
    assert.ok(performance.now() - beganMs < 3000);
  });

  it('is understood by grpc-health-probe', async (t) => {
    const probe = await goTool(PROBE);
    if (probe === undefined) return t.skip('there is no Go');
    const { state, port } = await served(t);
    const ask = async (...args: string[]) =>
      (await runToEnd([probe, `-addr=127.0.0.1:${port}`, ...args], {})).code;
    assert.equal(await ask(), 0);
    assert.equal(await ask('-service=a.B'), 0);
    assert.notEqual(await ask('-service=x'), 0);
    state.isServing = false;
    assert.notEqual(await ask(), 0);
  });

  it('is understood by grpc-health-probe over TLS, with a certificate', async (t) => {
    const probe = await goTool(PROBE);
    if (probe === undefined) return t.skip('there is no Go');
    const authority = await newAuthority();
    const tls = await watchTls(await authority.issue('agent-a'), { onEvent: () => {} });
    t.after(() => tls.close());
    const { port } = await served(t, { tls });
    const { cert, key, ca } = await authority.issue('prober');
    const secure = [probe, `-addr=127.0.0.1:${port}`, '-tls', `-tls-ca-cert=${ca}`];
    const own = [`-tls-client-cert=${cert}`, `-tls-client-key=${key}`];
    assert.equal((await runToEnd([...secure, ...own], {})).code, 0);
    assert.notEqual((await runToEnd(secure, {})).code, 0);
  });
});
