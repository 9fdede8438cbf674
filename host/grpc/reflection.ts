import {
  create,
  type DescEnum,
  type DescFile,
  type DescMessage,
  type DescService,
  toBinary,
} from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from '../../gen/grpc/reflection/v1/reflection_pb.ts';
import {
  ServerReflection as ServerReflectionAlpha,
  ServerReflectionResponseSchema as ServerReflectionResponseSchemaAlpha,
} from '../../gen/grpc/reflection/v1alpha/reflection_pb.ts';
import { type GrpcService, grpcService } from './server.ts';

/** Returns the reflection services, v1 and v1alpha, which describe these services and themselves. */
export function reflectionServices(services: readonly DescService[]): GrpcService[] {
  const described = describe([...services, ServerReflection, ServerReflectionAlpha]);
  return [
    grpcService(ServerReflection, {
      serverReflectionInfo: async function* (requests) {
        const sent = new Set<string>();
        for await (const originalRequest of requests) {
          const messageResponse = respond(described, originalRequest.messageRequest, sent);
          const validHost = originalRequest.host;
          yield create(ServerReflectionResponseSchema, { validHost, originalRequest, messageResponse });
        }
      },
    }),
    grpcService(ServerReflectionAlpha, {
      serverReflectionInfo: async function* (requests) {
        const sent = new Set<string>();
        for await (const originalRequest of requests) {
          // Both versions have the same fields.
          const request = originalRequest.messageRequest as ServerReflectionRequest['messageRequest'];
          const messageResponse = respond(described, request, sent) as never;
          const validHost = originalRequest.host;
          yield create(ServerReflectionResponseSchemaAlpha, { validHost, originalRequest, messageResponse });
        }
      },
    }),
  ];
}

/** What there is to know of some services. */
interface Described {
  readonly services: readonly string[];
  readonly files: ReadonlyMap<string, DescFile>;
  /** Files by the full names of what they declare. */
  readonly symbols: ReadonlyMap<string, DescFile>;
  readonly messages: ReadonlySet<string>;
}

function describe(services: readonly DescService[]): Described {
  const files = new Map<string, DescFile>();
  for (const { file } of services) for (const one of withDependencies(file)) files.set(one.proto.name, one);
  const symbols = new Map<string, DescFile>();
  const messages = new Set<string>();
  for (const file of files.values()) {
    for (const service of file.services) {
      symbols.set(service.typeName, file);
      for (const { name } of service.methods) symbols.set(`${service.typeName}.${name}`, file);
    }
    for (const type of typesOf(file)) {
      symbols.set(type.typeName, file);
      if (type.kind === 'message') messages.add(type.typeName);
    }
  }
  return { services: services.map(({ typeName }) => typeName).sort(), files, symbols, messages };
}

/** Returns a file and all that it imports, each once, itself first. */
function withDependencies(file: DescFile): DescFile[] {
  const found = new Set([file]);
  for (const one of found) for (const dependency of one.dependencies) found.add(dependency);
  return [...found];
}

function typesOf({
  messages,
  enums,
}: {
  readonly messages: readonly DescMessage[];
  readonly enums: readonly DescEnum[];
}): (DescMessage | DescEnum)[] {
  const below = messages.flatMap((message) =>
    typesOf({ messages: message.nestedMessages, enums: message.nestedEnums }),
  );
  return [...messages, ...enums, ...below];
}

type Response = ServerReflectionResponse['messageResponse'];

/** Returns the response to a request. `sent` has the names of the files that the stream has sent. */
function respond(
  { services, files, symbols, messages }: Described,
  request: ServerReflectionRequest['messageRequest'],
  sent: Set<string>,
): Response {
  switch (request.case) {
    case 'listServices': {
      const service = services.map((name) => ({ name }));
      return { case: 'listServicesResponse', value: { service } } as Response;
    }
    case 'fileByFilename':
      return fileResponse(files.get(request.value), sent);
    case 'fileContainingSymbol':
      return fileResponse(symbols.get(request.value.replace(/^\./, '')), sent);
    case 'allExtensionNumbersOfType': {
      if (!messages.has(request.value)) return errorResponse(Code.NotFound, 'there is no such type');
      const value = { baseTypeName: request.value, extensionNumber: [] };
      return { case: 'allExtensionNumbersResponse', value } as unknown as Response;
    }
    case 'fileContainingExtension':
      return errorResponse(Code.NotFound, 'there are no extensions');
    default:
      return errorResponse(Code.InvalidArgument, 'the request has none of the known fields');
  }
}

function fileResponse(file: DescFile | undefined, sent: Set<string>): Response {
  if (file === undefined) return errorResponse(Code.NotFound, 'there is no such file or symbol');
  // What was asked for is sent in any case, what it imports only once in a stream.
  const fresh = withDependencies(file).filter((one) => one === file || !sent.has(one.proto.name));
  for (const { proto } of fresh) sent.add(proto.name);
  const fileDescriptorProto = fresh.map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  return { case: 'fileDescriptorResponse', value: { fileDescriptorProto } } as Response;
}

function errorResponse(code: Code, state: string): Response {
  const value = { errorCode: Number(code), errorMessage: `Cannot describe it: ${state}` };
  return { case: 'errorResponse', value } as Response;
}
