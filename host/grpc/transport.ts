import {
  create,
  type DescMessage,
  type DescMethodStreaming,
  type DescMethodUnary,
  type Message,
  type MessageInitShape,
} from '@bufbuild/protobuf';
import { Code, ConnectError, type Transport } from '@connectrpc/connect';
import { Client, type ClientDuplexStream, credentials, Metadata } from '@grpc/grpc-js';
import { LightkeeperError } from '../../core/errors.ts';
import type { TlsSource } from '../tls.ts';
import { codecOf, type MessageCodecs } from './codec.ts';
import { ReloadingChannelCredentials } from './credentials.ts';
import { MESSAGE_BYTES_MAX } from './server.ts';
import { fromStatus } from './status.ts';
import { writeAll } from './write-all.ts';

/** How a server is dialled. */
export interface DialOptions {
  readonly codecs?: MessageCodecs;
  /** Bytes that the server may send before they are read; undefined is the default of grpc-js. */
  // Only a client has this window, so that bulk flows from server to client.
  readonly windowBytes?: number;
  /** Certificate of the caller, and the authority of the server; needed for `https:`. */
  readonly tls?: TlsSource | undefined;
}

/** A connection to a gRPC server, for `createClient`. */
export interface GrpcConnection extends Transport {
  /** Ends the connection and its calls. */
  close(): void;
}

const KEEPALIVE_MS = 10_000;
const KEEPALIVE_TIMEOUT_MS = 5000;

/**
 * Dials a server by its URL (`https://host:port`, `http:` for plaintext) when the first call is made.
 * INVALID_ARGUMENT for another URL, and for `https:` without a certificate.
 */
export function dialGrpc(
  url: string,
  { codecs = new Map(), windowBytes, tls }: DialOptions = {},
): GrpcConnection {
  const { target, channelCredentials } = parseUrl(url, tls);
  const client = new Client(target, channelCredentials, {
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
    'grpc.keepalive_time_ms': KEEPALIVE_MS,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
    // The caller decides when to dial again.
    'grpc.enable_retries': 0,
    // Two connections to one address must not share a socket.
    'grpc.use_local_subchannel_pool': 1,
    ...(windowBytes === undefined ? {} : { 'grpc-node.flow_control_window': windowBytes }),
  });
  return {
    unary: (method, signal, timeoutMs, header, input) =>
      unary({ client, codecs, method, signal, timeoutMs, header: new Headers(header) }, input),
    stream: (method, signal, timeoutMs, header, input) =>
      Promise.resolve(
        stream({ client, codecs, method, signal, timeoutMs, header: new Headers(header) }, input),
      ),
    close: () => client.close(),
  };
}

function parseUrl(url: string, tls: TlsSource | undefined) {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  const { protocol, hostname, port } = parsed ?? {};
  if (hostname === undefined || hostname === '' || (protocol !== 'http:' && protocol !== 'https:')) {
    throw new LightkeeperError('INVALID_ARGUMENT', 'Cannot dial: it is not a URL like https://host:9702', {
      hint: 'write https:// or, without TLS, http://',
    });
  }
  if (protocol === 'http:') {
    return { target: `${hostname}:${port || 80}`, channelCredentials: credentials.createInsecure() };
  }
  if (tls === undefined) {
    throw new LightkeeperError('INVALID_ARGUMENT', `Cannot dial "${url}": https needs a certificate`, {
      hint: 'set tls: {cert, key, ca}',
    });
  }
  return {
    target: `${hostname}:${port || 443}`,
    channelCredentials: new ReloadingChannelCredentials(tls, hostname),
  };
}

interface CallOf<Method> {
  readonly client: Client;
  readonly codecs: MessageCodecs;
  readonly method: Method;
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs: number | undefined;
  readonly header: Headers;
}

type AnyMethod = DescMethodUnary | DescMethodStreaming;

function pathOf({ parent, name }: AnyMethod): string {
  return `/${parent.typeName}/${name}`;
}

