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

/** What `/documents/pipeline_status` tells, without the update flags. */
export interface PipelineStatus {
  readonly busy: boolean;
  /** Documents that wait while another is ingested. */
  readonly waiting: number;
  /** ISO time, or null before the first ingest. */
  readonly startedAt: string | null;
  readonly message: string;
}

/** Ingests and answers, in the order and with the flushes of LightRAG. */
export class Pipeline {
  readonly #memory: Memory;
  readonly #flush: Flush;
  readonly #options: InstanceOptions;
  readonly #failed: (error: unknown) => void;
  #last: Promise<unknown> = Promise.resolve();
  /** Ingests and queries that have not ended. */
  readonly #running = new Set<Promise<unknown>>();
  readonly #stop = new AbortController();
  #isPaused = false;
  #busy = false;
  #queued = 0;
  #startedAt: string | null = null;
  #message = '';

  /** `failed` hears of what fails in an ingest or a query that nobody waits for. */
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

  /** Ingests and asks from time to time, until `stop`. */
  start(): void {
    const { ingestEveryMs, queryEveryMs } = this.#options;
    void this.#repeat(ingestEveryMs, () => this.ingest());
    void this.#repeat(queryEveryMs, () => this.query());
  }

  /** Ingests one more document, after those that wait; resolves to its id once all of it is flushed. */
  async ingest(): Promise<string> {
    this.#checkRunning();
    return await this.#inTurn(() => this.#ingest());
  }

  /** Forgets a document, after the ingests that wait; resolves once that is flushed, to whether there was such a one. */
  async deleteDocument(id: string): Promise<boolean> {
    this.#checkRunning();
    return await this.#inTurn(() => this.#deleteDocument(id));
  }

  /** One change after another. */
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

  /** Asks one question: the cache grows and is flushed, also in the middle of an ingest. */
  async query(): Promise<void> {
    this.#checkRunning();
    addQuery(this.#memory, this.#options.seed);
    this.#flush.changed(CACHE);
    await this.#watched(this.#flush.write([CACHE]));
  }

  /** Begins nothing by itself from now on; resolves when nothing is under way. */
  async pause(): Promise<void> {
    this.#isPaused = true;
    await this.#idle();
  }

  resume(): void {
    this.#isPaused = false;
  }

  /** Ends for good: what is under way is finished, then everything is flushed. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#idle();
    await this.#flush.writeAll();
  }

  #checkRunning(): void {
    if (!this.#stop.signal.aborted) return;
    throw new LightkeeperError('UNAVAILABLE', 'Cannot write: the instance stops', {
      hint: 'start it again',
    });
  }

  async #idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }

  #watched<T>(work: Promise<T>): Promise<T> {
    const ended = work.then(
      () => {},
      () => {}, // Whoever asked for it is told.
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
      // Up to January 2026 a document was called processed before its data was on disk.
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

/** For each namespace and worker: for kv whether it is not on disk yet, else whether it must be loaded again. */
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
