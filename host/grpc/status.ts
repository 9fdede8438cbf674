import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { Metadata, type ServiceError, type StatusObject } from '@grpc/grpc-js';
import { ErrorDetailSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { toConnect } from '../rpc-errors.ts';

/** Trailer that carries the ErrorDetail of a failed call. */
const DETAIL_KEY = 'lightkeeper-error-bin';

/** Converts an error to the status of a gRPC call, with its code and hint in the trailers. */
export function toStatus(error: unknown): Pick<StatusObject, 'code' | 'details' | 'metadata'> {
  const { code, rawMessage, details } = toConnect(error);
  const metadata = new Metadata();
  for (const detail of details) {
    if (!('desc' in detail) || detail.desc.typeName !== ErrorDetailSchema.typeName) continue;
    const value = create(ErrorDetailSchema, detail.value as object);
    metadata.set(DETAIL_KEY, Buffer.from(toBinary(ErrorDetailSchema, value)));
  }
  return { code: Number(code), details: rawMessage, metadata };
}

/** Converts the status of a failed gRPC call to a Connect error with the same detail. */
export function fromStatus(error: unknown): ConnectError {
  if (!isServiceError(error)) return ConnectError.from(error);
  const code = Code[error.code] === undefined ? Code.Unknown : (error.code as number as Code);
  const converted = new ConnectError(error.details, code, undefined, undefined, error);
  const [bytes] = error.metadata?.get(DETAIL_KEY) ?? [];
  if (bytes instanceof Uint8Array) {
    try {
      const value = fromBinary(ErrorDetailSchema, bytes, { readUnknownFields: false });
      converted.details.push({ desc: ErrorDetailSchema, value });
    } catch {
      // The detail is a courtesy of the server: without it the code of the status counts.
    }
  }
  return converted;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && typeof (error as Partial<ServiceError>).code === 'number';
}
