import type { AgentClient, ConnectOptions } from '../agent/main.ts';

// The agent is loaded only here, as --help must start fast.
/** Runs calls against a store. */
export async function withStore<T>(
  root: string,
  options: ConnectOptions,
  run: (client: AgentClient) => Promise<T>,
): Promise<T> {
  const agent = await import('../agent/main.ts');
  return await agent.withStore(root, options, run);
}
