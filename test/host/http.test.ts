import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { Gauge, Registry } from 'prom-client';
import { type HttpListener, type HttpRoute, jsonReply, serveHttp } from '../../host/http.ts';
import { metricsRoute } from '../../host/metrics.ts';

const registry = new Registry();
const scrapes = new Gauge({ name: 'scrapes', help: 'Scrapes.', registers: [registry] });

const ROUTES = new Map<string, HttpRoute>([
  ['/echo', (query) => jsonReply(200, { word: query.get('word') })],
  ['/fails', () => Promise.reject(new Error('no luck'))],
  ['/hangs', () => new Promise(() => {})],
  ['/metrics', metricsRoute(registry, async () => scrapes.inc())],
]);

const ANY_PORT = { host: '127.0.0.1', port: 0, fallback: false };
let listener: HttpListener;
before(async () => {
  listener = await serveHttp(ANY_PORT, ROUTES);
});
after(() => listener.close());

/** Sends a request as it is written, and returns the status and the rest of the reply. */
function exchange(head: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(listener.port, '127.0.0.1', () => socket.write(head));
    socket.setEncoding('utf8').on('data', (more: string) => {
      text += more;
    });
    socket.once('error', reject);
    socket.once('close', () => {
      const [top = '', body = ''] = text.split('\r\n\r\n');
      resolve({ status: Number(top.split(' ')[1]), body });
    });
  });
}

const request = (line: string, ...headers: string[]) =>
  exchange([`${line} HTTP/1.1`, 'connection: close', ...headers, '', ''].join('\r\n'));

describe('an HTTP listener', () => {
  const cases: readonly [name: string, line: string, headers: string[], status: number][] = [
    ['serves a route with its query', 'GET /echo?word=x', ['host: localhost'], 200],
    ['serves HEAD', 'HEAD /echo', ['host: localhost:9701'], 200],
    ['refuses another host', 'GET /echo', ['host: example.com'], 403],
    ['refuses a host that only begins with a loopback name', 'GET /echo', ['host: localhost.evil'], 403],
    ['does not know other paths', 'GET /nothing', ['host: 127.0.0.1'], 404],
    ['refuses other methods', 'POST /echo', ['host: 127.0.0.1'], 405],
    ['refuses a large body', 'GET /echo', ['host: [::1]', 'content-length: 70000'], 413],
    ['reports a failure of a route', 'GET /fails', ['host: 127.0.0.1'], 500],
  ];
  for (const [name, line, headers, status] of cases) {
    it(name, async () => {
      assert.equal((await request(line, ...headers)).status, status);
    });
  }

  it('refreshes metrics before each scrape', async () => {
    await request('GET /metrics', 'host: localhost');
    assert.match((await request('GET /metrics', 'host: localhost')).body, /^scrapes 2$/m);
  });

  it('ends open requests when it closes', async () => {
    const own = await serveHttp(ANY_PORT, ROUTES);
    const socket = connect(own.port, '127.0.0.1', () => {
      socket.write('GET /hangs HTTP/1.1\r\nhost: localhost\r\n\r\n');
    });
    await new Promise((resolve) => socket.once('connect', resolve));
    const ended = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => {}); // A reset ends it as well.
    await own.close();
    await ended;
  });

  it('refuses a port in use, or takes a free one', async () => {
    const taken = { ...ANY_PORT, port: listener.port };
    await assert.rejects(serveHttp(taken, ROUTES), { code: 'REFUSED' });
    const other = await serveHttp({ ...taken, fallback: true }, ROUTES);
    assert.notEqual(other.port, listener.port);
    await other.close();
  });
});
