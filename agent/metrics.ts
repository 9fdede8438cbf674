import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

/** The agent's metrics; names and meanings are those of the documentation. */
export class AgentMetrics {
  readonly registry = new Registry();
  readonly snapshots: Counter<'graph_id' | 'grade'>;
  readonly sizeBytes: Gauge<'graph_id'>;
  readonly storedBytes: Counter<'graph_id'>;
  readonly duration: Histogram<'graph_id'>;
  readonly restoreDuration: Histogram<string>;
  readonly errors: Counter<'graph_id' | 'reason'>;
  readonly lastValid: Gauge<'graph_id'>;
  readonly tornRetries: Counter<'graph_id'>;
  readonly role: Gauge<'graph_id'>;
  readonly epoch: Gauge<'graph_id'>;
  readonly units: Gauge<string>;
  readonly packs: Gauge<string>;
  readonly dedupRatio: Gauge<string>;

  constructor() {
    const registers = [this.registry];
    const graph = ['graph_id'] as const;
    this.snapshots = new Counter({
      name: 'lightrag_backup_snapshots_total',
      help: 'Snapshots taken, by grade.',
      labelNames: ['graph_id', 'grade'],
      registers,
    });
    this.sizeBytes = new Gauge({
      name: 'lightrag_backup_size_bytes',
      help: 'Raw size of the newest snapshot.',
      labelNames: graph,
      registers,
    });
    this.storedBytes = new Counter({
      name: 'lightrag_backup_stored_bytes',
      help: 'Bytes added to the store since the agent started.',
      labelNames: graph,
      registers,
    });
    this.duration = new Histogram({
      name: 'lightrag_backup_duration_seconds',
      help: 'Time from the start of a capture to its commit.',
      labelNames: graph,
      buckets: SECONDS,
      registers,
    });
    this.restoreDuration = new Histogram({
      name: 'lightrag_backup_restore_duration_seconds',
      help: 'Time of a restore.',
      buckets: SECONDS,
      registers,
    });
    this.errors = new Counter({
      name: 'lightrag_backup_errors_total',
      help: 'Captures that failed, by reason.',
      labelNames: ['graph_id', 'reason'],
      registers,
    });
    this.lastValid = new Gauge({
      name: 'lightrag_backup_last_valid_timestamp_seconds',
      help: 'When the directory was last confirmed equal to its newest usable point.',
      labelNames: graph,
      registers,
    });
    this.tornRetries = new Counter({
      name: 'lightrag_backup_torn_retries_total',
      help: 'Captures started over because something changed.',
      labelNames: graph,
      registers,
    });
    this.role = new Gauge({
      name: 'lightrag_agent_role',
      help: '0 fenced, 1 standby, 2 primary.',
      labelNames: graph,
      registers,
    });
    this.epoch = new Gauge({
      name: 'lightrag_agent_epoch',
      help: 'Epoch of the graph.',
      labelNames: graph,
      registers,
    });
    this.units = new Gauge({ name: 'lightrag_store_units', help: 'Units in the store.', registers });
    this.packs = new Gauge({ name: 'lightrag_store_packs', help: 'Packs in the store.', registers });
    this.dedupRatio = new Gauge({
      name: 'lightrag_store_dedup_ratio',
      help: 'Raw size of all snapshots over the original size of all units.',
      registers,
    });
    collectDefaultMetrics({ register: this.registry });
  }
}
