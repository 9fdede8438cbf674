import { create } from '@bufbuild/protobuf';
import type { AckMode } from '../../core/following/protection.ts';
import { LOSS_SHARE } from '../../core/lightrag/loss.ts';
import type { GraphLimits } from '../../core/limits.ts';
import { type RetentionPolicy, RetentionPolicySchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { ListenAddress } from '../../host/listen.ts';
import type { TlsFiles } from '../../host/tls.ts';
import type { CaptureHooks } from '../instance/hooks.ts';
import type { InstanceSettings } from '../instance/probe.ts';

/** One graph that an agent guards. */
export interface GraphSettings {
  readonly graphId: string;
  /** Whether the id was given, not derived from the name of the directory. */
  readonly isIdGiven: boolean;
  /** Absolute path of the directory, in bytes. */
  readonly dir: Uint8Array;
  /** Patterns of names that are not captured. */
  readonly exclude: readonly string[];
  /** Shortest quiet window, in milliseconds; the learned one may be longer. */
  readonly quietMs: number;
  /** Shortest time between the starts of two captures, in milliseconds. */
  readonly minIntervalMs: number;
  /** Whether each workspace (a direct subfolder with LightRAG's files) is a graph of its own: `ID.W`. */
  readonly split: boolean;
  /** Share of documents or entities that may disappear between two snapshots without an alarm. */
  readonly lossShare: number;
  readonly instance: InstanceSettings | undefined;
  /** Instances of its workspaces, by the names that the settings give them. */
  readonly workspaceInstances: ReadonlyMap<string, InstanceSettings>;
  readonly hooks: CaptureHooks | undefined;
  readonly retention: RetentionPolicy;
  /** When a snapshot counts as protected. */
  readonly ack: AckMode;
  readonly limits: GraphLimits;
  /** Whether to go on with the graph if another store captured it; a flag of the start, not a setting. */
  readonly takeOver?: boolean;
}

/** A graph that an agent follows: another agent captures it. */
export interface FollowedSettings
  extends Pick<GraphSettings, 'graphId' | 'split' | 'lossShare' | 'retention' | 'limits'> {
  /** URL of the gRPC port of the agent that holds the graph. */
  readonly follow: string;
}

/** An agent that may follow graphs of this one. */
export interface TargetSettings {
  readonly name: string;
  /** Common name in its certificate; the name itself by default. */
  readonly certificate: string;
  /** Graphs that it may follow, with their workspaces; empty for all. */
  readonly graphs: readonly string[];
  /** Highest rate of sending in bytes per second; undefined is no limit. */
  readonly bytesPerSecond: number | undefined;
  /** Whether it may be promoted, so that its copies count for `ack`. */
  readonly standby: boolean;
}

/** A listener of an agent. */
export interface ListenerSettings extends ListenAddress {
  /** Whether it speaks TLS. */
  readonly secure: boolean;
}

/** Settings of an agent. */
export interface AgentSettings {
  /** Name by which peers know this agent. */
  readonly name: string;
  /** Absolute path of the state folder. */
  readonly state: string;
  /** Absolute path of the store. */
  readonly store: string;
  readonly graphs: readonly GraphSettings[];
  readonly followed: readonly FollowedSettings[];
  readonly targets: readonly TargetSettings[];
  /** Metrics and probes. */
  readonly http: ListenerSettings;
  /** Calls of other agents. */
  readonly grpc: ListenerSettings;
  /** Files of the agent's certificate; undefined without TLS. */
  readonly tls: TlsFiles | undefined;
  /** Host headers that are answered off loopback; undefined is the machine's own addresses and names. */
  readonly hosts: readonly string[] | undefined;
  /** Free bytes that must remain; undefined is the formula, 0 is no check. */
  readonly reserveBytes: bigint | undefined;
  /** Time in which every pack is read again, in milliseconds; 0 is never. */
  readonly scrubMs: number;
  /** False: no captures; the endpoints are served. */
  readonly captures: boolean;
  /** Longest time between two tagged snapshots, in milliseconds; undefined is no limit. */
  readonly intervalMs?: number;
  /** True: a capture after every settled change. False: at the interval alone. */
  readonly continuous: boolean;
}

/** Defaults of a graph. */
export const GRAPH_DEFAULTS = {
  exclude: [],
  quietMs: 300,
  minIntervalMs: 1000,
  split: true,
  lossShare: LOSS_SHARE,
  instance: undefined,
  workspaceInstances: new Map(),
  hooks: undefined,
  ack: { kind: 'async' },
  limits: { rpoMs: undefined, lagMs: undefined },
} as const satisfies Partial<GraphSettings>;

const HOUR_MS = 3_600_000;

/** Default time in which every pack is read again, in milliseconds. */
export const SCRUB_MS = 14 * 24 * HOUR_MS;

/** Returns the default retention. */
export function defaultRetention(): RetentionPolicy {
  return create(RetentionPolicySchema, {
    withinMs: BigInt(HOUR_MS),
    hourly: 48,
    daily: 30,
    weekly: 8,
    monthly: 12,
  });
}
