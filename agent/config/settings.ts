import { create } from '@bufbuild/protobuf';
import { LOSS_SHARE } from '../../core/lightrag/loss.ts';
import { type RetentionPolicy, RetentionPolicySchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { CaptureHooks } from '../instance/hooks.ts';
import type { InstanceSettings } from '../instance/probe.ts';

/** One graph that an agent guards. */
export interface GraphSettings {
  readonly graphId: string;
  /** Absolute. */
  readonly dir: Uint8Array;
  /** Names (with * and ?) that are not captured. */
  readonly exclude: readonly string[];
  /** The least quiet window, in milliseconds; the learned one may be longer. */
  readonly quietMs: number;
  /** Captures start this far apart, at least. */
  readonly minIntervalMs: number;
  /** Guard each workspace, a direct subfolder with LightRAG's files, as a graph of its own: `ID.W`. */
  readonly split: boolean;
  /** What may be lost from one point to the next without an alarm, as a share. */
  readonly lossShare: number;
  readonly instance: InstanceSettings | undefined;
  readonly hooks: CaptureHooks | undefined;
  readonly retention: RetentionPolicy;
}

/** All that an agent is told. */
export interface AgentSettings {
  /** Absolute. */
  readonly store: string;
  readonly graphs: readonly GraphSettings[];
  readonly http: { readonly host: string; readonly port: number; readonly fallback: boolean };
  /** Free bytes that must remain; undefined for the formula, 0 for no check. */
  readonly reserveBytes: bigint | undefined;
  /** False: no captures, but the endpoints stay. */
  readonly captures: boolean;
  /** A tagged point at least this often, in milliseconds; undefined for none. */
  readonly intervalMs?: number;
  /** Capture after every settled change; false: at the interval alone. */
  readonly continuous: boolean;
}

/** What holds for a graph where nothing else is said. */
export const GRAPH_DEFAULTS = {
  exclude: [],
  quietMs: 300,
  minIntervalMs: 1000,
  split: true,
  lossShare: LOSS_SHARE,
  instance: undefined,
  hooks: undefined,
} as const satisfies Partial<GraphSettings>;

const HOUR_MS = 3_600_000;

/** The retention that holds where nothing else is said. */
export function defaultRetention(): RetentionPolicy {
  return create(RetentionPolicySchema, {
    withinMs: BigInt(HOUR_MS),
    hourly: 48,
    daily: 30,
    weekly: 8,
    monthly: 12,
  });
}
