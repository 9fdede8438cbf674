import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { type LightkeeperError, normalise } from '../core/errors.ts';
import { isAnswered } from './host-header.ts';
import { type ListenAddress, listen } from './listen.ts';
import type { TlsSource } from './tls.ts';

/** What a route returns. */
export interface HttpReply {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

/** Returns the reply to a request with this query. */
export type HttpRoute = (query: URLSearchParams) => HttpReply | Promise<HttpReply>;

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
/** Most connections at once. */
const CONNECTIONS_MAX = 512;

/** How routes are served. */
export interface HttpOptions {
  /** Certificate of the listener; undefined is plaintext. Callers need none. */
  readonly tls?: TlsSource | undefined;
  /** Host headers that are answered off loopback; undefined is the machine's own addresses and names. */
  readonly hosts?: readonly string[] | undefined;
}

/** Serves routes by path. A loopback address answers only Host headers that name one. */
export async function serveHttp(
  address: ListenAddress,
  routes: ReadonlyMap<string, HttpRoute>,
  { tls, hosts }: HttpOptions = {},
): Promise<HttpListener> {
  const { server, stop } = createListener(tls, (request, response) => {
    const reply = isAnswered(request.headers.host, address.host, hosts)
      ? replyTo(request, routes)
      : Promise.resolve(
          errorReply(403, 'permission_denied', 'Cannot answer: the Host header names another host'),
        );
    reply
      .then((one) => send(response, one))
      .catch((error: unknown) => {
        if (response.headersSent) response.destroy();
        else send(response, failureReply(normalise(error)));
      });
  });
  server.maxConnections = CONNECTIONS_MAX;
  const port = await listen(server, address, '--http');
  const close = () =>
    new Promise<void>((resolve) => {
      stop();
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return { port, close };
}

function createListener(
  tls: TlsSource | undefined,
  onRequest: RequestListener,
): { server: Server; stop: () => void } {
  const limits = { requestTimeout: REQUEST_TIMEOUT_MS };
  if (tls === undefined) return { server: createServer(limits, onRequest), stop: () => {} };
  const { cert, key } = tls.current;
  const server = createSecureServer(
    { ...limits, cert, key, handshakeTimeout: REQUEST_TIMEOUT_MS },
    onRequest,
  );
  const stop = tls.onChange((material) =>
    server.setSecureContext({ cert: material.cert, key: material.key }),
  );
  return { server, stop };
}

async function replyTo(request: IncomingMessage, routes: ReadonlyMap<string, HttpRoute>): Promise<HttpReply> {
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

/** Returns the reply to a request that failed: 400 if it was wrong, else 500. */
function failureReply({ code, message }: LightkeeperError): HttpReply {
  return code === 'INVALID_ARGUMENT'
    ? errorReply(400, 'invalid_argument', message)
    : errorReply(500, 'internal', message);
}

function errorReply(status: number, code: string, message: string): HttpReply {
  return jsonReply(status, { code, message });
}
