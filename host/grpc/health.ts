import { create } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import {
  Health,
  type HealthCheckResponse,
  HealthCheckResponse_ServingStatus,
  HealthCheckResponseSchema,
  HealthListResponseSchema,
} from '../../gen/grpc/health/v1/health_pb.ts';
import { waited } from '../clock.ts';
import { type GrpcService, grpcService } from './server.ts';

/** What the health service reports. */
export interface HealthSource {
  /** Names of the services; the empty name is the server as a whole. */
  readonly services: readonly string[];
  /** Returns whether a service can do its work now. */
  readonly isServing: (service: string) => boolean | Promise<boolean>;
  /** Aborts when the server drains: nothing is serving from then on. */
  readonly signal: AbortSignal;
  /** Time between two checks of a watched service, in milliseconds. */
  readonly watchMs?: number;
}

const WATCH_MS = 1000;
const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = HealthCheckResponse_ServingStatus;

/** Returns the standard health service (`grpc.health.v1`). */
export function healthService({
  services,
  isServing,
  signal,
  watchMs = WATCH_MS,
}: HealthSource): GrpcService {
  const known = new Set(['', ...services]);
  const statusOf = async (service: string) => {
    if (!known.has(service)) return SERVICE_UNKNOWN;
    return !signal.aborted && (await isServing(service)) ? SERVING : NOT_SERVING;
  };
  return grpcService(Health, {
    check: async ({ service }) => {
      const status = await statusOf(service);
      if (status === SERVICE_UNKNOWN)
        throw new ConnectError('Cannot check the service: it is not served here', Code.NotFound);
      return reply(status);
    },
    list: async () => {
      const statuses: Record<string, HealthCheckResponse> = {};
      for (const service of known) statuses[service] = reply(await statusOf(service));
      return create(HealthListResponseSchema, { statuses });
    },
    watch: async function* ({ service }, context) {
      const ended = AbortSignal.any([signal, context.signal]);
      let reported: HealthCheckResponse_ServingStatus | undefined;
      do {
        const status = await statusOf(service);
        if (status !== reported) yield reply(status);
        reported = status;
      } while (await waited(watchMs, ended));
      if (!context.signal.aborted && reported === SERVING) yield reply(NOT_SERVING);
    },
  });
}

function reply(status: HealthCheckResponse_ServingStatus): HealthCheckResponse {
  return create(HealthCheckResponseSchema, { status });
}
