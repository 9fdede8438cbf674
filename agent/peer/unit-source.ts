import { setTimeout as sleep } from 'node:timers/promises';
import { LightkeeperError } from '../../core/errors.ts';
import type { Follower } from './followers.ts';

/** Time limit of one request for units, in milliseconds. */
export const REQUEST_TIMEOUT_MS = 120_000;

/** A peer that can be asked for units. */
export interface UnitSource {
  /** Name for people. */
  readonly name: string;
  /** Asks for units, at most 4,096, and has their frames stored. Resolves with those that the peer lacks. */
  readonly request: (ids: readonly Buffer[]) => Promise<Buffer[]>;
  /** Ends the connection, if it has one of its own. */
  readonly close: () => void;
}

/** A peer that is connected, and can be opened as a source of units. */
export interface UnitPeer {
  /** Name of a follower, or URL of a source. */
  readonly name: string;
  /** Whether this agent follows the graph there. */
  readonly isSource: boolean;
  readonly open: () => UnitSource;
}

/** Returns a connected follower as a source of units. UNAVAILABLE once it has left, DEADLINE if it takes too long. */
// What it sends comes back on its stream, where the agent stores it.
export function followerSource(follower: Follower): UnitSource {
  const { name } = follower;
  return {
    name,
    request: async (ids) => {
      if (follower.requestUnits === undefined)
        throw new LightkeeperError('UNAVAILABLE', `Cannot ask "${name}" for units: it is not connected`);
      const ended = new AbortController();
      const late = sleep(REQUEST_TIMEOUT_MS, undefined, { signal: ended.signal, ref: false }).then(() => {
        throw new LightkeeperError('DEADLINE', `Cannot ask "${name}" for units: it does not reply in time`);
      });
      late.catch(() => {});
      try {
        return await Promise.race([follower.requestUnits(ids), late]);
      } finally {
        ended.abort();
      }
    },
    close: () => {},
  };
}
