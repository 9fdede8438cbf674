import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** Upper bounds of the buckets of durations, in seconds. */
const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

/** Milliseconds between two samples of the event loop's lag: the longest timer, so that there are none. */
// Sampling wakes an idle agent a hundred times a second, most of what it would cost. The distribution is left out.
const LAG_SAMPLING_OFF_MS = 2 ** 31 - 1;
const LAG_DISTRIBUTION = ['min', 'max', 'mean', 'stddev', 'p50', 'p90', 'p99'];

/** The Prometheus metrics of an agent. */
export class AgentMetrics {
  readonly registry = new Registry();
  readonly snapshots = this.#counter('backup_snapshots_total', 'Snapshots taken, by grade.', [
    'graph_id',
    'grade',
  ]);
  readonly sizeBytes = this.#gauge('backup_size_bytes', 'Raw size of the newest snapshot.', ['graph_id']);
  readonly storedBytes = this.#gauge(
    'backup_stored_bytes',
    'Bytes that the newest snapshot added to the store.',
    ['graph_id'],
  );
  readonly duration = this.#histogram(
    'backup_duration_seconds',
    'From the start of a capture to its commit.',
    ['graph_id'],
  );
  readonly restoreDuration = this.#histogram('backup_restore_duration_seconds', 'Time of a restore.', []);
  readonly errors = this.#counter('backup_errors_total', 'Captures that failed, by reason.', [
    'graph_id',
    'reason',
  ]);
  readonly lastValid = this.#gauge(
    'backup_last_valid_timestamp_seconds',
    'When the directory was last confirmed equal to its newest usable point.',
    ['graph_id'],
  );
  readonly tornRetries = this.#counter(
    'backup_torn_retries_total',
    'Captures started over because something changed.',
    ['graph_id'],
  );
  readonly documents = this.#gauge('graph_documents', 'Documents in the newest snapshot.', ['graph_id']);
  readonly entities = this.#gauge('graph_entities', 'Entities in the newest snapshot.', ['graph_id']);
  readonly relations = this.#gauge('graph_relations', 'Relations in the newest snapshot.', ['graph_id']);
  readonly vectors = this.#gauge('graph_vectors', 'Vectors in the newest snapshot.', ['graph_id']);
  readonly role = this.#gauge('agent_role', '0 fenced, 1 standby, 2 primary.', ['graph_id']);
  readonly epoch = this.#gauge('agent_epoch', 'Epoch of the graph.', ['graph_id']);
  readonly replications = this.#counter(
    'replication_operations_total',
    'Snapshots received by this follower, and streams that ended with an error, by result.',
    ['graph_id', 'result'],
  );
  readonly replicationErrors = this.#counter(
    'replication_errors_total',
    'Streams that ended with an error, by reason.',
    ['graph_id', 'reason'],
  );
  readonly replicationBytes = this.#counter(
    'replication_bytes_transferred_total',
    'Bytes of frames sent to followers, and received from sources.',
    ['graph_id', 'target', 'direction'],
  );
  readonly replicationDuration = this.#histogram(
    'replication_duration_seconds',
    'From the start of the fetch of a snapshot to its commit here.',
    ['graph_id'],
  );
  readonly lagSnapshots = this.#gauge('replication_lag_snapshots', 'Snapshots that a follower lacks.', [
    'graph_id',
    'target',
  ]);
  readonly lagBytes = this.#gauge(
    'replication_lag_bytes',
    'Stored bytes of the snapshots that a follower lacks.',
    ['graph_id', 'target'],
  );
  readonly lagSeconds = this.#gauge(
    'replication_lag_seconds',
    'Age of the oldest snapshot that a follower lacks.',
    ['graph_id', 'target'],
  );
  readonly units = this.#gauge('store_units', 'Units in the store.', []);
  readonly packs = this.#gauge('store_packs', 'Packs in the store.', []);
  readonly dedupRatio = this.#gauge(
    'store_dedup_ratio',
    'Raw size of all snapshots over the original size of all units.',
    [],
  );

  readonly scrubCoverage = this.#gauge(
    'scrub_coverage_ratio',
    "Share of the packs' bytes that was read again within the period of the scrub.",
    [],
  );

  constructor() {
    collectDefaultMetrics({ register: this.registry, eventLoopMonitoringPrecision: LAG_SAMPLING_OFF_MS });
    for (const part of LAG_DISTRIBUTION)
      this.registry.removeSingleMetric(`nodejs_eventloop_lag_${part}_seconds`);
  }

  #settings<L extends string>(name: string, help: string, labelNames: readonly L[]) {
    return { name: `lightrag_${name}`, help, labelNames: [...labelNames], registers: [this.registry] };
  }

  #counter<L extends string>(name: string, help: string, labelNames: readonly L[]): Counter<L> {
    return new Counter(this.#settings(name, help, labelNames));
  }

  #gauge<L extends string>(name: string, help: string, labelNames: readonly L[]): Gauge<L> {
    return new Gauge(this.#settings(name, help, labelNames));
  }

  #histogram<L extends string>(name: string, help: string, labelNames: readonly L[]): Histogram<L> {
    return new Histogram({ ...this.#settings(name, help, labelNames), buckets: SECONDS });
  }
}
