import { setTimeout as sleep } from 'node:timers/promises';
import { LightkeeperError, normalise } from '../../core/errors.ts';
import type { RemovalStage } from '../doc-status.ts';
import type { Edition } from '../document.ts';
import {
  CACHE,
  CHUNK_VECTORS,
  CHUNKS,
  DERIVED,
  DOCS,
  deletionSteps,
  EMPTIED_BY_CLEAR,
  ENTITY_CHUNKS,
  ENTITY_NAMES,
  type FileName,
  GRAPH,
  ingestSteps,
  RELATION_CHUNKS,
  RELATION_PAIRS,
  REMOVED_BY_CLEAR,
  STATUS,
  type Step,
  savedAtStop,
} from '../write-order.ts';
import { DocumentRemoval } from './delete.ts';
import type { Flush } from './flush.ts';
import { addQuery, DocumentIngest, hasFailed } from './ingest.ts';
import { KV_NAMES, type Memory } from './memory.ts';
import type { InstanceOptions } from './options.ts';

const HISTORY_MAX = 1000;
/** Files of the update flags in the order of the response. */
const FLAGGED: readonly FileName[] = [
  DOCS,
  CHUNKS,
  ENTITY_NAMES,
  RELATION_PAIRS,
  ENTITY_CHUNKS,
  RELATION_CHUNKS,
  'vdb_entities.json',
  'vdb_relationships.json',
  CHUNK_VECTORS,
  GRAPH,
  CACHE,
  STATUS,
];
/** Names of jobs in the status; an ingest is named after its document. */
const JOBS = { ingest: '-', delete: 'Deleting 1 Documents', clear: 'Clearing Documents' } as const;
type Job = keyof typeof JOBS;

/** The response of `/documents/pipeline_status`, without the update flags. */
export interface PipelineStatus {
  readonly busy: boolean;
  /** Whether a deletion or a clear is under way. */
  readonly isDestructive: boolean;
  /** Number of documents that wait while another is ingested. */
  readonly waiting: number;
  readonly jobName: string;
  /** ISO time of the last job's start; null before the first. */
  readonly startedAt: string | null;
  /** Messages of the last job, the newest last. */
  readonly messages: readonly string[];
}

/** Ingests and queries in the order and with the flushes of LightRAG. */
export class Pipeline {
  readonly #memory: Memory;
  readonly #flush: Flush;
  readonly #options: InstanceOptions;
  readonly #edition: Edition;
  readonly #failed: (error: unknown) => void;
  #last: Promise<unknown> = Promise.resolve();
  /** Ingests and queries under way. */
  readonly #running = new Set<Promise<unknown>>();
  readonly #stop = new AbortController();
  #isPaused = false;
  #job: Job | undefined;
  #jobName = '-';
  #queued = 0;
  #startedAt: string | null = null;
  #messages: string[] = [];

  /** Makes a pipeline. `failed` receives the failures of ingests and queries that nobody awaits. */
  constructor(memory: Memory, flush: Flush, options: InstanceOptions, failed: (error: unknown) => void) {
    this.#memory = memory;
    this.#flush = flush;
    this.#options = options;
    this.#edition = { seed: options.seed, version: options.version };
    this.#failed = failed;
  }

  get status(): PipelineStatus {
    return {
      busy: this.#job !== undefined,
      isDestructive: this.#job === 'delete' || this.#job === 'clear',
      waiting: Math.max(0, this.#queued - 1),
      jobName: this.#jobName,
      startedAt: this.#startedAt,
      messages: this.#messages,
    };
  }

  /** Ingests and queries periodically until `stop`. */
  start(): void {
    const { ingestEveryMs, queryEveryMs } = this.#options;
    void this.#repeat(ingestEveryMs, () => this.ingest());
    void this.#repeat(queryEveryMs, () => this.query());
  }

  /** Ingests one more document after those that wait, and returns its id once it is flushed, or has failed. */
  async ingest({ fails = false } = {}): Promise<string> {
    return await this.#inTurn('ingest', () =>
      this.#ingest(new DocumentIngest(this.#memory, this.#edition), fails),
    );
  }

