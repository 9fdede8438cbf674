import { healthService } from '../../host/grpc/health.ts';
import { reflectionServices } from '../../host/grpc/reflection.ts';
import { type GrpcListener, type GrpcService, serveGrpc } from '../../host/grpc/server.ts';
import type { ListenAddress } from '../../host/listen.ts';
import type { TlsSource } from '../../host/tls.ts';

/** What the gRPC listener of an agent serves. */
export interface GrpcParts {
  /** Services beside health and reflection. */
  readonly services: readonly GrpcService[];
  /** Returns whether the agent is ready: the health of the server as a whole. */
  readonly isReady: () => Promise<boolean>;
  readonly tls: TlsSource | undefined;
}

/** Serves services, with health and reflection, on a gRPC listener. */
export async function serveAgentGrpc(
  address: ListenAddress,
  { services, isReady, tls }: GrpcParts,
): Promise<GrpcListener> {
  const drain = new AbortController();
  const health = healthService({
    services: services.map(({ desc }) => desc.typeName),
    isServing: (service) => (service === '' ? isReady() : true),
    signal: drain.signal,
  });
  const all = [...services, health];
  const reflection = reflectionServices(all.map(({ desc }) => desc));
  const { port, close } = await serveGrpc(address, [...all, ...reflection], { tls });
  return {
    port,
    close: async (graceMs) => {
      drain.abort();
      await close(graceMs);
    },
  };
}
