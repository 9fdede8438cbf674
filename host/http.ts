import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { ioError, LightkeeperError, normalise, systemCode } from '../core/errors.ts';

/** What a route returns. */
export interface HttpReply {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

/** Returns the reply to a request with this query. */
export type HttpRoute = (query: URLSearchParams) => HttpReply | Promise<HttpReply>;

/** Address of a listener. */
export interface ListenAddress {
  readonly host: string;
  /** 0 is any free port. */
  readonly port: number;
  /** Whether any free port is used if this one is taken. */
  readonly fallback: boolean;
}

/** A listener that serves. */
export interface HttpListener {
  readonly port: number;
  /** Stops listening, and ends open connections. */
  readonly close: () => Promise<void>;
}

/** Time limit of a whole request, in milliseconds. */
const REQUEST_TIMEOUT_MS = 10_000;
// No route reads a body, so a large one is refused before it is received.
/** Largest body of a request, in bytes. */
const BODY_BYTES_MAX = 64 * 1024;
const LOOPBACK_HOST = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?$/i;

// The Host header is checked, so that a web page cannot reach the port by DNS rebinding.
/** Serves routes by path on a loopback address. */
export async function serveHttp(
  address: ListenAddress,
  routes: ReadonlyMap<string, HttpRoute>,
): Promise<HttpListener> {
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
    replyTo(request, routes)
      .then((reply) => send(response, reply))
      .catch((error: unknown) => {
        if (response.headersSent) response.destroy();
        else send(response, errorReply(500, 'internal', normalise(error).message));
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

async function listen(server: Server, { host, port, fallback }: ListenAddress): Promise<void> {
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

async function replyTo(request: IncomingMessage, routes: ReadonlyMap<string, HttpRoute>): Promise<HttpReply> {
  if (!LOOPBACK_HOST.test(request.headers.host ?? '')) {
    return errorReply(403, 'permission_denied', 'Cannot answer: the Host header names no loopback address');
  }
  const { method = 'GET' } = request;
  // Load balancers probe with any of the three, and act on the status.
  if (method !== 'GET' && method !== 'HEAD' && method !== 'OPTIONS')
    return errorReply(405, 'unimplemented', `Cannot ${method}: only GET, HEAD and OPTIONS`);
  if (Number(request.headers['content-length'] ?? 0) > BODY_BYTES_MAX)
    return errorReply(413, 'resource_exhausted', `Cannot read the body: it is over ${BODY_BYTES_MAX} bytes`);
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
  const route = routes.get(pathname);
  if (route === undefined) return errorReply(404, 'not_found', `Cannot find "${pathname}"`);
  return await route(searchParams);
}

function send(response: ServerResponse, { status, contentType, body }: HttpReply): void {
  response.writeHead(status, { 'content-type': contentType });
  response.end(body);
}

/** Returns a reply with one JSON document. */
export function jsonReply(status: number, body: unknown): HttpReply {
  return { status, contentType: 'application/json', body: `${JSON.stringify(body)}\n` };
}

function errorReply(status: number, code: string, message: string): HttpReply {
  return jsonReply(status, { code, message });
}
