import { hostname, networkInterfaces } from 'node:os';
import { isLoopback } from './listen.ts';

// Without this check a web page could reach a port of its visitor's machine by DNS rebinding.
/** Returns whether a listener answers a Host header. `hosts` is undefined for the machine's own addresses and names. */
export function isAnswered(
  header: string | undefined,
  listensOn: string,
  hosts: readonly string[] | undefined,
): boolean {
  const host = hostOf(header ?? '');
  if (isLoopback(host)) return true;
  if (isLoopback(listensOn)) return false;
  if (hosts?.includes('*') === true) return true;
  if (host === '') return false;
  return (hosts ?? ownHosts()).some((one) => normal(one) === host);
}

/** Returns the host of a Host header, without port and brackets. */
function hostOf(header: string): string {
  const [, bracketed, plain] = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::\d{1,5})?$/.exec(header) ?? [];
  return normal(bracketed ?? plain ?? '');
}

function normal(host: string): string {
  return host.toLowerCase().replace(/\.$/, '');
}

/** Returns the addresses and names of this machine. */
function ownHosts(): string[] {
  const name = hostname();
  const addresses = Object.values(networkInterfaces()).flatMap((some) => some ?? []);
  return [name, name.replace(/\..*/, ''), ...addresses.map(({ address }) => address)];
}
