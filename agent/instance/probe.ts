import { statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { type Finding, type Instance, InstanceSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic } from '../../host/clock.ts';

/** An instance that takes longer does not answer. */
const ANSWERS_WITHIN_MS = 5000;
/** More than any answer of these two calls; a pipeline's last messages are in it. */
const ANSWER_BYTES_MAX = 4 << 20;
const ASK_AGAIN_MS = 200;
/** Storage classes that keep their data as files in the working directory. */
const FILE_STORAGES = new Set([
  'JsonKVStorage',
  'JsonDocStatusStorage',
  'NanoVectorDBStorage',
  'FaissVectorDBStorage',
  'NetworkXStorage',
]);
const STORAGE_KINDS = ['kv', 'doc_status', 'graph', 'vector'] as const;

/** How an instance is asked. */
export interface InstanceSettings {
  /** Where it serves, for instance http://127.0.0.1:9621. */
  readonly url: string;
  readonly apiKey: string;
  /** Guard a graph of which a part is kept elsewhere. */
  readonly allowPartial: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

/** A LightRAG server that is asked what it is and whether it rests; old and new versions. */
export class InstanceProbe {
  readonly settings: InstanceSettings;

  constructor(settings: InstanceSettings) {
    this.settings = settings;
  }

  /** What it says of itself; undefined if it does not answer. */
  async describe(signal?: AbortSignal): Promise<Instance | undefined> {
    const health = await this.#get('/health', signal);
    return health === undefined ? undefined : instanceOf(this.settings.url, health);
  }

  /** Whether nothing is being written; undefined if it does not say. */
  async idle(signal?: AbortSignal): Promise<boolean | undefined> {
    const status = await this.#get('/documents/pipeline_status', signal);
    return status === undefined ? undefined : isIdle(status);
  }

  /** Waits until it is idle, at most so long; answers what it said last. */
  async waitUntilIdle(ms: number, signal?: AbortSignal): Promise<boolean | undefined> {
    const endMs = monotonic() + ms;
    for (;;) {
      const idle = await this.idle(signal);
      if (idle !== false || monotonic() >= endMs) return idle;
      await sleep(ASK_AGAIN_MS, undefined, signal === undefined ? {} : { signal });
    }
  }

  async #get(path: string, signal: AbortSignal | undefined): Promise<Fields | undefined> {
    const timeout = AbortSignal.timeout(ANSWERS_WITHIN_MS);
    const { url, apiKey } = this.settings;
    try {
      const response = await fetch(new URL(path, url), {
        headers: apiKey === '' ? {} : { 'X-API-Key': apiKey },
        redirect: 'error',
        signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
      });
      if (!response.ok) {
        await response.body?.cancel();
        return undefined;
      }
      const body: unknown = JSON.parse(await boundedText(response));
      return typeof body === 'object' && body !== null ? (body as Fields) : undefined;
    } catch (error) {
      signal?.throwIfAborted();
      // Down, starting, or not LightRAG: the capture goes on without it, and says so.
      if (error instanceof Error) return undefined;
      throw error;
    }
  }
}

async function boundedText(response: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.length;
    if (bytes > ANSWER_BYTES_MAX) throw new Error('the answer is too long');
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

/** Whether a pipeline status says that nothing is under way. */
export function isIdle(status: Fields): boolean {
  const { busy, request_pending, scanning, destructive_busy, pending_enqueues, update_status } = status;
  if (busy !== false || request_pending === true) return false;
  if (scanning === true || destructive_busy === true) return false;
  if (typeof pending_enqueues === 'number' && pending_enqueues > 0) return false;
  if (typeof update_status !== 'object' || update_status === null) return true;
  // Of kv data a flag means "not on disk yet"; of vectors and graph it means "to be read again".
  return !Object.entries(update_status as Fields).some(
    ([namespace, flags]) => isKv(namespace) && [flags].flat().some((flag) => flag === true),
  );
}

function isKv(namespace: string): boolean {
  return /(?:^|[:_/])(?:full_docs|text_chunks|llm_response_cache|doc_status|full_entities|full_relations|entity_chunks|relation_chunks)$/.test(
    namespace,
  );
}

function instanceOf(url: string, health: Fields): Instance {
  const configuration = fieldsOf(health.configuration);
  const storages: Record<string, string> = {};
  for (const kind of STORAGE_KINDS) {
    const name = text(configuration[`${kind}_storage`]);
    if (name !== '') storages[kind] = name;
  }
  const dimension = Number(configuration.embedding_dim ?? 0);
  return create(InstanceSchema, {
    url,
    coreVersion: text(health.core_version),
    apiVersion: text(health.api_version),
    workingDir: text(health.working_directory),
    workspace: text(configuration.workspace),
    storages,
    embeddingModel: text(configuration.embedding_model),
    embeddingDimension: Number.isInteger(dimension) && dimension > 0 && dimension < 2 ** 31 ? dimension : 0,
  });
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

function text(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, 1000) : '';
}

/** The finding of an instance that was to be asked and does not answer. */
export function silent({ url }: InstanceSettings): Finding {
  return warning('instance_silent', url, {
    message: 'the instance does not answer, or not as LightRAG does; it was captured without asking',
    hint: 'check --instance-url and the key, or ignore this while the instance is stopped',
  });
}

/**
 * What is wrong with guarding `dir` for this instance. Refuses one that keeps a part of the graph elsewhere, for a
 * snapshot of the rest could not be brought back to life.
 */
export function checkInstance(instance: Instance, dir: Uint8Array, allowPartial: boolean): Finding[] {
  const foreign = Object.entries(instance.storages).filter(([, name]) => !FILE_STORAGES.has(name));
  if (foreign.length > 0 && !allowPartial) {
    const list = foreign.map(([kind, name]) => `${kind} in ${name}`).join(', ');
    throw new LightkeeperError(
      'REFUSED',
      `Cannot guard the graph of ${instance.url}: it keeps ${list}, outside of the directory`,
      { hint: 'back those up by their own means, and guard the files alone with --allow-partial' },
    );
  }
  const findings = foreign.map(([kind, name]) =>
    warning('outside_storage', kind, {
      message: `the instance keeps it in ${name}: it is not in the snapshot`,
      hint: 'back it up by its own means, at the same time',
    }),
  );
  const served = servedDir(instance);
  if (served !== undefined && differs(served, dir)) {
    findings.push(
      warning('other_directory', served, {
        message: `the instance at ${instance.url} serves this directory, not the one that is guarded`,
        hint: 'check --dir and --instance-url',
      }),
    );
  }
  return findings;
}

function servedDir({ workingDir, workspace }: Instance): string | undefined {
  if (workingDir === '') return undefined;
  return workspace === '' ? workingDir : join(workingDir, workspace);
}

/** Whether a path is a directory here and another one. One that is not here is that of another container. */
function differs(path: string, dir: Uint8Array): boolean {
  const [served, guarded] = [path, Buffer.from(dir)].map((one) => {
    try {
      return statSync(one, { bigint: true });
    } catch {
      // Not here, or not to be seen: nothing can be said of it.
      return undefined;
    }
  });
  if (served === undefined || guarded === undefined) return false;
  return served.ino !== guarded.ino || served.dev !== guarded.dev;
}
