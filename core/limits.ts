import { create, type JsonValue, toJson } from '@bufbuild/protobuf';
import {
  type ExceededLimit,
  ExceededLimitSchema,
  type GraphStatus,
  LimitKind_Value,
} from '../gen/lightkeeper/v1/agent_pb.ts';

/** How old the newest usable point of a graph may be, and how far a follower behind, in milliseconds. */
export interface GraphLimits {
  readonly rpoMs: number | undefined;
  readonly lagMs: number | undefined;
}

/** What the limits of a graph apply to. */
export type Limited = Pick<GraphStatus, 'rpoMs' | 'source'> & {
  readonly followers: readonly Pick<GraphStatus['followers'][number], 'name' | 'lag' | 'held'>[];
};

/**
 * Returns the limits that a graph is outside of. The age of the points is the primary's matter: a standby, which knows
 * its source, is judged by its lag.
 */
export function exceededLimits(
  { rpoMs: rpoLimit, lagMs: lagLimit }: GraphLimits,
  { rpoMs, source, followers }: Limited,
): ExceededLimit[] {
  const exceeded: ExceededLimit[] = [];
  const check = (kind: LimitKind_Value, limit: number, actual: bigint | undefined, follower = '') => {
    if (actual !== undefined && actual <= limit) return;
    const actualMs = actual === undefined ? {} : { actualMs: actual };
    exceeded.push(create(ExceededLimitSchema, { kind, limitMs: BigInt(limit), ...actualMs, follower }));
  };
  if (rpoLimit !== undefined && source === undefined) check(LimitKind_Value.RPO, rpoLimit, rpoMs);
  if (lagLimit === undefined) return exceeded;
  if (source !== undefined) check(LimitKind_Value.LAG, lagLimit, source.lag?.ms);
  for (const { name, held, lag } of followers)
    check(LimitKind_Value.LAG, lagLimit, held === undefined ? undefined : (lag?.ms ?? 0n), name);
  return exceeded;
}

/** Returns exceeded limits as the API prints them, for the body of a probe. */
export function limitsJson(exceeded: readonly ExceededLimit[]): JsonValue[] {
  return exceeded.map((one) => toJson(ExceededLimitSchema, one, { alwaysEmitImplicit: true }));
}
