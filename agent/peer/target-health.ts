import { create } from '@bufbuild/protobuf';
import { hex } from '../../core/unit.ts';
import {
  HealthState_Value,
  type TargetHealth,
  TargetHealthSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { TargetSettings } from '../config/settings.ts';
import type { Store } from '../store/store.ts';
import type { Follower, Followers } from './followers.ts';
import { lagOf } from './lag.ts';
import { isOffered } from './listing.ts';
import { isInScope } from './targets.ts';

/** Snapshots by which a healthy follower may be behind. */
const BEHIND_MAX = 3n;
/** Milliseconds by which it may be behind. */
const BEHIND_MS_MAX = 30_000n;
/** Milliseconds that a deep check waits for a follower. */
const DEEP_TIMEOUT_MS = 30_000;

/** What a check of a target needs. */
export interface TargetCheck {
  readonly store: Store;
  readonly followers: Followers;
  /** Also compares the snapshots of both ends by their digests. */
  readonly deep: boolean;
}

/** Checks whether a target follows what it may, and holds what it should. */
export async function checkTarget(target: TargetSettings, check: TargetCheck): Promise<TargetHealth> {
  const health = create(TargetHealthSchema, { name: target.name, health: HealthState_Value.HEALTHY });
  const own = check.followers.list().filter(({ name }) => name === target.name);
  const graphs = (await check.store.index.graphs()).filter((graphId) => isInScope(target, graphId));
  const worsen = (state: HealthState_Value, reason: string) => {
    health.health = Math.max(health.health, state);
    health.reasons.push(reason);
  };
  if (own.length === 0) worsen(HealthState_Value.UNREACHABLE, 'it has not called since this agent started');
  for (const graphId of graphs) {
    const follower = own.find((one) => one.graphId === graphId);
    if (follower === undefined) {
      if (own.length > 0) worsen(HealthState_Value.DEGRADED, `it does not follow "${graphId}"`);
      continue;
    }
    await checkFollower(follower, check, worsen);
    if (check.deep && follower.isConnected) await compareHoldings(follower, check, { health, worsen });
  }
  return health;
}

type Worsen = (state: HealthState_Value, reason: string) => void;

async function checkFollower(follower: Follower, { store }: TargetCheck, worsen: Worsen): Promise<void> {
  const { graphId, held } = follower;
  if (!follower.isConnected) {
    const why = follower.lastError === '' ? '' : `: ${follower.lastError}`;
    worsen(HealthState_Value.UNREACHABLE, `it is not connected for "${graphId}"${why}`);
    return;
  }
  const lag = await lagOf(store, graphId, held);
  if (lag.snapshots > BEHIND_MAX || (lag.snapshots > 0n && lag.ms > BEHIND_MS_MAX))
    worsen(HealthState_Value.DEGRADED, `it is ${lag.snapshots} points behind in "${graphId}"`);
}

/** Compares what a follower holds with what this store has. */
async function compareHoldings(
  { graphId, requestHoldings }: Follower,
  { store }: TargetCheck,
  { health, worsen }: { readonly health: TargetHealth; readonly worsen: Worsen },
): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), DEEP_TIMEOUT_MS);
  });
  const holdings = await Promise.race([requestHoldings?.(), late]).catch(() => undefined);
  clearTimeout(timer);
  if (holdings === undefined) {
    worsen(HealthState_Value.DEGRADED, `it did not say in time what it holds of "${graphId}"`);
    return;
  }
  let [snapshots, held, damaged] = [0n, 0n, 0n];
  for await (const [, state] of store.index.records({ graphId })) {
    if (!isOffered(state)) continue;
    const digest = hex(state.digest);
    snapshots += 1n;
    if (holdings.whole.has(digest)) held += 1n;
    if (holdings.damaged.has(digest)) damaged += 1n;
  }
  health.snapshots = (health.snapshots ?? 0n) + snapshots;
  health.held = (health.held ?? 0n) + held;
  if (damaged > 0n)
    worsen(HealthState_Value.DEGRADED, `${damaged} of its points of "${graphId}" are damaged`);
  if (held === 0n && snapshots > 0n)
    worsen(HealthState_Value.DEGRADED, `it holds no point of "${graphId}" whole`);
}
