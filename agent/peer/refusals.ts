import { LightkeeperError } from '../../core/errors.ts';
import type { EpochOrder } from '../../core/following/history.ts';

/** Refuses a source whose epoch is older than the follower's, or of another primary. `order` is that of the source. */
export function checkEpochs(
  order: EpochOrder,
  { graphId, source }: { readonly graphId: string; readonly source: string },
): void {
  if (order === 'rival') {
    throw new LightkeeperError(
      'REFUSED',
      `Cannot follow "${graphId}" at "${source}": both sides have minted the same epoch`,
      { hint: 'two primaries wrote this graph; on the one to go on with, start the agent with --take-over' },
    );
  }
  if (order === 'older') {
    throw new LightkeeperError(
      'REFUSED',
      `Cannot follow "${graphId}" at "${source}": it has an older epoch than this store`,
      { hint: 'it is an old primary: let it follow the present one' },
    );
  }
}

/** Returns the error of a source that lacks the newest points of the follower. */
export function sourceBehind(graphId: string): LightkeeperError {
  return new LightkeeperError(
    'REFUSED',
    `Cannot follow "${graphId}": the source lacks the newest points of this store`,
    { hint: 'if the source has lost them, start it with --take-over: they become a fork here' },
  );
}

/** Returns the error of two histories of one epoch that differ. */
export function forkedEpoch(graphId: string): LightkeeperError {
  return new LightkeeperError(
    'REFUSED',
    `Cannot follow "${graphId}": its history differs from this store's within one epoch`,
    {
      hint: 'decide which side goes on, and start its agent with --take-over: the points of the other become a fork',
    },
  );
}

/** Returns the error of a source that breaks a rule of the protocol. */
export function brokenRule(state: string): LightkeeperError {
  return new LightkeeperError('PEER_INVALID', `Cannot follow the source: ${state}`);
}
