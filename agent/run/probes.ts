import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { ioError, LightkeeperError, normalise, systemCode } from '../../core/errors.ts';

/** What an agent's HTTP port answers. */
export interface HttpAnswers {
  readonly metrics: () => Promise<string>;
  /** Readiness and health: true is 200, false is 503; the body tells why. */
  readonly readiness: () => Promise<{ ok: boolean; body: unknown }>;
  readonly health: () => Promise<{ ok: boolean; body: unknown }>;
  /** Whether this agent is primary (or standby) for a graph, or for all that it guards. */
  readonly role: (role: 'primary' | 'standby', graphId: string | undefined) => { ok: boolean; body: unknown };
}

const REQUEST_TIMEOUT_MS = 10_000;
const LOOPBACK_HOST = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?$/i;

/**
 * Serves metrics and probes on a loopback address. The Host header is checked, so that a web page cannot
 * reach the port under a name of its own (DNS rebinding).
 */
export async function serveHttp(
  address: { host: string; port: number; fallback: boolean },
  answers: HttpAnswers,
): Promise<{ port: number; close: () => Promise<void> }> {
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
    answer(request, response, answers).catch((error: unknown) => {
      if (!response.headersSent) json(response, 500, { code: 'internal', message: normalise(error).message });
      else response.destroy();
    });
  });
  await listen(server, address);
  const { port } = server.address() as AddressInfo;
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return { port, close };
}

async function listen(
  server: Server,
  { host, port, fallback }: { host: string; port: number; fallback: boolean },
): Promise<void> {
  const attempt = (tried: number) =>
    new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(tried, host, () => {
        server.off('error', reject);
        resolve();
      });
    });
  try {
    await attempt(port);
  } catch (error) {
    if (systemCode(error) !== 'EADDRINUSE') throw ioError('listen on', `${host}:${port}`, error);
    if (!fallback) {
      throw new LightkeeperError('REFUSED', `Cannot listen on "${host}:${port}": something else does`, {
        hint: 'name another port with --http, for instance --http 127.0.0.1:0',
        cause: error,
      });
    }
    await attempt(0);
  }
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(body)}\n`);
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  answers: HttpAnswers,
): Promise<void> {
  if (!LOOPBACK_HOST.test(request.headers.host ?? '')) {
    return json(response, 403, {
      code: 'permission_denied',
      message: 'Cannot answer: the Host header names no loopback address',
    });
  }
  const { method = 'GET' } = request;
  // Load balancers probe with any of the three, and act on the status.
  if (method !== 'GET' && method !== 'HEAD' && method !== 'OPTIONS') {
    return json(response, 405, {
      code: 'unimplemented',
      message: `Cannot ${method}: only GET, HEAD and OPTIONS`,
    });
  }
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
  switch (pathname) {
    case '/metrics':
      response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
      response.end(await answers.metrics());
      return;
    case '/liveness':
      return json(response, 200, { alive: true });
    case '/readiness':
    case '/health': {
      const { ok, body } = await (pathname === '/health' ? answers.health() : answers.readiness());
      return json(response, ok ? 200 : 503, body);
    }
    case '/primary':
    case '/standby': {
      const role = pathname === '/primary' ? 'primary' : 'standby';
      const { ok, body } = answers.role(role, searchParams.get('graph') ?? undefined);
      return json(response, ok ? 200 : 503, body);
    }
    default:
      return json(response, 404, { code: 'not_found', message: `Cannot find "${pathname}"` });
  }
}
