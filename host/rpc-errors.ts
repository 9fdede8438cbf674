import { create } from '@bufbuild/protobuf';
import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { type ErrorCode, LightkeeperError, normalise } from '../core/errors.ts';
import { ErrorDetailSchema } from '../gen/lightkeeper/v1/agent_pb.ts';

const CODES: Readonly<Record<ErrorCode, Code>> = {
  INVALID_ARGUMENT: Code.InvalidArgument,
  NOT_FOUND: Code.NotFound,
  REFUSED: Code.FailedPrecondition,
  IN_USE: Code.Aborted,
  DAMAGED: Code.DataLoss,
  TOO_NEW: Code.FailedPrecondition,
  TOO_OLD: Code.FailedPrecondition,
  UNIMPLEMENTED: Code.Unimplemented,
  CANCELLED: Code.Canceled,
  DEADLINE: Code.DeadlineExceeded,
  // Without a detail, the first code of a kind is assumed.
  UNAVAILABLE: Code.Unavailable,
  IO: Code.Unavailable,
  PEER_INVALID: Code.InvalidArgument,
  INTERNAL: Code.Internal,
};

/** Converts an error to a Connect error that carries its code and hint. */
export function toConnect(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  const { code, message, hint } = normalise(error);
  const detail = { desc: ErrorDetailSchema, value: create(ErrorDetailSchema, { code, hint }) };
  return new ConnectError(message, CODES[code], undefined, [detail], error);
}

/** Converts a Connect error back to the error that it carries. */
export function fromConnect(error: unknown): LightkeeperError {
  if (!(error instanceof ConnectError)) return normalise(error);
  const [detail] = error.findDetails(ErrorDetailSchema);
  if (detail !== undefined && detail.code in CODES) {
    return new LightkeeperError(detail.code as ErrorCode, error.rawMessage, { hint: detail.hint });
  }
  const message = statementOf(error);
  if (error.code === Code.Unauthenticated || error.code === Code.PermissionDenied)
    return new LightkeeperError('REFUSED', message, { cause: error });
  const [code] = Object.entries(CODES).find(([, wire]) => wire === error.code) ?? ['INTERNAL'];
  return new LightkeeperError(code as ErrorCode, message, { cause: error });
}

/** Returns the text of an error; one of a library becomes a statement of ours. */
function statementOf({ rawMessage }: ConnectError): string {
  if (rawMessage.startsWith('Cannot ')) return rawMessage;
  return `Cannot finish the call: ${rawMessage === '' ? 'the other side said nothing' : rawMessage}`;
}

const CONNECTION_LOST: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.Canceled,
  Code.Aborted,
  Code.Internal,
  Code.Unknown,
  Code.DeadlineExceeded,
]);

/** Reports whether a call ended without a response: the server has ended or does not respond. */
export function isConnectionLost(error: unknown): boolean {
  return (
    error instanceof ConnectError &&
    error.findDetails(ErrorDetailSchema).length === 0 &&
    CONNECTION_LOST.has(error.code)
  );
}

/** Converts the errors of handlers to Connect errors, in the server. */
export const serverErrors: Interceptor = (next) => async (request) => {
  try {
    const response = await next(request);
    if (!response.stream) return response;
    return { ...response, message: rethrow(response.message, toConnect) };
  } catch (error) {
    throw toConnect(error);
  }
};

async function* rethrow<T>(messages: AsyncIterable<T>, convert: (error: unknown) => Error): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    throw convert(error);
  }
}
