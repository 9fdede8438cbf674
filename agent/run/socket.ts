import type { ConnectRouter } from '@connectrpc/connect';
import { AgentService } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { serverErrors } from '../../host/rpc-errors.ts';
import { serveSocket, socketPath } from '../../host/socket.ts';
import { agentService, type ServiceParts } from '../api/service.ts';
import type { Store } from '../store/store.ts';

/** Serves the calls of a store on a Unix socket and names that socket in the store's owner record. */
export async function serveStore(
  store: Store,
  parts: ServiceParts,
): Promise<{ socket: string; close: () => Promise<void> }> {
  const socket = await socketPath(Buffer.from(store.config.storeId).toString('hex'));
  const service = agentService(parts);
  const routes = (router: ConnectRouter) => void router.service(AgentService, service);
  const server = await serveSocket(socket, routes, [serverErrors]);
  await store.listenOn(socket);
  return { socket, close: server.close };
}
