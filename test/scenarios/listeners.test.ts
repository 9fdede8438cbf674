import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { connect } from 'node:tls';
import { createClient } from '@connectrpc/connect';
import { Health, HealthCheckResponse_ServingStatus as Status } from '../../gen/grpc/health/v1/health_pb.ts';
import { dialGrpc } from '../../host/grpc/transport.ts';
import { loadTls, type TlsFiles } from '../../host/tls.ts';
import { type Authority, newAuthority } from '../support/certificates.ts';
import { Place, suite } from '../support/cli-place.ts';
import { type Running, runToEnd } from '../support/program.ts';

const BUF = join(import.meta.dirname, '../../node_modules/.bin/buf');

/** Starts an agent on the directory of a place and waits until it serves. */
async function agent(
  place: Place,
  ...args: string[]
): Promise<{ running: Running; http: string; grpc: string }> {
  place.write('a', 'a');
  const given = [
    'agent',
    '--dir',
    place.dir,
    '--store',
    place.store,
    '--disk-reserve',
    '0',
    '--quiet',
    '50ms',
  ];
  const running = place.start([...given, ...args]);
  after(() => running.kill('SIGKILL'));
  const [, http = '', grpc = ''] = await running.says(/serving .*http=(\S+)(?: grpc=(\S+))?/);
  return { running, http, grpc };
}

interface Asked {
  readonly status: number;
  readonly body: string;
}

