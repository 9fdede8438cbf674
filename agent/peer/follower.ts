import { ConnectError, createClient } from '@connectrpc/connect';
import { fullJitterMs } from '../../core/backoff.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { PeerService } from '../../gen/lightkeeper/v1/peer_pb.ts';
import { waited } from '../../host/clock.ts';
import { type DialOptions, dialGrpc } from '../../host/grpc/transport.ts';
import { fromConnect, isConnectionLost } from '../../host/rpc-errors.ts';
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

/** Most characters of an error, and of its hint. */
const MESSAGE_LETTERS_MAX = 1000;

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
      let hasProgress = false;
      const onEvent = (event: FollowEvent) => {
        // A source that only says Welcome, again and again, must not be dialled ever faster.
        if (event.type !== 'welcomed') hasProgress = true;
        parts.onEvent(event);
      };
      try {
        // It is the same one for every stream: what it received for an unfinished snapshot is not removed meanwhile.
        receiver ??= await FrameReceiver.open(parts.store, { reserveBytes: parts.reserveBytes });
        await followStream({ ...parts, receiver, onEvent }, signal);
      } catch (error) {
        if (signal.aborted) return;
        attempt = hasProgress ? 1 : attempt + 1;
        const failure = failureOf(error, parts.url);
        const mayRepeat = REPEATED.has(failure.code);
        if (!mayRepeat) {
          // A receiver whose disk failed is of no use.
          await receiver?.close();
          receiver = undefined;
        }
        const waitMs = fullJitterMs(attempt, mayRepeat ? RECONNECT : REFUSED, Math.random());
        parts.onDisconnected(failure, waitMs);
        await waited(waitMs, signal);
      }
    }
  } finally {
    await receiver?.close();
  }
}

/** Returns why a stream has ended. What the source says of it is cut to a length that a log can hold. */
function failureOf(error: unknown, url: string): LightkeeperError {
  if (isConnectionLost(error)) return unreachable(error, url);
  const { code, message, hint } = fromConnect(error);
  // A status of the other side without a code of ours tells nothing about this process.
  const isForeign = code === 'INTERNAL' && error instanceof ConnectError;
  return new LightkeeperError(isForeign ? 'UNAVAILABLE' : code, message.slice(0, MESSAGE_LETTERS_MAX), {
    hint: hint.slice(0, MESSAGE_LETTERS_MAX),
    cause: error,
  });
}

/** Returns the error of a source that did not answer: it has ended, or the network is cut. */
function unreachable(cause: unknown, url: string): LightkeeperError {
  const state = cause instanceof ConnectError ? cause.rawMessage.slice(0, MESSAGE_LETTERS_MAX) : '';
  return new LightkeeperError(
    'UNAVAILABLE',
    `Cannot follow "${url}": its agent does not answer (${state === '' ? 'no reason is known' : state})`,
    { hint: 'check that the agent runs there, and the network; this one dials again by itself', cause },
  );
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
