import { create } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import {
  type AddTargetRequest,
  type CheckTargetsRequest,
  type CheckTargetsResponse,
  CheckTargetsResponseSchema,
  type ListTargetsResponse,
  ListTargetsResponseSchema,
  type RemoveTargetResponse,
  RemoveTargetResponseSchema,
  type Target,
  TargetSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { TargetSettings } from '../config/settings.ts';
import { followerView } from '../peer/follower-view.ts';
import type { Followers } from '../peer/followers.ts';
import { checkTarget } from '../peer/target-health.ts';
import type { TargetList } from '../peer/target-list.ts';
import type { Store } from '../store/store.ts';

/** The parts of an agent that calls about targets use. */
export interface TargetParts {
  readonly store: Store;
  readonly targets: TargetList;
  /** Undefined where no agent runs. */
  readonly followers: Followers | undefined;
}

/** Adds a target, or replaces the added one of its name. */
export async function addTarget(
  parts: TargetParts,
  { name, certificate, graphIds, bandwidth, noStandby }: AddTargetRequest,
): Promise<Target> {
  await parts.targets.load();
  await parts.targets.add({
    name,
    certificate: certificate === '' ? name : certificate,
    graphs: graphIds,
    bytesPerSecond: bandwidth === 0n ? undefined : Number(bandwidth),
    standby: !noStandby,
  });
  return await targetView(parts, named(parts, name));
}

/** Lists the targets with their streams. */
export async function listTargets(parts: TargetParts): Promise<ListTargetsResponse> {
  await parts.targets.load();
  const targets = await Promise.all(parts.targets.list().map((target) => targetView(parts, target)));
  return create(ListTargetsResponseSchema, { targets });
}

/** Removes an added target, and ends its streams. */
export async function removeTarget(parts: TargetParts, name: string): Promise<RemoveTargetResponse> {
  await parts.targets.load();
  await parts.targets.remove(name);
  const reason = new LightkeeperError('REFUSED', `Cannot follow any more: target "${name}" was removed`, {
    hint: `on the source: lightkeeper targets add ${name}`,
  });
  parts.followers?.remove(name, reason);
  return create(RemoveTargetResponseSchema, { name });
}

/** Checks targets. REFUSED where no agent runs, NOT_FOUND for a name that no target has. */
export async function checkTargets(
  parts: TargetParts,
  { name, deep }: CheckTargetsRequest,
): Promise<CheckTargetsResponse> {
  const { store, followers } = parts;
  if (followers === undefined) {
    throw new LightkeeperError('REFUSED', 'Cannot check targets: no agent runs on this store', {
      hint: 'start one with lightkeeper up or lightkeeper agent',
    });
  }
  const wanted = name === '' ? parts.targets.list() : [named(parts, name)];
  const targets = await Promise.all(wanted.map((target) => checkTarget(target, { store, followers, deep })));
  return create(CheckTargetsResponseSchema, { targets });
}

function named({ targets }: TargetParts, name: string): TargetSettings {
  const found = targets.list().find((target) => target.name === name);
  if (found !== undefined) return found;
  throw new LightkeeperError('NOT_FOUND', `Cannot find target "${name}": there is none of that name`, {
    hint: 'run lightkeeper targets list',
  });
}

async function targetView(
  { store, targets, followers }: TargetParts,
  target: TargetSettings,
): Promise<Target> {
  const { name, certificate, graphs, bytesPerSecond, standby } = target;
  const view = create(TargetSchema, {
    name,
    certificate,
    graphIds: [...graphs],
    bandwidth: BigInt(bytesPerSecond ?? 0),
    standby,
    fromSettings: targets.isConfigured(name),
  });
  for (const follower of followers?.list() ?? [])
    if (follower.name === name && followers !== undefined)
      view.followers.push(await followerView(store, followers, follower));
  return view;
}
