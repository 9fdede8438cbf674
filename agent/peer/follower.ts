import { createClient } from '@connectrpc/connect';
import { fullJitterMs } from '../../core/backoff.ts';
import { type LightkeeperError, normalise } from '../../core/errors.ts';
import { PeerService } from '../../gen/lightkeeper/v1/peer_pb.ts';
import { waited } from '../../host/clock.ts';
import { type DialOptions, dialGrpc } from '../../host/grpc/transport.ts';
import { fromConnect } from '../../host/rpc-errors.ts';
import { FrameReceiver } from '../store/receive/frame-receiver.ts';
import { BULK_CODECS } from './bulk-codec.ts';
import { type FollowParts, followOnce } from './follow-session.ts';

/** Bytes that a source may send ahead: enough for 100 MB/s at a round trip of 80 ms. */
const WINDOW_BYTES = 8 << 20;

/** Waits between attempts to connect. */
const RECONNECT = { firstMs: 200, longestMs: 10_000 };
/** Waits after a refusal, which only an operator can mend. */
const REFUSED = { firstMs: 10_000, longestMs: 60_000 };

/** A source to follow, and what happens meanwhile. */
export interface FollowerParts extends Omit<FollowParts, 'receiver'> {
  /** URL of the source's gRPC port. */
  readonly url: string;
  readonly dial: DialOptions;
  /** A stream has ended, and the next attempt begins in `nextMs` milliseconds. */
  readonly onDisconnected: (error: LightkeeperError, nextMs: number) => void;
}

/** Follows a graph until the signal aborts: dials its source again whenever a stream has ended. */
export async function followGraph(parts: FollowerParts, signal: AbortSignal): Promise<void> {
  let attempt = 0;
  while (!signal.aborted) {
    let isWelcome = false;
    try {
      await followStream(
        {
          ...parts,
          onEvent: (event) => {
            if (event.type === 'welcomed') isWelcome = true;
            parts.onEvent(event);
          },
        },
        signal,
      );
    } catch (error) {
      if (signal.aborted) return;
      attempt = isWelcome ? 1 : attempt + 1;
      const failure = fromConnect(error);
      const mayRepeat =
        failure.code === 'UNAVAILABLE' || failure.code === 'CANCELLED' || failure.code === 'DEADLINE';
      const waitMs = fullJitterMs(attempt, mayRepeat ? RECONNECT : REFUSED, Math.random());
      parts.onDisconnected(normalise(failure), waitMs);
      await waited(waitMs, signal);
    }
  }
}

async function followStream(parts: FollowerParts, signal: AbortSignal): Promise<void> {
  const connection = dialGrpc(parts.url, { ...parts.dial, codecs: BULK_CODECS, windowBytes: WINDOW_BYTES });
  const receiver = await FrameReceiver.open(parts.store);
  try {
    await followOnce(createClient(PeerService, connection), { ...parts, receiver }, signal);
  } finally {
    await receiver.close();
    connection.close();
  }
}
