import { LightkeeperError } from '../../core/errors.ts';
import type { Hello } from '../../gen/lightkeeper/v1/peer_pb.ts';

/** Oldest and newest protocol between agents that this version speaks. */
export const PROTOCOL_MIN = 1;
export const PROTOCOL_MAX = 1;

/** Most entries of a position log or list of snapshots in one message. */
export const PART_ENTRIES_MAX = 1000;
/** Most snapshots that one request names. */
export const OFFERS_WANTED_MAX = 64;

/** Most characters of the name of an agent, and of its version. */
export const AGENT_NAME_MAX = 255;
export const VERSION_MAX = 64;

/** Returns the newest protocol that both sides speak. TOO_OLD or TOO_NEW if there is none. */
export function chooseProtocol({ protocolMin, protocolMax, version }: Hello): number {
  const chosen = Math.min(protocolMax, PROTOCOL_MAX);
  if (chosen >= protocolMin && chosen >= PROTOCOL_MIN) return chosen;
  const [code, side] =
    protocolMax < PROTOCOL_MIN ? (['TOO_OLD', 'follower'] as const) : (['TOO_NEW', 'source'] as const);
  throw new LightkeeperError(
    code,
    `Cannot follow: the follower speaks protocols ${protocolMin} to ${protocolMax}, the source ${PROTOCOL_MIN} to ${PROTOCOL_MAX}`,
    {
      hint: `update Lightkeeper on the ${side}${version === '' ? '' : `; the follower has version ${version}`}`,
    },
  );
}
