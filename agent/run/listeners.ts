import { now } from '../../host/clock.ts';
import type { GrpcService } from '../../host/grpc/server.ts';
import { type HttpRoute, serveHttp } from '../../host/http.ts';
import { addressText, type ListenAddress } from '../../host/listen.ts';
import { type TlsEvent, type TlsFiles, type TlsMaterial, type WatchedTls, watchTls } from '../../host/tls.ts';
import type { AgentSettings } from '../config/settings.ts';
import { serveAgentGrpc } from './grpc-server.ts';

/** What is known of the agent's certificate, for people. */
export interface CertificateLine {
  readonly message: string;
  readonly hint: string;
  readonly isWell: boolean;
}

/** What the listeners of an agent serve. */
export interface ListenerParts {
  readonly routes: ReadonlyMap<string, HttpRoute>;
  /** gRPC services beside health and reflection. */
  readonly services: readonly GrpcService[];
  readonly isReady: () => Promise<boolean>;
  readonly onCertificate: (line: CertificateLine) => void;
}

/** The open listeners of an agent. */
export interface OpenListeners {
  /** URL of metrics and probes. */
  readonly http: string;
  /** URL for calls of other agents; undefined where the settings name no address. */
  readonly grpc: string | undefined;
  /** Certificate of the agent; undefined without TLS. */
  readonly tls: WatchedTls | undefined;
  /** Ends the calls, then the listeners. */
  readonly close: () => Promise<void>;
}

const DAY_MS = 86_400_000;
/** Time before the end of a long-lived certificate from which each day has a warning, in milliseconds. */
const EXPIRY_WARNING_MS = 14 * DAY_MS;
const RENEW_HINT = 'issue another one with lightkeeper ca issue NAME --replace; it is read without a restart';

/** Opens the listeners of an agent, with its certificate if it has one. */
export async function openListeners(
  { http, grpc, tls: files, hosts }: AgentSettings,
  { routes, services, isReady, onCertificate }: ListenerParts,
): Promise<OpenListeners> {
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const one of closers.splice(0).reverse()) await one();
  };
  try {
    const tls = files === undefined ? undefined : await openCertificate(files, onCertificate, closers);
    const tlsOf = ({ secure }: { readonly secure: boolean }) => (secure ? tls : undefined);
    const served = await serveHttp(http, routes, { hosts, tls: tlsOf(http) });
    closers.push(served.close);
    const called = await serveAgentGrpc(grpc, { services, isReady, tls: tlsOf(grpc) });
    closers.push(() => called.close());
    return {
      http: urlOf(http, served.port),
      grpc: grpc.fallback ? undefined : urlOf(grpc, called.port),
      tls,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function urlOf({ host, secure }: ListenAddress & { readonly secure: boolean }, port: number): string {
  return `${secure ? 'https' : 'http'}://${addressText({ host, port })}`;
}

/** Reads the certificate, and again when its files change or on SIGHUP. */
async function openCertificate(
  files: TlsFiles,
  onCertificate: (line: CertificateLine) => void,
  closers: (() => Promise<void>)[],
): Promise<WatchedTls> {
  const tls = await watchTls(files, { onEvent: (event) => onCertificate(lineOf(event)) });
  const warnOfExpiry = () => {
    const line = expiryLine(tls.current);
    if (line !== undefined) onCertificate(line);
  };
  const timer = setInterval(warnOfExpiry, DAY_MS);
  timer.unref();
  const onHangUp = () => void tls.check();
  process.on('SIGHUP', onHangUp);
  closers.push(async () => {
    process.off('SIGHUP', onHangUp);
    clearInterval(timer);
    tls.close();
  });
  warnOfExpiry();
  return tls;
}

function lineOf(event: TlsEvent): CertificateLine {
  if (event.kind === 'unusable') {
    const { message, hint } = event.error;
    return { message: `the certificate before remains in use: ${message}`, hint, isWell: false };
  }
  const { material } = event;
  const message = `the certificate was replaced; it is valid until ${timeOf(material)}`;
  return expiryLine(material) ?? { message, hint: '', isWell: true };
}

/** Returns a warning where a certificate has expired or will soon. */
function expiryLine(material: TlsMaterial): CertificateLine | undefined {
  const leftMs = material.expiresMs - now();
  // Certificates that live for a day are replaced in time by a program.
  const warningMs = Math.min(EXPIRY_WARNING_MS, (material.expiresMs - material.validFromMs) / 3);
  if (leftMs > warningMs) return undefined;
  const message =
    leftMs > 0
      ? `the certificate expires soon, at ${timeOf(material)}`
      : `the certificate expired at ${timeOf(material)}: no peer accepts it`;
  return { message, hint: RENEW_HINT, isWell: false };
}

function timeOf({ expiresMs }: TlsMaterial): string {
  return new Date(expiresMs).toISOString();
}
