import type { AgentClient, ReachOptions } from '../agent/main.ts';

/** Runs calls against a store. What serves them is loaded only now: --help does without. */
export async function withStore<T>(
  root: string,
  options: ReachOptions,
  run: (client: AgentClient) => Promise<T>,
): Promise<T> {
  const agent = await import('../agent/main.ts');
  return await agent.withStore(root, options, run);
}
