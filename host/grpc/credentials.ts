import { isIP, type Socket } from 'node:net';
import { checkServerIdentity, connect, createSecureContext, type SecureContextOptions } from 'node:tls';
import {
  CallCredentials,
  ChannelCredentials,
  type ChannelOptions,
  type experimental,
  ServerCredentials,
} from '@grpc/grpc-js';
import type { TlsMaterial, TlsSource } from '../tls.ts';

/** Time limit of a TLS handshake, in milliseconds. */
const HANDSHAKE_MS = 10_000;

/** Server credentials that follow a source, and require a certificate of its authority from each client. */
export class ReloadingServerCredentials extends ServerCredentials {
  readonly #stop: () => void;

  constructor(source: TlsSource) {
    // Without rejectUnauthorized, a certificate of any authority would open a connection.
    const server = { requestCert: true, rejectUnauthorized: true, handshakeTimeout: HANDSHAKE_MS };
    super(server, contextOptions(source.current));
    // New handshakes use the new certificate; open connections go on.
    this.#stop = source.onChange((material) => this.updateSecureContextOptions(contextOptions(material)));
  }

  /** Stops following the source. */
  close(): void {
    this.#stop();
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

function contextOptions({ cert, key, ca }: TlsMaterial): SecureContextOptions {
  return { cert, key, ca };
}

/** Client credentials that take the certificate from a source at each connect, and verify the server. */
export class ReloadingChannelCredentials extends ChannelCredentials {
  readonly #source: TlsSource;
  readonly #host: string;

  constructor(source: TlsSource, host: string) {
    super();
    this.#source = source;
    this.#host = host.replace(/^\[|\]$/g, '');
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(
    _target: unknown,
    _options: ChannelOptions,
    calls: CallCredentials = CallCredentials.createEmpty(),
  ): experimental.SecureConnector {
    return {
      connect: async (socket) => ({ socket: await this.#connect(socket), secure: true }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => calls,
      destroy: () => {},
    };
  }

  #connect(socket: Socket): Promise<Socket> {
    const host = this.#host;
    return new Promise((resolve, reject) => {
      const secure = connect({
        socket,
        host,
        secureContext: createSecureContext(contextOptions(this.#source.current)),
        ALPNProtocols: ['h2'],
        checkServerIdentity: (_, certificate) => checkServerIdentity(host, certificate),
        // A server name must not be an IP address.
        ...(isIP(host) === 0 ? { servername: host } : {}),
      });
      const timer = setTimeout(
        () => secure.destroy(new Error('the TLS handshake took too long')),
        HANDSHAKE_MS,
      );
      secure.once('secureConnect', () => {
        clearTimeout(timer);
        if (secure.authorized) resolve(secure);
        else secure.destroy(secure.authorizationError);
      });
      // This listener stays: an error without one would end the process.
      secure.on('error', reject);
      secure.once('close', () => {
        clearTimeout(timer);
        reject(new Error('the connection was closed during the TLS handshake'));
      });
    });
  }
}
