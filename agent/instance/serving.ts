import { connect } from 'node:net';
import { InstanceProbe, type InstanceSettings } from './probe.ts';

/** Most milliseconds of a connection attempt, and of a response. */
const CONNECT_TIMEOUT_MS = 3000;
const RESPONSE_TIMEOUT_MS = 5000;

/** Statuses by which a proxy says that nothing serves behind it. */
const NOTHING_BEHIND = new Set([502, 503, 504]);

/** Returns a sign that the instance of a directory runs, as a sentence; undefined if there is none. */
export async function whyInstanceServes(
  settings: InstanceSettings,
  dir: Uint8Array,
): Promise<string | undefined> {
  const report = await new InstanceProbe(settings, dir).report();
  // What serves another directory or workspace says nothing about this one.
  return report.kind === 'elsewhere' ? undefined : await whyServing(settings.url);
}

/** Returns a sign that something serves at a URL, as a sentence; undefined if there is none. */
// A name that is not known, or a host that does not reply, is no such sign: the container may be stopped.
export async function whyServing(text: string): Promise<string | undefined> {
  const url = URL.canParse(text) ? new URL('/health', text) : undefined;
  if (url === undefined || !(await isListening(url))) return undefined;
  try {
    const response = await fetch(url, {
      redirect: 'manual',
      signal: AbortSignal.timeout(RESPONSE_TIMEOUT_MS),
    });
    await response.body?.cancel();
    if (NOTHING_BEHIND.has(response.status)) return undefined;
    return `the instance at "${text}" replies (HTTP ${response.status})`;
  } catch {
    // It may be busy for longer than a request may take.
    return `something listens at "${text}"`;
  }
}

function isListening({ hostname, protocol, port }: URL): Promise<boolean> {
  const host = hostname.replace(/^\[|\]$/g, '');
  return new Promise((resolve) => {
    const socket = connect({
      host,
      port: port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port),
      autoSelectFamily: true,
    });
    const end = (isConnected: boolean) => {
      socket.destroy();
      resolve(isConnected);
    };
    socket.setTimeout(CONNECT_TIMEOUT_MS, () => end(false));
    socket.once('connect', () => end(true));
    socket.on('error', () => end(false));
  });
}
