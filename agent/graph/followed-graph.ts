import { create } from '@bufbuild/protobuf';
import type { LightkeeperError } from '../../core/errors.ts';
import { isAfter } from '../../core/following/schedule.ts';
import { exceededLimits, limitsJson } from '../../core/limits.ts';
import { epochOf } from '../../core/position.ts';
import { RateMeter } from '../../core/rate.ts';
import type { StoredSnapshot } from '../../core/snapshot.ts';
import { sameBytes } from '../../core/unit.ts';
import {
  FollowState_Value,
  type SourceStatus,
  SourceStatusSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { GraphHead } from '../../gen/lightkeeper/v1/peer_pb.ts';
import { monotonic, now } from '../../host/clock.ts';
import type { DialOptions } from '../../host/grpc/transport.ts';
import { Waiters } from '../../host/waiters.ts';
import type { FollowedSettings } from '../config/settings.ts';
import { graphStatus } from '../snapshots/queries.ts';
import { newestSnapshot } from '../snapshots/resolve.ts';
import { pruneIfNeeded } from '../snapshots/retention.ts';
import { snapshotView } from '../snapshots/views.ts';
import type { GraphEvents } from './graph.ts';
import type { AgentMetrics } from './metrics.ts';
import type { SnapshotTaker } from './take-snapshot.ts';
import { Telemetry } from './telemetry.ts';

/** Milliseconds between two records of an unchanged directory, each of which is a write. */
const CONFIRM_EVERY_MS = 5000;

/** The parts of a followed graph. */
export interface FollowedParts {
  readonly taker: SnapshotTaker;
  readonly metrics: AgentMetrics;
  readonly events: GraphEvents;
  /** Name of this agent. */
  readonly agent: string;
  readonly dial: DialOptions;
  /** Free bytes that must remain; undefined is the formula, 0 is no check. */
  readonly reserveBytes: bigint | undefined;
}

/** One graph that another agent captures: its state, readiness and retention here. `as-standby.ts` follows it. */
export class FollowedGraph {
  readonly settings: FollowedSettings;
  readonly parts: FollowedParts;
  readonly telemetry: Telemetry;
  #agent = '';
  #version = '';
  #isConnected = false;
  #isIdle = false;
  #head: GraphHead | undefined;
  #roundTripMs = 0;
  /** Time of the last record of an unchanged directory, in milliseconds since 1970; 0 before the first. */
  #confirmedMs = 0;
  #receivedBytes = 0;
  #error: LightkeeperError | undefined;
  readonly #rate = new RateMeter();
  readonly #waiters = new Waiters();

  constructor(settings: FollowedSettings, parts: FollowedParts) {
    this.settings = settings;
    this.parts = parts;
    this.telemetry = new Telemetry(settings.graphId, parts.metrics);
    parts.metrics.role.set({ graph_id: settings.graphId }, 1);
  }

  /** Whether the stream of the source is open. */
  get isConnected(): boolean {
    return this.#isConnected;
  }

  /** Records that the source has welcomed this follower. */
  connected(agent: string, version: string): void {
    this.#agent = agent;
    this.#version = version;
    this.#isConnected = true;
    this.#isIdle = false;
    this.#error = undefined;
    this.#waiters.wake();
  }

  /** Records that the stream has ended. Returns whether its reason is new. */
  disconnected(error: LightkeeperError): boolean {
    const isNew = this.#error?.message !== error.message;
    this.#isConnected = false;
    this.#error = error;
    const graph_id = this.settings.graphId;
    this.parts.metrics.replications.inc({ graph_id, result: 'failed' });
    this.parts.metrics.replicationErrors.inc({ graph_id, reason: error.code.toLowerCase() });
    this.#waiters.wake();
    return isNew;
  }

  /** Records received bytes. */
  received(bytes: number): void {
    this.#receivedBytes += bytes;
    const labels = { graph_id: this.settings.graphId, target: this.#agent, direction: 'received' };
    this.parts.metrics.replicationBytes.inc(labels, bytes);
    this.#isIdle = false;
    this.#rate.add(bytes, monotonic());
  }

  /** Records whether something remains to be fetched. */
  idle(isIdle: boolean): void {
    this.#isIdle = isIdle;
    this.#waiters.wake();
  }

  /** Records a snapshot as received and committed. */
  committed({ measured }: StoredSnapshot): void {
    const graph_id = this.settings.graphId;
    this.parts.metrics.replications.inc({ graph_id, result: 'done' });
    const seconds = Number(measured?.durationMs ?? 0n) / 1000;
    this.parts.metrics.replicationDuration.observe({ graph_id }, seconds);
  }

  /** Records the head of the graph at the source, and that the directory there was found equal to it. */
  async heard(head: GraphHead, roundTripMs: number): Promise<void> {
    this.#head = head;
    this.#roundTripMs = roundTripMs;
    const { graphId: graph_id } = this.settings;
    const { metrics } = this.parts;
    const labels = { graph_id, target: this.parts.agent };
    metrics.lagSnapshots.set(labels, Number(head.lag?.snapshots ?? 0n));
    metrics.lagBytes.set(labels, Number(head.lag?.bytes ?? 0n));
    metrics.lagSeconds.set(labels, Number(head.lag?.ms ?? 0n) / 1000);
    metrics.epoch.set({ graph_id }, Number(head.epoch?.number ?? 1n));
    await this.#confirm(head);
    this.#waiters.wake();
  }

  /** Records in the index that the source's directory equals the newest snapshot here. */
  async #confirm({ confirmedMsAgo, digest }: GraphHead): Promise<void> {
    const { store } = this.parts.taker;
    const { graphId } = this.settings;
    if (confirmedMsAgo === undefined || now() - this.#confirmedMs < CONFIRM_EVERY_MS) return;
    const own = await store.index.head(graphId);
    if (own === undefined || !sameBytes(own.digest, digest)) return;
    this.#confirmedMs = now();
    const batch = store.index.batch();
    store.index.local.putConfirmedAt(batch, graphId, now() - Number(confirmedMsAgo));
    await batch.write();
    this.telemetry.confirm(now() - Number(confirmedMsAgo));
  }

  /** Reports a snapshot that was received and graded. */
  async report(snapshot: StoredSnapshot): Promise<void> {
    const { graphId } = this.settings;
    const confirmedAtMs = await this.parts.taker.store.index.local.confirmedAt(graphId);
    const view = snapshotView(snapshot, { confirmedAtMs });
    if (this.telemetry.record(view, 0)) this.parts.events.snapshot(view);
    this.parts.metrics.role.set({ graph_id: graphId }, 1);
  }

  /** Resolves at the next change of the connection or of what remains to be fetched, or when the signal aborts. */
  async changed(signal: AbortSignal): Promise<void> {
    await this.#waiters.next(signal);
  }

  /** Returns the state of the source and of following it. */
  async source(): Promise<SourceStatus> {
    const newest = await newestSnapshot(this.parts.taker.store, this.settings.graphId);
    const isAtHead = this.#head === undefined || (newest !== undefined && !isBehind(newest, this.#head));
    return create(SourceStatusSchema, {
      url: this.settings.follow,
      agent: this.#agent,
      version: this.#version,
      state: !this.#isConnected
        ? FollowState_Value.DISCONNECTED
        : this.#isIdle && isAtHead
          ? FollowState_Value.CAUGHT_UP
          : FollowState_Value.CATCHING_UP,
      ...(this.#head?.lag === undefined ? {} : { lag: this.#head.lag }),
      roundTripMs: BigInt(Math.round(this.#roundTripMs)),
      receivedBytes: BigInt(this.#receivedBytes),
      bytesPerSecond: BigInt(Math.round(this.#rate.bytesPerSecond(monotonic()))),
      lastError: this.#error?.message ?? '',
    });
  }

  /** Reports whether this standby has a usable point and its source can be reached. */
  async readiness(): Promise<{ ok: boolean; body: Record<string, unknown> }> {
    const { graphId } = this.settings;
    const status = await graphStatus(this.parts.taker.store, graphId, '');
    const source = await this.source();
    const { state, lag } = source;
    const ok = status.lastUsableId !== undefined && state !== FollowState_Value.DISCONNECTED;
    const body = {
      graph: graphId,
      ready: ok,
      role: 'STANDBY',
      source: FollowState_Value[state],
      lastUsableId: status.lastUsableId ?? null,
      lag:
        lag === undefined
          ? null
          : { snapshots: String(lag.snapshots), bytes: String(lag.bytes), ms: String(lag.ms) },
      exceededLimits: limitsJson(exceededLimits(this.settings.limits, { ...status, source })),
      ...(this.#error === undefined
        ? {}
        : { error: { message: this.#error.message, hint: this.#error.hint } }),
    };
    return { ok, body };
  }

  /** Applies the retention of this graph, if it would remove anything. */
  async prune(): Promise<void> {
    const { graphId, retention } = this.settings;
    const { store } = this.parts.taker;
    const result = await pruneIfNeeded(store, graphId, retention);
    if (result !== undefined) this.parts.events.pruned(graphId, result);
  }

  /** Returns the lag that the source reported last, in snapshots and milliseconds; undefined before that. */
  get lag(): { readonly snapshots: number; readonly ms: number } | undefined {
    const lag = this.#head?.lag;
    return lag === undefined || !this.#isConnected
      ? undefined
      : { snapshots: Number(lag.snapshots), ms: Number(lag.ms) };
  }
}

/** Reports whether a snapshot lies before the head of the source. */
function isBehind({ manifest }: StoredSnapshot, head: GraphHead): boolean {
  const own = { epoch: epochOf(manifest).number, sequence: manifest.sequence };
  return isAfter({ epoch: head.epoch?.number ?? 0n, sequence: head.sequence }, own);
}
