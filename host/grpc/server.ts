import { createServer, type Socket } from 'node:net';
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
import { type ListenAddress, listen } from '../listen.ts';
import type { TlsSource } from '../tls.ts';
import { codecOf, type MessageCodecs } from './codec.ts';
import { ReloadingServerCredentials } from './credentials.ts';
import { toStatus } from './status.ts';
import { writeAll } from './write-all.ts';

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
/** Most connections at once. */
const CONNECTIONS_MAX = 512;

/** How services are served. */
export interface ServeOptions {
  /** Certificate of the listener; each client then needs one of the same authority. Undefined is plaintext. */
  readonly tls?: TlsSource | undefined;
  /** Most connections at once; one more is closed at once. */
  readonly connectionsMax?: number;
}

/** Serves gRPC services with grpc-js until closed. */
export async function serveGrpc(
  address: ListenAddress,
  services: readonly GrpcService[],
  { tls, connectionsMax = CONNECTIONS_MAX }: ServeOptions = {},
): Promise<GrpcListener> {
  const server = new Server({
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_concurrent_streams': STREAMS_MAX,
    // A connection whose other end is silent ends after one interval and the timeout.
    'grpc.keepalive_time_ms': KEEPALIVE_MS,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
  });
  const access: Access = tls === undefined ? 'anyone' : 'authorised';
  for (const service of services) server.addService(definitionOf(service), implementationOf(service, access));
  const credentials = tls === undefined ? undefined : new ReloadingServerCredentials(tls);
  const injector = server.createConnectionInjector(credentials ?? ServerCredentials.createInsecure());
  const sockets = new Set<Socket>();
  // A listener of its own bounds the connections, which grpc-js cannot.
  const listener = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    injector.injectConnection(socket);
  });
  listener.maxConnections = connectionsMax;
  const port = await listen(listener, address, '--grpc');
  return {
    port,
    close: async (graceMs = GRACE_MS) => {
      const closed = new Promise<void>((resolve) => listener.close(() => resolve()));
      await closeServer(server, graceMs);
      credentials?.close();
      // What is left has not finished its handshake, or has no calls.
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
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

/** Who may call: anyone, or only who has a certificate that was verified. */
type Access = 'anyone' | 'authorised';

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

function implementationOf({ desc, handlers }: GrpcService, access: Access): UntypedServiceImplementation {
  const served: Record<string, UntypedHandleCall> = {};
  for (const method of desc.methods) {
    const handler = (handlers as Record<string, unknown>)[method.localName];
    if (typeof handler !== 'function') continue;
    const one: Served = { method, handler, access };
    served[method.localName] = method.methodKind === 'unary' ? unary(one) : streaming(one);
  }
  return served;
}

interface Served {
  readonly method: DescMethod;
  // biome-ignore lint/complexity/noBannedTypes: handlers are checked by `grpcService`.
  readonly handler: Function;
  readonly access: Access;
}

type Call = ServerDuplexStream<Message, Message> & { readonly request?: Message };

function unary({ method, handler, access }: Served): handleUnaryCall<Message, Message> {
  return (call, callback) => {
    const reply = async () =>
      (await handler(call.request, contextOf(method, call as unknown as Call, access))) as Message;
    reply()
      .then((message) => callback(null, message))
      .catch((error: unknown) => callback(toStatus(error)));
  };
}

function streaming({ method, handler, access }: Served): (call: Call) => void {
  return (call) => {
    const reply = async () => {
      const context = contextOf(method, call, access);
      const takesStream = method.methodKind !== 'server_streaming';
      const replies = handler(takesStream ? requestsOf(call) : call.request, context);
      await writeAll(call, replies as AsyncIterable<Message>, context.signal);
    };
    reply()
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

function contextOf(method: DescMethod, call: Call, access: Access): HandlerContext {
  const ended = new AbortController();
  const cancel = () => ended.abort(new ConnectError('the call was cancelled', Code.Canceled));
  if (call.cancelled) cancel();
  else call.on('cancelled', cancel);
  return createHandlerContext({
    service: method.parent,
    method,
    protocolName: 'grpc',
    requestMethod: 'POST',
    url: `http://localhost${call.getPath()}`,
    requestSignal: ended.signal,
    contextValues: createContextValues().set(PEER_KEY, callerOf(call, access)),
  });
}

// The handshake has refused such a caller before. This holds even if it did not.
/** Returns the other end of a call. UNAUTHENTICATED where a certificate is needed and none was verified. */
function callerOf(call: Call, access: Access): GrpcPeer {
  // grpc-js passes on only the certificate of a socket that is `authorized`.
  const name: unknown = call.getAuthContext().sslPeerCertificate?.subject.CN;
  // A certificate with several common names has an array here.
  const certificateName = typeof name === 'string' && name !== '' ? name : undefined;
  if (access === 'authorised' && certificateName === undefined)
    throw new ConnectError(
      'Cannot call: no certificate with one common name was verified',
      Code.Unauthenticated,
    );
  return { address: call.getPeer(), certificateName };
}