function callOptions(timeoutMs: number | undefined): { deadline?: Date } {
  // grpc-js takes a wall-clock time and turns it into a duration at once.
  return timeoutMs === undefined ? {} : { deadline: new Date(Date.now() + timeoutMs) };
}

function metadataOf(header: Headers): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of header) metadata.set(name, value);
  return metadata;
}

async function unary<I extends DescMessage, O extends DescMessage>(
  { client, codecs, method, signal, timeoutMs, header }: CallOf<DescMethodUnary<I, O>>,
  input: MessageInitShape<I>,
) {
  const [request, reply] = [codecOf(method.input, codecs), codecOf(method.output, codecs)];
  const message = await new Promise<Message>((resolve, reject) => {
    const call = client.makeUnaryRequest(
      pathOf(method),
      request.serialize as (value: Message) => Buffer,
      reply.deserialize as (bytes: Buffer) => Message,
      create(method.input, input) as Message,
      metadataOf(header),
      callOptions(timeoutMs),
      (error, value) => {
        if (error !== null) reject(fromStatus(error));
        else if (value === undefined) reject(new ConnectError('there is no reply', Code.Internal));
        else resolve(value);
      },
    );
    onAbort(signal, () => call.cancel());
  });
  return {
    stream: false as const,
    service: method.parent,
    method,
    header: new Headers(),
    trailer: new Headers(),
    message: message as never,
  };
}

function stream<I extends DescMessage, O extends DescMessage>(
  { client, codecs, method, signal, timeoutMs, header }: CallOf<DescMethodStreaming<I, O>>,
  input: AsyncIterable<MessageInitShape<I>>,
) {
  const [request, reply] = [codecOf(method.input, codecs), codecOf(method.output, codecs)];
  const unreadable: Unreadable = { error: undefined };
  const call = client.makeBidiStreamRequest(
    pathOf(method),
    request.serialize as (value: Message) => Buffer,
    (bytes: Buffer) => {
      try {
        return reply.deserialize(bytes) as Message;
      } catch (error) {
        unreadable.error ??=
          error instanceof LightkeeperError
            ? error
            : peerInvalid(method.output.name, 'it does not parse', error);
        throw error;
      }
    },
    metadataOf(header),
    callOptions(timeoutMs),
  );
  const ended = new AbortController();
  onAbort(signal, () => call.cancel());
  call.once('close', () => ended.abort());
  // The reader of the replies gets the error; without a listener it would end the process.
  call.on('error', () => ended.abort());
  writeAll(call, mapInput(method.input, input), ended.signal)
    .then(() => call.end())
    .catch((error: unknown) => {
      if (!ended.signal.aborted) call.destroy(ConnectError.from(error));
    });
  return {
    stream: true as const,
    service: method.parent,
    method,
    header: new Headers(),
    trailer: new Headers(),
    message: repliesOf(call, method.output.name, unreadable) as AsyncIterable<never>,
  };
}

/** The first reply that could not be parsed. */
// The status that grpc-js makes of it does not tell it from a failure of the server.
interface Unreadable {
  error: LightkeeperError | undefined;
}

function peerInvalid(name: string, state: string, cause: unknown): LightkeeperError {
  return new LightkeeperError('PEER_INVALID', `Cannot read a ${name}: ${state}`, { cause });
}

async function* mapInput<I extends DescMessage>(desc: I, input: AsyncIterable<MessageInitShape<I>>) {
  for await (const message of input) yield create(desc, message) as Message;
}

async function* repliesOf(
  call: ClientDuplexStream<Message, Message>,
  name: string,
  unreadable: Unreadable,
): AsyncGenerator<Message> {
  try {
    for await (const reply of call.iterator({ destroyOnReturn: false })) yield reply as Message;
  } catch (error) {
    if (unreadable.error !== undefined) throw unreadable.error;
    const status = fromStatus(error);
    if (status.code === Code.ResourceExhausted) throw peerInvalid(name, status.rawMessage, error);
    throw status;
  } finally {
    call.cancel();
  }
}

function onAbort(signal: AbortSignal | undefined, run: () => void): void {
  if (signal?.aborted === true) run();
  else signal?.addEventListener('abort', run, { once: true });
}
