import { createClient } from '@connectrpc/connect';
import { fullJitterMs } from '../../core/backoff.ts';
import { type GraphHead, PeerService } from '../../gen/lightkeeper/v1/peer_pb.ts';
import { monotonic, waited } from '../../host/clock.ts';
import { type DialOptions, dialGrpc } from '../../host/grpc/transport.ts';
import { BULK_CODECS } from './bulk-codec.ts';
import { MessageQueue } from './message-queue.ts';

/** Milliseconds between two requests. */
const EVERY_MS = 1000;
/** Milliseconds without a response after which the source counts as gone. */
const SILENT_MS = 10_000;
/** Bytes of requests that are queued; there is one at a time. */
const QUEUED_BYTES_MAX = 64 << 10;
const RECONNECT = { firstMs: 500, longestMs: 5000 };

/** What the watch of a source needs. */
export interface GraphWatchParts {
  readonly url: string;
  readonly dial: DialOptions;
  readonly agent: string;
  readonly graphId: string;
  /** Receives the heads of the graph and its workspaces. */
  readonly onHeads: (heads: readonly GraphHead[], roundTripMs: number) => void;
  /** The source does not respond. */
  readonly onSilent: (error: unknown) => void;
}

/** Watches the heads of a graph and its workspaces at their source until the signal aborts. */
export async function watchSource(parts: GraphWatchParts, signal: AbortSignal): Promise<void> {
  for (let attempt = 1; !signal.aborted; attempt++) {
    try {
      await watchOnce(
        {
          ...parts,
          onHeads: (heads, ms) => {
            attempt = 0;
            parts.onHeads(heads, ms);
          },
        },
        signal,
      );
    } catch (error) {
      if (signal.aborted) return;
      parts.onSilent(error);
    }
    await waited(fullJitterMs(Math.max(1, attempt), RECONNECT, Math.random()), signal);
  }
}

async function watchOnce(parts: GraphWatchParts, signal: AbortSignal): Promise<void> {
  const { agent, graphId } = parts;
  // A connection of its own: bulk on another one must not delay it.
  const connection = dialGrpc(parts.url, { ...parts.dial, codecs: BULK_CODECS });
  const out = new MessageQueue<{ number: bigint; graphIds: string[]; agent: string }>(QUEUED_BYTES_MAX);
  const late = new AbortController();
  const either = AbortSignal.any([signal, late.signal]);
  const client = createClient(PeerService, connection);
  let silent = setTimeout(() => late.abort(), SILENT_MS);
  try {
    let number = 1n;
    let sentMs = monotonic();
    await out.push({ number, graphIds: [graphId], agent });
    for await (const response of client.watchGraphs(out, { signal: either })) {
      clearTimeout(silent);
      silent = setTimeout(() => late.abort(), SILENT_MS);
      parts.onHeads(response.graphs, monotonic() - sentMs);
      if (!(await waited(EVERY_MS, either))) return;
      number += 1n;
      sentMs = monotonic();
      await out.push({ number, graphIds: [graphId], agent });
    }
  } finally {
    clearTimeout(silent);
    out.end();
    connection.close();
  }
}