/** Asks a port of this machine for a path, with any Host header. */
function ask(port: string, path: string, { host, ca }: { host: string; ca?: string }): Promise<Asked> {
  const options = { port, host: '127.0.0.1', path, headers: { host } };
  return new Promise((resolve, reject) => {
    const sent =
      ca === undefined
        ? httpRequest(options)
        : httpsRequest({ ...options, ca: readFileSync(ca), servername: '' });
    sent.on('error', reject).on('response', (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    sent.end();
  });
}

const portOf = (address: string) => /:(\d+)$/.exec(address)?.[1] ?? '';

async function healthOf(url: string, files?: TlsFiles): Promise<Status> {
  const tls = files === undefined ? {} : { tls: { current: await loadTls(files), onChange: () => () => {} } };
  const connection = dialGrpc(url, tls);
  try {
    return (await createClient(Health, connection).check({}, { timeoutMs: 10_000 })).status;
  } finally {
    connection.close();
  }
}

suite('the listeners of an agent', () => {
  let authority: Authority;
  before(async () => {
    authority = await newAuthority();
  });
  const tlsFlags = ({ cert, key, ca }: TlsFiles) => ['--tls-cert', cert, '--tls-key', key, '--tls-ca', ca];

  it('off loopback are refused without TLS or their names, with exit 2', async () => {
    const place = new Place();
    for (const [command, flag] of [
      ['up', '--http'],
      ['up', '--grpc'],
      ['agent', '--http'],
      ['agent', '--grpc'],
    ] as const) {
      const stderr = await place.failsPlainly([command, '--dir', place.dir, flag, '0.0.0.0:0'], 2);
      assert.match(stderr, /without TLS/);
      assert.match(stderr, new RegExp(`hint: .*insecure: \\[${flag.slice(2)}\\]`));
    }
  });

  it('serve probes and metrics to other machines in plaintext where http is insecure', async () => {
    const place = new Place();
    const { running, http } = await agent(
      place,
      '--http',
      '0.0.0.0:0',
      '--insecure',
      'http',
      '--hosts',
      'node-7',
    );
    await running.says(/snapshot taken/);
    const port = portOf(http);
    assert.equal((await ask(port, '/readiness', { host: `node-7:${port}` })).status, 200);
    assert.match((await ask(port, '/metrics', { host: 'node-7' })).body, /lightrag_/);
    const evil = await ask(port, '/metrics', { host: 'evil.example' });
    assert.deepEqual([evil.status, evil.body.includes('lightrag_')], [403, false]);
    assert.equal((await running.stop()).code, 0);
  });

  it('serve HTTPS off loopback with TLS, and need a client certificate for gRPC alone', async () => {
    const place = new Place();
    const files = await authority.issue('agent-a');
    const addresses = ['--http', '0.0.0.0:0', '--grpc', '0.0.0.0:0'];
    const { running, http, grpc } = await agent(place, ...addresses, ...tlsFlags(files));
    assert.match(http, /^https:/);
    await running.says(/snapshot taken/);
    const probe = await ask(portOf(http), '/readiness', { host: 'localhost', ca: authority.ca });
    assert.equal(probe.status, 200);
    await assert.rejects(ask(portOf(http), '/readiness', { host: 'localhost' }));
    const url = `https://127.0.0.1:${portOf(grpc)}`;
    assert.equal(await healthOf(url, await authority.issue('agent-b')), Status.SERVING);
    const stranger = await (await newAuthority()).issue('agent-b');
    await assert.rejects(healthOf(url, { ...stranger, ca: authority.ca }));
    await assert.rejects(healthOf(`http://127.0.0.1:${portOf(grpc)}`));
    assert.equal((await running.stop()).code, 0);
  });

  it('use a replaced certificate without a restart, and go on with the old one if it is bad', async () => {
    const place = new Place();
    const own = await newAuthority();
    const files = await own.issue('agent-a');
    const { running, grpc } = await agent(place, '--grpc', '127.0.0.1:0', ...tlsFlags(files));
    const serial = () =>
      new Promise<string>((resolve, reject) => {
        const socket = connect({ port: Number(portOf(grpc)), host: '127.0.0.1', rejectUnauthorized: false });
        socket.once('secureConnect', () => {
          resolve(socket.getPeerCertificate().serialNumber);
          socket.destroy();
        });
        socket.on('error', reject);
      });
    const before = await serial();
    copyFileSync(files.cert, place.path('good.crt'));
    writeFileSync(files.cert, 'x');
    await running.says(/the certificate before remains in use/);
    assert.equal(await serial(), before);
    await own.issue('agent-a');
    running.kill('SIGHUP');
    await running.says(/the certificate was replaced/);
    assert.notEqual(await serial(), before);
    assert.equal(running.text.match(/remains in use/g)?.length, 1);
    assert.equal((await running.stop()).code, 0);
  });

  it('do not start with a certificate that is none, and warn of one that has expired', async () => {
    const place = new Place();
    const expired = await authority.issue('agent-x', { seconds: -60 });
    const bad = { ...expired, cert: place.path('bad.crt') };
    writeFileSync(bad.cert, 'x');
    await place.failsPlainly(['up', '--dir', place.dir], 2, {
      LIGHTKEEPER_TLS_CERT: bad.cert,
      LIGHTKEEPER_TLS_KEY: bad.key,
      LIGHTKEEPER_TLS_CA: bad.ca,
    });
    const { running } = await agent(place, '--grpc', '127.0.0.1:0', ...tlsFlags(expired));
    await running.says(/snapshot taken/);
    assert.match(running.text, /the certificate expired/);
    assert.equal((await running.stop()).code, 0);
  });

  it('serve health and reflection in plaintext on loopback, and say so only when asked', async () => {
    const place = new Place();
    place.write('a', 'a');
    const quiet = await place.up();
    assert.equal(quiet.running.text.includes('calls of other agents'), false);
    await quiet.stop();
    const { running, url } = await place.up('--grpc', '127.0.0.1:0', '--disk-reserve', '0');
    const [, grpc = ''] = await running.says(/calls of other agents: (\S+)/);
    await running.says(/protected since/);
    assert.equal(await healthOf(grpc), Status.SERVING);
    const list = [BUF, 'curl', '--protocol', 'grpc', '--http2-prior-knowledge', '--list-services', grpc];
    assert.match((await runToEnd(list, {})).stdout, /grpc\.health\.v1\.Health/);
    assert.equal((await ask(portOf(url), '/liveness', { host: 'evil.example' })).status, 403);
    running.kill('SIGHUP');
    const ended = await running.ended;
    assert.deepEqual([ended.code, ended.signal], [0, null]);
  });
});
