import { chmod, mkdir, stat, unlink } from 'node:fs/promises';
import { createServer, type Http2Server, type Http2Session } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConnectRouter, Interceptor, Transport } from '@connectrpc/connect';
import { connectNodeAdapter, createConnectTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { LightkeeperError, systemCode } from '../core/errors.ts';

/** Longest path of a socket, in bytes; Node cuts longer ones silently. */
const SOCKET_PATH_BYTES_MAX = 107;
const CONNECT_TIMEOUT_MS = 5000;

/** Returns a short socket path for `name`, in a folder that only this user can open. */
export async function socketPath(name: string): Promise<string> {
  const runtime = process.env.XDG_RUNTIME_DIR;
  // os.userInfo fails where the user has no name, as in many containers.
  const own = process.getuid?.() ?? 0;
  const folder =
    runtime === undefined || runtime === ''
      ? join(tmpdir(), `lightkeeper-${own}`)
      : join(runtime, 'lightkeeper');
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const { uid, mode } = await stat(folder);
  if (uid !== own || (mode & 0o077) !== 0) {
    throw new LightkeeperError('REFUSED', `Cannot listen in "${folder}": others can write to it`, {
      hint: `remove that folder, or set XDG_RUNTIME_DIR to one of your own`,
    });
  }
  const path = join(folder, `${name.slice(0, 16)}.sock`);
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    throw new LightkeeperError('REFUSED', `Cannot listen on "${path}": the path is too long`, {
      hint: 'set XDG_RUNTIME_DIR to a shorter one',
    });
  }
  return path;
}

/** Serves calls on a Unix socket that only this user can open. */
export async function serveSocket(
  path: string,
  routes: (router: ConnectRouter) => void,
  interceptors: Interceptor[],
): Promise<{ server: Http2Server; close: () => Promise<void> }> {
  // The caller owns the name, so an existing file was left by a process that was killed.
  await unlink(path).catch((error: unknown) => {
    if (systemCode(error) !== 'ENOENT') throw error;
  });
  const sessions = new Set<Http2Session>();
  const server = createServer(connectNodeAdapter({ routes, interceptors }));
  server.on('session', (session) => {
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => resolve());
  });
  await chmod(path, 0o600);
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      for (const session of sessions) session.close();
    });
  return { server, close };
}

/** Connects to a socket that `serveSocket` serves. */
export async function connectSocket(
  path: string,
): Promise<{ transport: Transport; close: () => Promise<void> }> {
  const first = await dial(path);
  let unused: Socket | undefined = first;
  const manager = new Http2SessionManager('http://localhost', undefined, {
    createConnection: () => {
      const socket = unused ?? connect(path);
      unused = undefined;
      return socket;
    },
  });
  const transport = createConnectTransport({
    httpVersion: '2',
    baseUrl: 'http://localhost',
    sessionManager: manager,
  });
  return {
    transport,
    close: async () => {
      manager.abort();
      first.destroy();
    },
  };
}

function dial(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.setTimeout(CONNECT_TIMEOUT_MS, () => socket.destroy(new Error('it does not answer')));
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.setTimeout(0);
      socket.off('error', reject);
      resolve(socket);
    });
  });
}
