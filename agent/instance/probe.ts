import { statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { type Finding, type Instance, InstanceSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic } from '../../host/clock.ts';

/** Most milliseconds of a request to an instance. */
const RESPONSE_TIMEOUT_MS = 5000;
/** Most bytes of a response. */
// A pipeline status contains the last messages of the pipeline.
const RESPONSE_BYTES_MAX = 4 << 20;
/** Milliseconds between two requests while waiting. */
const POLL_MS = 200;
/** Storage classes that store their data as files in the working directory. */
const FILE_STORAGES = new Set([
  'JsonKVStorage',
  'JsonDocStatusStorage',
  'NanoVectorDBStorage',
  'FaissVectorDBStorage',
  'NetworkXStorage',
]);
const STORAGE_KINDS = ['kv', 'doc_status', 'graph', 'vector'] as const;

/** Settings for requests to an instance. */
export interface InstanceSettings {
  /** Base URL, such as http://127.0.0.1:9621. */
  readonly url: string;
  readonly apiKey: string;
  /** Whether to guard a graph of which a part is stored elsewhere. */
  readonly allowPartial: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

/** Queries a LightRAG server of any version for its settings and whether it is idle. */
export class InstanceProbe {
  readonly settings: InstanceSettings;

  constructor(settings: InstanceSettings) {
    this.settings = settings;
  }

  /** Returns its version and settings; undefined if it does not respond. */
  async describe(signal?: AbortSignal): Promise<Instance | undefined> {
    const health = await this.#get('/health', signal);
    return health === undefined ? undefined : instanceOf(this.settings.url, health);
  }

  /** Reports whether nothing is being written; undefined if it does not respond. */
  async isIdleStatus(signal?: AbortSignal): Promise<boolean | undefined> {
    const status = await this.#get('/documents/pipeline_status', signal);
    return status === undefined ? undefined : isIdle(status);
  }

  /** Waits at most `ms` milliseconds until it is idle. Returns its last response. */
  async waitUntilIdle(ms: number, signal?: AbortSignal): Promise<boolean | undefined> {
    const endMs = monotonic() + ms;
    for (;;) {
      const idle = await this.isIdleStatus(signal);
      if (idle !== false || monotonic() >= endMs) return idle;
      await sleep(POLL_MS, undefined, signal === undefined ? {} : { signal });
    }
  }

  async #get(path: string, signal: AbortSignal | undefined): Promise<Fields | undefined> {
    const timeout = AbortSignal.timeout(RESPONSE_TIMEOUT_MS);
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
      // It is down, starting or not LightRAG. The caller reports that.
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
    if (bytes > RESPONSE_BYTES_MAX) throw new Error('the response is too long');
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

/** Reports whether a pipeline status is that of an idle pipeline. */
export function isIdle(status: Fields): boolean {
  const { busy, request_pending, scanning, destructive_busy, pending_enqueues, update_status } = status;
  if (busy !== false || request_pending === true) return false;
  if (scanning === true || destructive_busy === true) return false;
  if (typeof pending_enqueues === 'number' && pending_enqueues > 0) return false;
  if (typeof update_status !== 'object' || update_status === null) return true;
  // A flag of kv data means "not on disk yet"; one of vectors or the graph means "to be read again".
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
    version: text(health.core_version),
    apiVersion: text(health.api_version),
    workingDir: text(health.working_directory),
    workspace: text(configuration.workspace),
    storages,
    embeddingModel: text(configuration.embedding_model),
    llmModel: text(configuration.llm_model),
    embeddingDimension: Number.isInteger(dimension) && dimension > 0 && dimension < 2 ** 31 ? dimension : 0,
  });
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

function text(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, 1000) : '';
}

/** Returns the finding of an instance that does not respond. */
export function silentFinding({ url }: InstanceSettings): Finding {
  return warning('instance_silent', url, {
    message: 'the instance does not respond as LightRAG does; the capture did not wait for it',
    hint: 'check --instance-url and the key, or ignore this while the instance is stopped',
  });
}

/**
 * Checks that the files in `dir` are the whole graph of an instance. Returns findings; REFUSED if a part of the graph
 * is stored elsewhere, unless `allowPartial` is set.
 */
// A snapshot without that part could not be restored to a working graph.
export function checkInstance(instance: Instance, dir: Uint8Array, allowPartial: boolean): Finding[] {
  const foreign = Object.entries(instance.storages).filter(([, name]) => !FILE_STORAGES.has(name));
  if (foreign.length > 0 && !allowPartial) {
    const list = foreign.map(([kind, name]) => `${kind} in ${name}`).join(', ');
    throw new LightkeeperError(
      'REFUSED',
      `Cannot guard the graph of ${instance.url}: it stores ${list}, outside of the directory`,
      { hint: 'back those up separately, and guard the files alone with --allow-partial' },
    );
  }
  const findings = foreign.map(([kind, name]) =>
    warning('outside_storage', kind, {
      message: `the instance stores it in ${name}; it is not in the snapshot`,
      hint: 'back it up separately, at the same time',
    }),
  );
  const served = servedDir(instance);
  if (served !== undefined && isOtherDirectory(served, dir)) {
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

/** Reports whether a path is another directory than `dir`. */
// A path that does not exist here is one of another container.
function isOtherDirectory(path: string, dir: Uint8Array): boolean {
  const [served, guarded] = [path, Buffer.from(dir)].map((one) => {
    try {
      return statSync(one, { bigint: true });
    } catch {
      // It does not exist here or cannot be accessed.
      return undefined;
    }
  });
  if (served === undefined || guarded === undefined) return false;
  return served.ino !== guarded.ino || served.dev !== guarded.dev;
}