  /** Processes the failed documents again, and returns their ids once they are flushed. */
  async reprocess(): Promise<string[]> {
    return await this.#inTurn('ingest', async () => {
      const ids: string[] = [];
      while (hasFailed(this.#memory, this.#edition)) {
        const again = new DocumentIngest(this.#memory, this.#edition, { failed: true });
        ids.push(await this.#ingest(again, false));
      }
      return ids;
    });
  }

  /** Deletes a document after the ingests that wait. Returns whether it existed, once the deletion is flushed. */
  async deleteDocument(id: string): Promise<boolean> {
    return await this.#inTurn('delete', async () => {
      if (!DocumentRemoval.exists(this.#memory, id)) return false;
      this.#say(`Starting deletion process for document ${id}`);
      await this.#delete(new DocumentRemoval(this.#memory, id));
      this.#say(`Deletion process completed for document: ${id}`);
      return true;
    });
  }

  /** Deletes all documents after the ingests that wait. The cache stays. */
  async clear(): Promise<void> {
    await this.#inTurn('clear', async () => {
      this.#say('Starting document clearing process');
      this.#memory.clear();
      await this.#flush.remove(REMOVED_BY_CLEAR);
      this.#flush.changed(...EMPTIED_BY_CLEAR);
      for (const name of EMPTIED_BY_CLEAR) await this.#write(name);
    });
  }

  /** Runs one query: the cache grows and is flushed, even during an ingest. */
  async query(): Promise<void> {
    this.#checkRunning();
    addQuery(this.#memory, this.#edition);
    this.#flush.changed(CACHE);
    await this.#watched(this.#flush.write([CACHE]));
  }

  /** Stops periodic work. Resolves when nothing is under way. */
  async pause(): Promise<void> {
    this.#isPaused = true;
    await this.#idle();
  }

  resume(): void {
    this.#isPaused = false;
  }

  /** Ends what is under way as the version does, then saves what that leaves to be saved. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#idle();
    await this.#flush.write(savedAtStop(this.#options.version).filter((name) => this.#flush.isBehind(name)));
  }

  #checkRunning(): void {
    if (!this.#stop.signal.aborted) return;
    throw new LightkeeperError('UNAVAILABLE', 'Cannot write: the instance is stopping', {
      hint: 'start it again',
    });
  }

  /** Runs one job after another. */
  #inTurn<T>(job: Job, change: () => Promise<T>): Promise<T> {
    this.#checkRunning();
    this.#queued += 1;
    const mine = this.#last.then(async () => {
      this.#checkRunning();
      this.#job = job;
      this.#jobName = JOBS[job];
      this.#startedAt = new Date().toISOString();
      this.#messages = [];
      try {
        return await change();
      } catch (error) {
        this.#say(normalise(error).message);
        throw error;
      } finally {
        this.#job = undefined;
      }
    });
    const ended = () => {
      this.#queued -= 1;
    };
    this.#last = mine.then(ended, ended);
    return this.#watched(mine);
  }

  async #idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }

  #watched<T>(work: Promise<T>): Promise<T> {
    const ended = work.then(
      () => {},
      () => {}, // The caller receives the failure.
    );
    this.#running.add(ended);
    void ended.then(() => this.#running.delete(ended));
    return work;
  }

  async #repeat(everyMs: number, act: () => Promise<unknown>): Promise<void> {
    const { signal } = this.#stop;
    while (everyMs > 0 && !signal.aborted) {
      await sleep(everyMs, undefined, { signal }).catch(() => {}); // Stopped.
      if (!signal.aborted && !this.#isPaused) await act().catch(this.#failed);
    }
  }

  #say(message: string): void {
    this.#messages = [...this.#messages, message].slice(-HISTORY_MAX);
  }

  async #ingest(document: DocumentIngest, fails: boolean): Promise<string> {
    const { prepared, merged } = ingestSteps(this.#options.version);
    this.#jobName = `${document.filePath}[1 files]`;
    this.#say(`Processing document ${document.number}`);
    if (document.enqueue()) this.#flush.changed(DOCS);
    await this.#run(prepared, document);
    document.addChunks();
    this.#flush.changed(CHUNKS, CHUNK_VECTORS);
    await this.#pause();
    if (fails) {
      // Its chunks stay in memory, so that the file remains outdated until the next flush.
      await this.#run([{ kind: 'status', stage: 'failed' }], document);
      this.#say(`Failed to extract document ${document.number}`);
      return document.id;
    }
    document.extract();
    this.#flush.changed(CACHE, CHUNKS, ...DERIVED);
    await this.#run(merged, document);
    this.#say(`Completed document ${document.number}`);
    return document.id;
  }

  async #delete(removal: DocumentRemoval): Promise<void> {
    for (const part of deletionSteps(this.#options.version)) {
      const changed = part.removal === undefined ? [] : removal.remove(part.removal);
      this.#flush.changed(...changed);
      if (part.removal === 'shared' && changed.length === 0) continue;
      await this.#run(part.steps, { setStatus: (stage) => removal.record(stage as RemovalStage) });
    }
  }

  /** Writes files in order. One that follows itself is written without a pause. */
  async #run(steps: readonly Step[], document: Pick<DocumentIngest, 'setStatus'>): Promise<void> {
    let before: FileName | undefined;
    for (const step of steps) {
      if (step.kind === 'embed') {
        await this.#flush.embed();
        this.#checkGoingOn();
        continue;
      }
      const name = step.kind === 'file' ? step.name : STATUS;
      if (step.kind === 'status') {
        document.setStatus(step.stage);
        this.#flush.changed(STATUS);
      }
      // A server writes kv files if they have changed, the others always.
      if (KV_NAMES.some((kv) => kv === name) && !this.#flush.isBehind(name)) continue;
      if (before !== undefined && before !== name) await this.#pause();
      await this.#flush.write([name]);
      this.#checkGoingOn();
      before = name;
    }
  }

  async #write(name: FileName): Promise<void> {
    await this.#pause();
    await this.#flush.write([name]);
  }

  async #pause(): Promise<void> {
    await this.#flush.pause();
    this.#checkGoingOn();
  }

  /** Throws if a stop ends the job under way. */
  // Before 1.5, a server finished it.
  #checkGoingOn(): void {
    if (this.#options.version !== '1.4.9.11') this.#checkRunning();
  }
}

/**
 * Returns the update flags: for kv whether memory is newer than the file, else whether the file must be loaded
 * again.
 */
export function updateFlags(
  flush: Flush,
  { version, workspace }: InstanceOptions,
): Record<string, boolean[]> {
  const prefix = version !== '1.4.9.11' && workspace !== '' ? `${workspace}:` : '';
  const flags: Record<string, boolean[]> = {};
  for (const name of FLAGGED) {
    const isKv = KV_NAMES.some((kv) => kv === name);
    flags[prefix + namespaceOf(name)] = [isKv && flush.isBehind(name)];
  }
  return flags;
}

function namespaceOf(name: FileName): string {
  return name.replace(/^(?:kv_store|vdb|graph)_/, '').replace(/\.\w+$/, '');
}
