import { setTimeout as sleep } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import type { BytePath } from '../../core/path.ts';
import { type Instance, InstanceSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic } from '../../host/clock.ts';
import { type Fields, getJson, type InstanceReply } from './request.ts';
import { otherDirectory as findOtherDirectory } from './served-directory.ts';

/** Most milliseconds of a request to an instance. */
export const RESPONSE_TIMEOUT_MS = 5000;
/** Milliseconds between two requests while waiting. */
const POLL_MS = 200;
/** Most characters of a text that is recorded; a path is at most as long. */
const TEXT_CHARACTERS_MAX = 4096;
const HEALTH = '/health';
const PIPELINE_STATUS = '/documents/pipeline_status';
/** Flags of a pipeline status, any of which means that it is not idle; older versions lack some. */
const BUSY_FLAGS = ['busy', 'request_pending', 'scanning', 'destructive_busy'] as const;
const STORAGE_KINDS = ['kv', 'doc_status', 'graph', 'vector'] as const;

/** Settings for requests to an instance. */
export interface InstanceSettings {
  /** Base URL, such as http://127.0.0.1:9621. */
  readonly url: string;
  readonly apiKey: string;
  /** Whether to guard a graph of which a part is stored elsewhere. */
  readonly allowPartial: boolean;
  /** Folder of the workspace that the graph is; undefined for a directory of its own. */
  readonly workspace?: BytePath | undefined;
  /** Whether these are the settings of the directory above: the instance may serve another workspace. */
  readonly isInherited?: boolean;
}

/** What is known of the instance at a URL; `why` is a part of a sentence. */
export type InstanceReport =
  /** It serves the directory of the graph, or one that cannot be compared. */
  | { readonly kind: 'own'; readonly instance: Instance; readonly isIdle: boolean }
  /** It serves another directory or workspace. */
  | { readonly kind: 'elsewhere'; readonly instance: Instance; readonly dir: string }
  /** It does not say enough without a key, or with this one. */
  | { readonly kind: 'key-needed'; readonly why: string }
  | { readonly kind: 'no-response'; readonly why: string; readonly isLate: boolean }
  /** Another program responds, or a version that does not report its pipeline. */
  | { readonly kind: 'unusable'; readonly why: string };

/** Limits of a request. */
export interface ProbeOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** Queries a LightRAG server of any version for its settings and whether it is idle. */
export class InstanceProbe {
  readonly settings: InstanceSettings;
  readonly #dir: Uint8Array;

  /** `dir` is the directory of the graph. */
  constructor(settings: InstanceSettings, dir: Uint8Array) {
    this.settings = settings;
    this.#dir = dir;
  }

  /** Returns what is known of the instance now. */
  async report(options: ProbeOptions = {}): Promise<InstanceReport> {
    const [health, status] = await Promise.all([
      this.#get(HEALTH, options),
      this.#get(PIPELINE_STATUS, options),
    ]);
    const { url, workspace } = this.settings;
    return reportOf(health, status, {
      url,
      otherDirectory: (instance) => findOtherDirectory(instance, { dir: this.#dir, workspace }),
    });
  }

  /** Reports whether the pipeline is idle; undefined if the instance does not report it. */
  async isIdle(options: ProbeOptions = {}): Promise<boolean | undefined> {
    const status = await this.#get(PIPELINE_STATUS, options);
    return status.kind === 'json' ? isIdle(status.body) : undefined;
  }

  /** Waits at most `ms` milliseconds until the pipeline is idle. Returns whether it is. */
  async waitUntilIdle(ms: number, signal?: AbortSignal): Promise<boolean> {
    const endMs = monotonic() + ms;
    for (;;) {
      const idle = await this.isIdle({ signal });
      if (idle !== false || monotonic() >= endMs) return idle === true;
      await sleep(POLL_MS, undefined, signal === undefined ? {} : { signal });
    }
  }

  #get(path: string, { timeoutMs = RESPONSE_TIMEOUT_MS, signal }: ProbeOptions): Promise<InstanceReply> {
    const { url, apiKey } = this.settings;
    return getJson(path, { url, apiKey, timeoutMs, signal });
  }
}

/** Returns what the responses to both calls say together. */
export function reportOf(
  health: InstanceReply,
  status: InstanceReply,
  { url, otherDirectory }: { url: string; otherDirectory: (instance: Instance) => string | undefined },
): InstanceReport {
  if (health.kind !== 'json') return health;
  const { body } = health;
  const isComplete = isText(body.working_directory) || isMap(body.configuration);
  if (!isComplete && !isText(body.core_version))
    return { kind: 'unusable', why: `its ${HEALTH} is not that of LightRAG` };
  const instance = instanceOf(url, body);
  const other = isComplete ? otherDirectory(instance) : undefined;
  if (other !== undefined) return { kind: 'elsewhere', instance, dir: other };
  if (status.kind !== 'json') return status;
  if (!isComplete) return { kind: 'key-needed', why: `without a key, ${HEALTH} does not name its directory` };
  const idle = isIdle(status.body);
  if (idle === undefined) return { kind: 'unusable', why: `its ${PIPELINE_STATUS} is not that of LightRAG` };
  return { kind: 'own', instance, isIdle: idle };
}

/** Reports whether a pipeline status is that of an idle pipeline; undefined if it is no pipeline status. */
// The flags in `update_status` are left out: that of text_chunks stays set after every failed document. While files
// still change the directory is not at rest anyway.
export function isIdle(status: Fields): boolean | undefined {
  if (typeof status.busy !== 'boolean') return undefined;
  const pending = status.pending_enqueues ?? 0;
  return BUSY_FLAGS.every((flag) => isUnset(status[flag])) && (pending === 0 || pending === false);
}

function isUnset(flag: unknown): boolean {
  return flag === undefined || flag === null || flag === false;
}

function isText(value: unknown): boolean {
  return typeof value === 'string' && value !== '';
}

function isMap(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function instanceOf(url: string, health: Fields): Instance {
  const configuration = isMap(health.configuration) ? health.configuration : {};
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

function text(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, TEXT_CHARACTERS_MAX) : '';
}
