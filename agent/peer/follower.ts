import { createClient } from '@connectrpc/connect';
import { fullJitterMs } from '../../core/backoff.ts';
import { type LightkeeperError, normalise } from '../../core/errors.ts';
import { PeerService } from '../../gen/lightkeeper/v1/peer_pb.ts';
import { waited } from '../../host/clock.ts';
import { type DialOptions, dialGrpc } from '../../host/grpc/transport.ts';
import { fromConnect } from '../../host/rpc-errors.ts';
import { FrameReceiver } from '../store/receive/frame-receiver.ts';
import { BULK_CODECS } from './bulk-codec.ts';
import { type FollowEvent, type FollowParts, followOnce } from './follow-session.ts';

/** Bytes that a source may send ahead: enough for 100 MB/s at a round trip of 80 ms. */
const WINDOW_BYTES = 8 << 20;

/** Waits between attempts to connect. */
const RECONNECT = { firstMs: 200, longestMs: 10_000 };
/** Waits after a refusal, which only an operator can mend. */
const REFUSED = { firstMs: 10_000, longestMs: 60_000 };
/** Codes of failures that go by themselves. */
const REPEATED: ReadonlySet<string> = new Set(['UNAVAILABLE', 'CANCELLED', 'DEADLINE']);

/** A source to follow, and what happens meanwhile. */
export interface FollowerParts extends Omit<FollowParts, 'receiver'> {
  /** URL of the source's gRPC port. */
  readonly url: string;
  readonly dial: DialOptions;
  /** Free bytes that must remain; undefined is the formula, 0 is no check. */
  readonly reserveBytes: bigint | undefined;
  /** A stream has ended, and the next attempt begins in `nextMs` milliseconds. */
  readonly onDisconnected: (error: LightkeeperError, nextMs: number) => void;
}

/** Follows a graph until the signal aborts: dials its source again whenever a stream has ended. */
export async function followGraph(parts: FollowerParts, signal: AbortSignal): Promise<void> {
  let receiver: FrameReceiver | undefined;
  let attempt = 0;
  try {
    while (!signal.aborted) {
      let isWelcome = false;
      const onEvent = (event: FollowEvent) => {
        if (event.type === 'welcomed') isWelcome = true;
        parts.onEvent(event);
      };
      try {
        // It is the same one for every stream: what it received for an unfinished snapshot is not removed meanwhile.
        receiver ??= await FrameReceiver.open(parts.store, { reserveBytes: parts.reserveBytes });
        await followStream({ ...parts, receiver, onEvent }, signal);
      } catch (error) {
        if (signal.aborted) return;
        attempt = isWelcome ? 1 : attempt + 1;
        const failure = fromConnect(error);
        const mayRepeat = REPEATED.has(failure.code);
        if (!mayRepeat) {
          // A receiver whose disk failed is of no use.
          await receiver?.close();
          receiver = undefined;
        }
        const waitMs = fullJitterMs(attempt, mayRepeat ? RECONNECT : REFUSED, Math.random());
        parts.onDisconnected(normalise(failure), waitMs);
        await waited(waitMs, signal);
      }
    }
  } finally {
    await receiver?.close();
  }
}

async function followStream(
  parts: FollowerParts & Pick<FollowParts, 'receiver'>,
  signal: AbortSignal,
): Promise<void> {
  const connection = dialGrpc(parts.url, { ...parts.dial, codecs: BULK_CODECS, windowBytes: WINDOW_BYTES });
  try {
    await followOnce(createClient(PeerService, connection), parts, signal);
  } finally {
    connection.close();
  }
}
