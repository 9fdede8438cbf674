import { dirname, join } from 'node:path';
import { type Client, createClient, createRouterTransport } from '@connectrpc/connect';
import { ioCode, LightkeeperError } from '../../core/errors.ts';
import { checkGraphId } from '../../core/graph-id.ts';
import { AgentService } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { fromConnect, isConnectionLost, serverErrors } from '../../host/rpc-errors.ts';
import { Grader } from '../grade/grader.ts';
import { TARGETS_FILE, TargetList } from '../peer/target-list.ts';
import { type Holder, readHolder } from '../store/owner.ts';
import { Store } from '../store/store.ts';
import { recoverConfig } from '../store/upkeep/repair.ts';
import { checkDirectory } from '../watch/scan.ts';
import { agentService } from './service.ts';

/** A client of AgentService, in this process or over the socket of the agent that has the store open. */
export type AgentClient = Client<typeof AgentService>;

/** Time limit of the first call to another process's agent, in milliseconds. */
const FIRST_REPLY_TIMEOUT_MS = 10_000;

/** Options of `withStore`. */
export interface ConnectOptions {
  /** Creates the store if there is none. */
  readonly create?: boolean;
  /** The call changes nothing, so a store that cannot be written to is opened read-only. */
  readonly reading?: boolean;
  /** Directory to be protected. It is checked before a store is created. */
  readonly protects?: Uint8Array;
  /** Graph id of that directory, checked likewise. */
  readonly graphId?: string;
  /** Writes the config again if neither copy can be read. */
  readonly recover?: boolean;
  /** State folder, for calls about targets where no agent runs; the folder of the store by default. */
  readonly state?: string;
}

/** Runs `run` with a client of a store, which this process opens unless an agent has it open. */
// Errors of calls are converted to `LightkeeperError`.
export async function withStore<T>(
  root: string,
  options: ConnectOptions,
  run: (client: AgentClient) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const connection = await connect(root, options);
    try {
      return await run(connection.client);
    } catch (error) {
      if (attempt === 1 && connection.canRetry()) continue;
      throw isConnectionLost(error) ? await connection.connectionError(error) : fromConnect(error);
    } finally {
      await connection.close();
    }
  }
}

/** An open connection to a store, in this process or over a socket. */
interface Connection {
  readonly client: AgentClient;
  readonly close: () => Promise<void>;
  /** Returns the error of a call that ended without a response. */
  readonly connectionError: (error: unknown) => Promise<LightkeeperError>;
  /** Reports whether the call failed on a damaged index, which the next open rebuilds. */
  readonly canRetry: () => boolean;
}

async function connect(root: string, options: ConnectOptions): Promise<Connection> {
  if (options.recover === true) await recoverConfig(root);
  try {
    const { protects } = options;
    if (options.graphId !== undefined && options.graphId !== '') checkGraphId(options.graphId);
    if (protects !== undefined && (await readHolder(root)) === undefined) checkDirectory(protects, root);
    const store = await openStore(root, options);
    return inProcess(store, options.state);
  } catch (error) {
    if (!(error instanceof LightkeeperError) || error.code !== 'IN_USE') throw error;
    const holder = await readHolder(root);
    if (holder === undefined || holder.socket === '') throw error;
    return await overSocket(holder, error).catch(async (unreachable: unknown) => {
      // The holder may have ended meanwhile.
      const store = await openStore(root, options).catch(() => undefined);
      if (store === undefined) throw unreachable;
      return inProcess(store, options.state);
    });
  }
}

async function openStore(root: string, options: ConnectOptions): Promise<Store> {
  const create = options.create === true;
  try {
    return await Store.open(root, { create });
  } catch (error) {
    const closed = ['EROFS', 'EACCES', 'EPERM', 'ENOSPC', 'EDQUOT'].includes(ioCode(error) ?? '');
    if (options.reading !== true || !closed) throw error;
    return await Store.open(root, { readOnly: true });
  }
}

/** Creates a client of a store that is open in this process. */
export function inProcessClient(store: Store, state = dirname(store.root)): AgentClient {
  const targets = new TargetList([], join(state, TARGETS_FILE));
  const service = agentService({ taker: { store, grader: new Grader(store) }, targets });
  const transport = createRouterTransport(
    (router) => {
      router.service(AgentService, service);
    },
    { router: { interceptors: [serverErrors] } },
  );
  return createClient(AgentService, transport);
}

function inProcess(store: Store, state: string | undefined): Connection {
  return {
    client: inProcessClient(store, state),
    close: () => store.close(),
    connectionError: (error) => Promise.resolve(fromConnect(error)),
    canRetry: () => store.index.damaged,
  };
}

async function overSocket(holder: Holder, inUse: LightkeeperError): Promise<Connection> {
  const { connectSocket } = await import('../../host/socket.ts');
  const { transport, close } = await connectSocket(holder.socket).catch((error: unknown) => {
    throw new LightkeeperError('IN_USE', inUse.message, {
      hint: `its socket ${holder.socket} cannot be reached from here (${String(error)}); run this where process ${holder.pid} runs, or stop it`,
      cause: error,
    });
  });
  const client = createClient(AgentService, transport);
  const { pid } = holder;
  const unresponsive = (cause: unknown) =>
    new LightkeeperError('IN_USE', `${inUse.message} and does not respond`, {
      hint: `check process ${pid}, or stop it`,
      cause,
    });
  // A suspended process still has its socket: without a limit the first call would wait for ever.
  await client
    .listSnapshots({ pageSize: 1 }, { timeoutMs: FIRST_REPLY_TIMEOUT_MS })
    .catch(async (error: unknown) => {
      if (!isConnectionLost(error)) return;
      await close();
      throw unresponsive(error);
    });
  const connectionError = async (error: unknown) => {
    const second = await connectSocket(holder.socket).catch(() => undefined);
    if (second === undefined) {
      const state = `process ${pid}, which had the store open, ended meanwhile`;
      return new LightkeeperError('UNAVAILABLE', `Cannot finish: ${state}`, {
        hint: 'run it again',
        cause: error,
      });
    }
    await second.close();
    return unresponsive(error);
  };
  return { client, close, connectionError, canRetry: () => false };
}
