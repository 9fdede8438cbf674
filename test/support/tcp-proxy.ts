import { createServer, type Server, type Socket, connect as tcpConnect } from 'node:net';
import { atEnd, type Scope } from './place.ts';

/** A TCP proxy between two machines: it counts what the server sends, delays it, cuts it off or swallows it. */
export class TcpProxy {
  /** Bytes that the server has sent through it. */
  bytes = 0;
  /** Milliseconds by which it delays what passes, each way. */
  delayMs = 0;
  /** Connections stay open, and nothing passes any more, from then on. */
  isSwallowing = false;
  /** Called with the sum after each piece that the server sends. */
  onBytes: (bytes: number) => void = () => {};
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Opens a proxy to a port of this machine. It ends with the test. */
  static async to(port: number, t: Scope): Promise<TcpProxy> {
    const server = createServer({ noDelay: true });
    const proxy = new TcpProxy(server);
    server.on('connection', (socket) => proxy.#pass(socket, port));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    atEnd(t, () => proxy.#close());
    return proxy;
  }

  get url(): string {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the proxy is closed');
    return `http://127.0.0.1:${address.port}`;
  }

  /** Cuts all connections off; new ones are taken. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #pass(client: Socket, port: number): void {
    const server = tcpConnect({ port, host: '127.0.0.1', noDelay: true });
    const forward = (from: Socket, to: Socket, count: (length: number) => void) => {
      this.#sockets.add(from);
      from.on('data', (data) => {
        count(data.length);
        if (this.isSwallowing) return;
        const write = () => {
          if (to.destroyed || to.write(data)) return;
          from.pause();
          to.once('drain', () => from.resume());
        };
        if (this.delayMs === 0) write();
        else setTimeout(write, this.delayMs);
      });
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    };
    forward(client, server, () => {});
    forward(server, client, (length) => {
      this.bytes += length;
      this.onBytes(this.bytes);
    });
  }

  #close(): void {
    this.cut();
    this.#server.close();
  }
}
