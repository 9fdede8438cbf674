import { LightkeeperError } from '../errors.ts';

/** When a snapshot counts as protected: `async` at its commit, `quorum` when enough standbys hold it, or all do. */
export type AckMode =
  | { readonly kind: 'async' }
  | { readonly kind: 'quorum'; readonly count: number }
  | { readonly kind: 'all' };

/** Parses an ack mode: `async`, `quorum(n)` or `all`. INVALID_ARGUMENT for anything else. */
export function parseAckMode(text: string): AckMode {
  if (text === 'async' || text === 'all') return { kind: text };
  const [, count] = /^quorum\(([1-9][0-9]?)\)$/.exec(text) ?? [];
  if (count === undefined)
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      `Cannot use "${text}" as an ack mode: there is none of that name`,
      {
        hint: 'use async, quorum(1) or all',
      },
    );
  return { kind: 'quorum', count: Number(count) };
}

/** Number of standbys that must hold a snapshot before it is protected. */
export function neededAcks(mode: AckMode, standbys: number): number {
  switch (mode.kind) {
    case 'async':
      return 0;
    case 'quorum':
      return mode.count;
    case 'all':
      return standbys;
  }
}

/**
 * Returns the place of the newest protected snapshot; -Infinity if none is. `positions` has the place that each
 * standby acknowledged, -Infinity for none; `newest` is the place of the newest snapshot. Later places are higher.
 */
export function protectedPlace(mode: AckMode, positions: readonly number[], newest: number): number {
  const needed = neededAcks(mode, positions.length);
  // With "all" and no standby there is nobody whose loss could be waited for, but nobody who holds a copy either.
  if (mode.kind === 'async') return newest;
  if (needed === 0 || needed > positions.length) return Number.NEGATIVE_INFINITY;
  return positions.toSorted((a, b) => b - a)[needed - 1] ?? Number.NEGATIVE_INFINITY;
}
