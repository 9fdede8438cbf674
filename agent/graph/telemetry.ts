import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { LightkeeperError } from '../../core/errors.ts';
import type { Snapshot } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value, type GraphStats } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { AgentMetrics } from './metrics.ts';

/** Updates the metrics of one graph and decides which of its snapshots are reported. */
export class Telemetry {
  readonly #graphId: string;
  readonly #metrics: AgentMetrics;
  /** Id and grade of the snapshot that was reported last; empty before the first. */
  #reportedId = '';
  #reportedGrade = Grade_Value.UNGRADED;

  constructor(graphId: string, metrics: AgentMetrics) {
    this.#graphId = graphId;
    this.#metrics = metrics;
  }

  /** Counts a snapshot, whatever requested it. Returns whether it is new, or graded differently. */
  record(snapshot: Snapshot, retries: number): boolean {
    const graph_id = this.#graphId;
    if (retries > 0) this.#metrics.tornRetries.inc({ graph_id }, retries);
    if (snapshot.usable && snapshot.confirmedAt !== undefined)
      this.confirm(timestampMs(snapshot.confirmedAt));
    this.#metrics.role.set({ graph_id }, 2);
    this.#metrics.epoch.set({ graph_id }, Number(snapshot.position?.epoch ?? 1n));
    const isRegraded = snapshot.snapshotId === this.#reportedId && snapshot.grade !== this.#reportedGrade;
    // The first snapshot is reported even if it is unchanged, because the directory is protected from then on.
    if (snapshot.unchanged && this.#reportedId !== '' && !isRegraded) return false;
    this.#reportedId = snapshot.snapshotId;
    this.#reportedGrade = snapshot.grade;
    if (snapshot.stats !== undefined) this.#countGraph(snapshot.stats);
    if (!snapshot.unchanged) this.#countSnapshot(snapshot);
    return true;
  }

  /** Records that the directory equals its newest usable point, at a time in milliseconds since 1970. */
  confirm(atMs: number): void {
    this.#metrics.lastValid.set({ graph_id: this.#graphId }, atMs / 1000);
  }

  /** Counts a failed capture. */
  fail(error: LightkeeperError): void {
    this.#metrics.errors.inc({ graph_id: this.#graphId, reason: error.code.toLowerCase() });
  }

  #countSnapshot(snapshot: Snapshot): void {
    const graph_id = this.#graphId;
    this.#metrics.snapshots.inc({ graph_id, grade: Grade_Value[snapshot.grade] });
    this.#metrics.sizeBytes.set({ graph_id }, Number(snapshot.rawBytes));
    this.#metrics.storedBytes.set({ graph_id }, Number(snapshot.storedBytes));
    this.#metrics.duration.observe({ graph_id }, Number(snapshot.durationMs) / 1000);
  }

  #countGraph({ documents, entities, relations, vectors }: GraphStats): void {
    const graph_id = this.#graphId;
    this.#metrics.documents.set({ graph_id }, Number(documents));
    this.#metrics.entities.set({ graph_id }, Number(entities));
    this.#metrics.relations.set({ graph_id }, Number(relations));
    this.#metrics.vectors.set({ graph_id }, Number(vectors));
  }
}
