import { type Client, createClient, createRouterTransport } from '@connectrpc/connect';
import { ioCode, LightkeeperError } from '../../core/errors.ts';
import { checkGraphId } from '../../core/manifest.ts';
import { AgentService } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grader } from '../grade/grader.ts';
import { type Holder, readHolder } from '../store/owner.ts';
import { Store } from '../store/store.ts';
import { recoverConfig } from '../store/upkeep/repair.ts';
import { checkDirectory } from '../watch/scan.ts';
import { fromConnect, isLost, serverErrors } from './errors.ts';
import { agentService } from './service.ts';

/** The calls that a store answers, in this process or over the socket of the agent that holds it. */
export type AgentClient = Client<typeof AgentService>;

/** An agent that takes longer to say what there is does not answer at all. */
const ANSWERS_WITHIN_MS = 10_000;

/** How a store is to be reached. */
export interface ReachOptions {
  /** Make the store if there is none. */
  readonly create?: boolean;
  /** The call changes nothing: a store that cannot be written to will do. */
  readonly reading?: boolean;
  /** The directory that is to be protected: refused, before a store is made, if it cannot be. */
  readonly protects?: Uint8Array;
  /** Its name, likewise. */
  readonly graphId?: string;
  /** Write the config again if it is beyond reading. */
  readonly recover?: boolean;
}

/** Runs calls against a store, whoever holds it. Errors come out as those of this project. */
export async function withStore<T>(
  root: string,
  options: ReachOptions,
  run: (client: AgentClient) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const reached = await reach(root, options);
    try {
      return await run(reached.client);
    } catch (error) {
      if (attempt === 1 && reached.again()) continue;
      throw isLost(error) ? await reached.lost(error) : fromConnect(error);
    } finally {
      await reached.close();
    }
  }
}

/** A way to a store, whoever holds it. */
interface Reached {
  readonly client: AgentClient;
  readonly close: () => Promise<void>;
  /** What to say of a call that ended without an answer. */
  readonly lost: (error: unknown) => Promise<LightkeeperError>;
  /** Whether the call failed on a damaged index, which is made again when the store is next opened. */
  readonly again: () => boolean;
}

async function reach(root: string, options: ReachOptions): Promise<Reached> {
  if (options.recover === true) await recoverConfig(root);
  try {
    const { protects } = options;
    if (options.graphId !== undefined && options.graphId !== '') checkGraphId(options.graphId);
    if (protects !== undefined && (await readHolder(root)) === undefined) checkDirectory(protects, root);
    const store = await openStore(root, options);
    return inProcess(store);
  } catch (error) {
    if (!(error instanceof LightkeeperError) || error.code !== 'IN_USE') throw error;
    const holder = await readHolder(root);
    if (holder === undefined || holder.socket === '') throw error;
    return await overSocket(holder, error).catch(async (unreachable: unknown) => {
      // It may have ended since it was asked for the store.
      const store = await openStore(root, options).catch(() => undefined);
      if (store === undefined) throw unreachable;
      return inProcess(store);
    });
  }
}

async function openStore(root: string, options: ReachOptions): Promise<Store> {
  const create = options.create === true;
  try {
    return await Store.open(root, { create });
  } catch (error) {
    const closed = ['EROFS', 'EACCES', 'EPERM', 'ENOSPC', 'EDQUOT'].includes(ioCode(error) ?? '');
    if (options.reading !== true || !closed) throw error;
    return await Store.open(root, { readOnly: true });
  }
}

/** Returns a client of a store that is open in this process. */
export function inProcessClient(store: Store): AgentClient {
  const service = agentService({ taker: { store, grader: new Grader(store) } });
  const transport = createRouterTransport(
    (router) => {
      router.service(AgentService, service);
    },
    { router: { interceptors: [serverErrors] } },
  );
  return createClient(AgentService, transport);
}

function inProcess(store: Store): Reached {
  return {
    client: inProcessClient(store),
    close: () => store.close(),
    lost: (error) => Promise.resolve(fromConnect(error)),
    again: () => store.index.damaged,
  };
}

async function overSocket(holder: Holder, inUse: LightkeeperError): Promise<Reached> {
  const { connectSocket } = await import('../../host/socket.ts');
  const { transport, close } = await connectSocket(holder.socket).catch((error: unknown) => {
    throw new LightkeeperError('IN_USE', inUse.message, {
      hint: `its socket ${holder.socket} does not answer from here (${String(error)}); run this where process ${holder.pid} runs, or stop it`,
      cause: error,
    });
  });
  const client = createClient(AgentService, transport);
  const { pid } = holder;
  const hangs = (cause: unknown) =>
    new LightkeeperError('IN_USE', `${inUse.message} and does not answer`, {
      hint: `look at process ${pid}, or stop it`,
      cause,
    });
  // A process that was halted still has its socket: without a limit the first call would wait for ever.
  await client
    .listSnapshots({ pageSize: 1 }, { timeoutMs: ANSWERS_WITHIN_MS })
    .catch(async (error: unknown) => {
      if (!isLost(error)) return;
      await close();
      throw hangs(error);
    });
  const lost = async (error: unknown) => {
    const again = await connectSocket(holder.socket).catch(() => undefined);
    if (again === undefined) {
      const state = `process ${pid}, which had the store, ended meanwhile`;
      return new LightkeeperError('UNAVAILABLE', `Cannot finish: ${state}`, {
        hint: 'run it again',
        cause: error,
      });
    }
    await again.close();
    return hangs(error);
  };
  return { client, close, lost, again: () => false };
}
