import { AgentService } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { serveSocket, socketPath } from '../../host/socket.ts';
import { serverErrors } from '../api/errors.ts';
import type { StoreService } from '../api/service.ts';

/** Serves the calls of a store on a Unix socket, and records the socket in the store. */
export async function serveStore(
  service: StoreService,
): Promise<{ socket: string; close: () => Promise<void> }> {
  const socket = await socketPath(Buffer.from(service.store.config.storeId).toString('hex'));
  const server = await serveSocket(
    socket,
    (router) => {
      router.service(AgentService, service.implementation());
    },
    [serverErrors],
  );
  await service.store.listenOn(socket);
  return { socket, close: server.close };
}
