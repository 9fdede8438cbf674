import type { AddressInfo, Server } from 'node:net';
import { ioError, LightkeeperError, systemCode } from '../core/errors.ts';

/** Address of a listener. */
export interface ListenAddress {
  readonly host: string;
  /** 0 is any free port. */
  readonly port: number;
  /** Whether any free port is used if this one is taken. */
  readonly fallback: boolean;
}

const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|::1)$/i;

/** Reports whether only this machine reaches a host. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host);
}

/** Formats an address as `host:port`; an IPv6 address is put in brackets. */
export function addressText({ host, port }: { readonly host: string; readonly port: number }): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Makes a server listen. Returns the port. `flag` is the one that names another address: `--http`. */
export async function listen(server: Server, address: ListenAddress, flag: string): Promise<number> {
  const { host, port, fallback } = address;
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
    if (systemCode(error) !== 'EADDRINUSE') throw ioError('listen on', addressText(address), error);
    if (!fallback) {
      throw new LightkeeperError(
        'REFUSED',
        `Cannot listen on "${addressText(address)}": something else does`,
        {
          hint: `name another port with ${flag}, for instance ${flag} 127.0.0.1:0`,
          cause: error,
        },
      );
    }
    await attempt(0);
  }
  return (server.address() as AddressInfo).port;
}
