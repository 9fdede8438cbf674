/** First LightRAG whose directories older servers do not start from. */
// It writes `content_hash` into kv_store_doc_status.json, on which 1.4.9.11 ends at its start.
const FIRST_NEW = '1.5.0';

/** Reports whether a version of a LightRAG server is older than another one. */
export function isOlderVersion(one: string, other: string): boolean {
  const [a, b] = [numbersOf(one), numbersOf(other)];
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

/** Reports whether a point that `point` wrote is known to stop a server of version `server` at its start. */
export function isTooNewFor(server: string, point: string): boolean {
  return isOlderVersion(server, FIRST_NEW) && !isOlderVersion(point, FIRST_NEW);
}

/** Reports whether a version begins with a number, so that it can be compared. */
export function isVersion(text: string): boolean {
  return /^v?\d/.test(text);
}

function numbersOf(version: string): number[] {
  const [release = ''] = /^\d+(?:\.\d+)*/.exec(version.replace(/^v/, '')) ?? [];
  return release.split('.').map(Number);
}
