import type { DescMethod, DescService, Message } from '@bufbuild/protobuf';
import {
  Code,
  ConnectError,
  createContextKey,
  createContextValues,
  createHandlerContext,
  type HandlerContext,
  type ServiceImpl,
} from '@connectrpc/connect';
import {
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServiceDefinition,
  type UntypedHandleCall,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { LightkeeperError } from '../../core/errors.ts';
import type { ListenAddress } from '../http.ts';
import { codecOf, type MessageCodecs } from './codec.ts';
import { toStatus } from './status.ts';

/** A service with its handlers, in the shape that connect-node serves too. */
export interface GrpcService {
  readonly desc: DescService;
  // Each service has handlers of its own type; `grpcService` checks them.
  readonly handlers: ServiceImpl<DescService>;
  readonly codecs: MessageCodecs;
}

/** Returns a service for `serveGrpc`. */
export function grpcService<Desc extends DescService>(
  desc: Desc,
  handlers: ServiceImpl<Desc>,
  codecs: MessageCodecs = new Map(),
): GrpcService {
  return { desc, handlers: handlers as ServiceImpl<DescService>, codecs };
}

/** The other end of a call. */
export interface GrpcPeer {
  /** Address and port, as the transport reports them. */
  readonly address: string;
  /** Common name of the certificate that was verified; undefined without TLS. */
  readonly certificateName: string | undefined;
}

const PEER_KEY = createContextKey<GrpcPeer>({ address: '', certificateName: undefined });

/** Returns the other end of the call that a handler serves. */
export function peerOf(context: HandlerContext): GrpcPeer {
  return context.values.get(PEER_KEY);
}

/** A gRPC listener that serves. */
export interface GrpcListener {
  readonly port: number;
  /** Takes no new calls and waits for the present ones, which are ended after `graceMs`. */
  readonly close: (graceMs?: number) => Promise<void>;
}

/** Largest message that is received, in bytes. */
export const MESSAGE_BYTES_MAX = 4 * 1024 * 1024;
const GRACE_MS = 2000;
const KEEPALIVE_MS = 10_000;
const KEEPALIVE_TIMEOUT_MS = 5000;
/** Most streams of one connection. */
const STREAMS_MAX = 256;

/** Serves gRPC services with grpc-js until closed. */
export async function serveGrpc(
  { host, port, fallback }: ListenAddress,
  services: readonly GrpcService[],
): Promise<GrpcListener> {
  const server = new Server({
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_concurrent_streams': STREAMS_MAX,
    'grpc.keepalive_time_ms': KEEPALIVE_MS,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
  });
  for (const service of services) server.addService(definitionOf(service), implementationOf(service));
  const bind = (tried: number) =>
    new Promise<number>((resolve, reject) => {
      server.bindAsync(`${host}:${tried}`, ServerCredentials.createInsecure(), (error, bound) => {
        if (error === null) resolve(bound);
        else reject(error);
      });
    });
  const bound = await bind(port).catch(async (error: unknown) => {
    if (fallback) return await bind(0);
    throw new LightkeeperError('REFUSED', `Cannot listen on "${host}:${port}": ${String(error)}`, {
      hint: 'name another port with --grpc, for instance --grpc 127.0.0.1:0',
      cause: error,
    });
  });
  return { port: bound, close: (graceMs = GRACE_MS) => closeServer(server, graceMs) };
}

async function closeServer(server: Server, graceMs: number): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => server.forceShutdown(), graceMs);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

function definitionOf({ desc, codecs }: GrpcService): ServiceDefinition {
  const definition: Record<string, ServiceDefinition[string]> = {};
  for (const method of desc.methods) {
    const [input, output] = [codecOf(method.input, codecs), codecOf(method.output, codecs)];
    definition[method.localName] = {
      path: `/${desc.typeName}/${method.name}`,
      requestStream: method.methodKind === 'bidi_streaming' || method.methodKind === 'client_streaming',
      responseStream: method.methodKind === 'bidi_streaming' || method.methodKind === 'server_streaming',
      requestSerialize: input.serialize,
      requestDeserialize: input.deserialize,
      responseSerialize: output.serialize,
      responseDeserialize: output.deserialize,
      originalName: method.localName,
    };
  }
  return definition;
}

function implementationOf({ desc, handlers }: GrpcService): UntypedServiceImplementation {
  const served: Record<string, UntypedHandleCall> = {};
  for (const method of desc.methods) {
    const handler = (handlers as Record<string, unknown>)[method.localName];
    if (typeof handler !== 'function') continue;
    served[method.localName] =
      method.methodKind === 'unary' ? unary(method, handler) : streaming(method, handler);
  }
  return served;
}

// biome-ignore lint/complexity/noBannedTypes: handlers are checked by `grpcService`.
type Handler = Function;
type Call = ServerDuplexStream<Message, Message> & { readonly request?: Message };

function unary(method: DescMethod, handler: Handler): handleUnaryCall<Message, Message> {
  return (call, callback) => {
    const context = contextOf(method, call as unknown as Call);
    Promise.resolve(handler(call.request, context))
      .then((reply: Message) => callback(null, reply))
      .catch((error: unknown) => callback(toStatus(error)));
  };
}

function streaming(method: DescMethod, handler: Handler): (call: Call) => void {
  return (call) => {
    const context = contextOf(method, call);
    const takesStream = method.methodKind !== 'server_streaming';
    const replies = handler(takesStream ? requestsOf(call) : call.request, context);
    sendAll(call, replies as AsyncIterable<Message>, context.signal)
      .then(() => call.end())
      .catch((error: unknown) => {
        if (!call.cancelled) call.emit('error', toStatus(error));
      });
  };
}

/** Yields the requests of a stream. A cancelled call ends it with an error. */
async function* requestsOf(call: Call): AsyncGenerator<Message> {
  // The end of the requests must not end the replies.
  for await (const message of call.iterator({ destroyOnReturn: false })) yield message as Message;
  if (call.cancelled) throw new ConnectError('the call was cancelled', Code.Canceled);
}

/** Writes all replies, no faster than the other end reads them. */
async function sendAll(call: Call, replies: AsyncIterable<Message>, signal: AbortSignal): Promise<void> {
  for await (const reply of replies) {
    signal.throwIfAborted();
    if (call.write(reply)) continue;
    await drained(call, signal);
  }
}

/** Resolves when a stream takes more. Rejects when the signal aborts. */
export function drained(
  stream: {
    once(event: 'drain', listener: () => void): unknown;
    off(event: 'drain', listener: () => void): unknown;
  },
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = () => {
      signal.removeEventListener('abort', aborted);
      resolve();
    };
    const aborted = () => {
      stream.off('drain', done);
      reject(signal.reason as Error);
    };
    if (signal.aborted) return aborted();
    stream.once('drain', done);
    signal.addEventListener('abort', aborted, { once: true });
  });
}

function contextOf(method: DescMethod, call: Call): HandlerContext {
  const ended = new AbortController();
  call.on('cancelled', () => ended.abort(new ConnectError('the call was cancelled', Code.Canceled)));
  const certificateName = call.getAuthContext().sslPeerCertificate?.subject.CN;
  const peer = { address: call.getPeer(), certificateName };
  return createHandlerContext({
    service: method.parent,
    method,
    protocolName: 'grpc',
    requestMethod: 'POST',
    url: `http://localhost${call.getPath()}`,
    requestSignal: ended.signal,
    contextValues: createContextValues().set(PEER_KEY, peer),
  });
}
