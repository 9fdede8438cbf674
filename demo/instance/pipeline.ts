import { setTimeout as sleep } from 'node:timers/promises';
import { LightkeeperError, normalise } from '../../core/errors.ts';
import { DERIVED, type FileName } from '../generate.ts';
import { deleteDocument } from './delete.ts';
import type { Flush } from './flush.ts';
import { addQuery, DocumentIngest } from './ingest.ts';
import { KV_NAMES, type Memory } from './memory.ts';
import type { InstanceOptions } from './options.ts';

const DOCS = 'kv_store_full_docs.json';
const STATUS = 'kv_store_doc_status.json';
const CACHE = 'kv_store_llm_response_cache.json';
const CHUNKS = 'kv_store_text_chunks.json';

/** The response of `/documents/pipeline_status`, without the update flags. */
export interface PipelineStatus {
  readonly busy: boolean;
  /** Number of documents that wait while another is ingested. */
  readonly waiting: number;
  /** ISO time of the last ingest's start; null before the first. */
  readonly startedAt: string | null;
  readonly message: string;
}

/** Ingests and queries in the order and with the flushes of LightRAG. */
export class Pipeline {
  readonly #memory: Memory;
  readonly #flush: Flush;
  readonly #options: InstanceOptions;
  readonly #failed: (error: unknown) => void;
  #last: Promise<unknown> = Promise.resolve();
  /** Ingests and queries under way. */
  readonly #running = new Set<Promise<unknown>>();
  readonly #stop = new AbortController();
  #isPaused = false;
  #busy = false;
  #queued = 0;
  #startedAt: string | null = null;
  #message = '';

  /** Makes a pipeline. `failed` receives the failures of ingests and queries that nobody awaits. */
  constructor(memory: Memory, flush: Flush, options: InstanceOptions, failed: (error: unknown) => void) {
    this.#memory = memory;
    this.#flush = flush;
    this.#options = options;
    this.#failed = failed;
  }

  get status(): PipelineStatus {
    const waiting = Math.max(0, this.#queued - 1);
    return { busy: this.#busy, waiting, startedAt: this.#startedAt, message: this.#message };
  }

  /** Ingests and queries periodically until `stop`. */
  start(): void {
    const { ingestEveryMs, queryEveryMs } = this.#options;
    void this.#repeat(ingestEveryMs, () => this.ingest());
    void this.#repeat(queryEveryMs, () => this.query());
  }

  /** Ingests one more document after those that wait, and returns its id once it is flushed. */
  async ingest(): Promise<string> {
    this.#checkRunning();
    return await this.#inTurn(() => this.#ingest());
  }

  /** Deletes a document after the ingests that wait. Returns whether it existed, once the deletion is flushed. */
  async deleteDocument(id: string): Promise<boolean> {
    this.#checkRunning();
    return await this.#inTurn(() => this.#deleteDocument(id));
  }

  /** Runs one change after another. */
  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    this.#queued += 1;
    const mine = this.#last.then(change);
    const ended = () => {
      this.#queued -= 1;
    };
    this.#last = mine.then(ended, ended);
    return this.#watched(mine);
  }

  async #deleteDocument(id: string): Promise<boolean> {
    this.#busy = true;
    try {
      if (!deleteDocument(this.#memory, id)) return false;
      await this.#write(CHUNKS, ...DERIVED, DOCS, STATUS);
      return true;
    } finally {
      this.#busy = false;
    }
  }

  /** Runs one query: the cache grows and is flushed, even during an ingest. */
  async query(): Promise<void> {
    this.#checkRunning();
    addQuery(this.#memory, this.#options.seed);
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

  /** Finishes what is under way, then flushes everything. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#idle();
    await this.#flush.writeAll();
  }

  #checkRunning(): void {
    if (!this.#stop.signal.aborted) return;
    throw new LightkeeperError('UNAVAILABLE', 'Cannot write: the instance is stopping', {
      hint: 'start it again',
    });
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

  async #ingest(): Promise<string> {
    this.#busy = true;
    this.#startedAt = new Date().toISOString();
    try {
      const lesson = new DocumentIngest(this.#memory, this.#options.seed);
      this.#message = `Processing document ${lesson.number}`;
      await this.#process(lesson);
      this.#message = `Completed document ${lesson.number}`;
      return lesson.id;
    } catch (error) {
      this.#message = normalise(error).message;
      throw error;
    } finally {
      this.#busy = false;
    }
  }

  async #process(lesson: DocumentIngest): Promise<void> {
    lesson.enqueue();
    await this.#write(DOCS, STATUS);
    await this.#flush.pause();
    lesson.setStatus('processing');
    await this.#write(STATUS);
    lesson.extract();
    const derived: FileName[] = [CACHE, CHUNKS, ...DERIVED];
    this.#flush.changed(...derived);
    await this.#flush.pause();
    if (this.#options.api === 'old') {
      // Until January 2026 a document became processed before its data was on disk.
      lesson.setStatus('processed');
      await this.#write(STATUS);
      await this.#flush.pause();
    }
    await this.#flush.write(derived);
    if (this.#options.api === 'new') {
      await this.#flush.pause();
      lesson.setStatus('processed');
      await this.#write(STATUS);
    }
  }

  async #write(...names: readonly FileName[]): Promise<void> {
    this.#flush.changed(...names);
    await this.#flush.write(names);
  }
}

/**
 * Returns the update flags: for kv whether memory is newer than the file, else whether the file must be loaded
 * again.
 */
export function updateFlags(flush: Flush, { api, workspace }: InstanceOptions): Record<string, boolean[]> {
  const prefix = api === 'new' && workspace !== '' ? `${workspace}:` : '';
  const flags: Record<string, boolean[]> = {};
  for (const name of KV_NAMES) {
    const namespace = name.slice('kv_store_'.length, -'.json'.length);
    flags[prefix + namespace] = [flush.isBehind(name)];
  }
  for (const namespace of ['entities', 'relationships', 'chunks', 'chunk_entity_relation']) {
    flags[prefix + namespace] = [false];
  }
  return flags;
}
