import type { Fields, Found } from '../../host/config/keys.ts';
import type { ProblemReport } from '../../host/config/problem.ts';
import type { EffectiveSettings } from '../../host/config/show.ts';
import type { Address } from '../../host/config/value-types.ts';
import { addressText, isLoopback } from '../../host/listen.ts';
import type { TlsFiles } from '../../host/tls.ts';
import type { LISTENER_KEYS, ListenerName, TLS_KEYS } from './schema.ts';
import type { ListenerSettings } from './settings.ts';

const DEFAULTS: Readonly<Record<ListenerName, Address>> = {
  http: { host: '127.0.0.1', port: 9701 },
  grpc: { host: '127.0.0.1', port: 9702 },
};

/** Listeners of an agent, and what they need. */
export interface Listeners {
  readonly http: ListenerSettings;
  readonly grpc: ListenerSettings;
  /** Files of the agent's certificate; undefined without TLS. */
  readonly tls: TlsFiles | undefined;
  /** Host headers that are answered off loopback; undefined is the machine's own addresses and names. */
  readonly hosts: readonly string[] | undefined;
}

/** Builds the listeners. One off loopback needs TLS, or its name in `insecure`. */
export function buildListeners(
  fields: Fields<typeof LISTENER_KEYS>,
  effective: EffectiveSettings,
  report: ProblemReport,
): Listeners {
  const tls = tlsOf(fields.tls, effective, report);
  const insecure = effective.take('insecure', fields.insecure, [], (names) => names);
  const hosts = effective.take(
    'hosts',
    fields.hosts,
    undefined,
    (given) => given ?? "the machine's own addresses and names",
  );
  // Files that are incomplete are one problem, not three.
  const hasTls = fields.tls !== undefined;
  const listenerOf = (name: ListenerName) => {
    const found = fields[name];
    const { host, port } = effective.take(name, found, DEFAULTS[name], addressText);
    const isPlain = insecure.includes(name);
    if (found !== undefined && !isLoopback(host) && !hasTls && !isPlain)
      reportUnprotected(name, found, report);
    // Probes and scrapers on the machine itself have no authority to check a certificate with.
    const secure = tls !== undefined && !isPlain && (name === 'grpc' || !isLoopback(host));
    return { host, port, fallback: found === undefined, secure };
  };
  return { http: listenerOf('http'), grpc: listenerOf('grpc'), tls, hosts };
}

function reportUnprotected(name: ListenerName, found: Found<Address>, report: ProblemReport): void {
  const state = `cannot listen on "${addressText(found.value)}" without TLS: only on loopback addresses`;
  const hint = `set tls: {cert, key, ca} (see lightkeeper ca), listen on 127.0.0.1, or allow plaintext with insecure: [${name}]`;
  report.problem(found, state, { hint });
}

function tlsOf(
  found: Found<Fields<typeof TLS_KEYS>> | undefined,
  effective: EffectiveSettings,
  report: ProblemReport,
): TlsFiles | undefined {
  if (found === undefined) return undefined;
  const { cert, key, ca } = found.value;
  const missing = (['cert', 'key', 'ca'] as const).filter((name) => found.value[name] === undefined);
  if (cert === undefined || key === undefined || ca === undefined) {
    if (missing.length === 3) return undefined;
    report.problem(found, `there is no ${missing.join(' and no ')}`, {
      hint: 'name all three files: tls: {cert, key, ca}',
    });
    return undefined;
  }
  const word = (path: string) => path;
  return {
    cert: effective.take('tls.cert', cert, '', word),
    key: effective.take('tls.key', key, '', word),
    ca: effective.take('tls.ca', ca, '', word),
  };
}
