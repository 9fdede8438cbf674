import { timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { ioError, normalise } from '../../core/errors.ts';
import type { Version } from '../version.ts';
import type { Flush } from './flush.ts';
import type { Memory } from './memory.ts';
import type { InstanceOptions } from './options.ts';
import { type Pipeline, updateFlags } from './pipeline.ts';

/** The parts of an instance that its API serves. */
export interface Served {
  readonly memory: Memory;
  readonly flush: Flush;
  readonly pipeline: Pipeline;
  readonly options: InstanceOptions;
}

interface Reply {
  readonly status: number;
  readonly body: unknown;
}

type Route = (served: Served, query: URLSearchParams, isAuthenticated: boolean) => Reply | Promise<Reply>;

const REQUEST_TIMEOUT_MS = 10_000;
const OPEN_PATH = '/health';
/** Versions as the server names them. */
const NAMED: Readonly<Record<Version, { core_version: string; api_version: string }>> = {
  '1.5.7': { core_version: '1.5.7', api_version: '0344' },
  '1.4.9.11': { core_version: 'v1.4.9.11', api_version: '0268' },
};
const STORAGES = {
  file: ['JsonKVStorage', 'JsonDocStatusStorage', 'NetworkXStorage', 'NanoVectorDBStorage'],
  postgres: ['PGKVStorage', 'PGDocStatusStorage', 'PGGraphStorage', 'PGVectorStorage'],
} as const;

const ok = (body: unknown): Reply => ({ status: 200, body });

const ROUTES: Readonly<Record<string, Route>> = {
  'GET /health': (served, _, isAuthenticated) => ok(health(served, isAuthenticated)),
  'GET /documents/pipeline_status': (served) => ok(pipelineStatus(served)),
  'GET /documents': ({ memory }) => ok({ documents: memory.documents() }),
  'POST /documents': async ({ pipeline }, query) => {
    return ok({ status: 'success', id: await pipeline.ingest({ fails: query.get('fail') === '1' }) });
  },
  'POST /documents/reprocess_failed': async ({ pipeline }) => {
    return ok({ status: 'success', ids: await pipeline.reprocess() });
  },
  'DELETE /documents': async ({ pipeline }, query) => {
    const id = query.get('id');
    if (id === null) {
      await pipeline.clear();
      return ok({ status: 'success' });
    }
    const there = await pipeline.deleteDocument(id);
    return there ? ok({ status: 'success' }) : { status: 404, body: { detail: 'Document not found' } };
  },
  'GET /query': answerQuery,
  'GET /digest': ({ memory }) => ok({ digest: memory.digest() }),
  'POST /pause': async ({ pipeline }) => {
    await pipeline.pause();
    return ok({ paused: true });
  },
  'POST /resume': ({ pipeline }) => {
    pipeline.resume();
    return ok({ paused: false });
  },
};

/** An open port. */
export interface Port {
  /** Port number. */
  readonly port: number;
  /** Refuses new connections; open ones are still served. */
  readonly refuse: () => void;
  /** Closes every connection. Resolves when they have ended. */
  readonly close: () => Promise<void>;
}

/** Serves the API on a port until it is closed. Throws IO if the port is not available. */
export async function serve(served: Served): Promise<Port> {
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
    reply(request, served)
      .catch((error: unknown) => failed(error))
      .then((answer) => {
        // A connection that was busy when the port closed would otherwise stay open as long as it is used.
        if (!server.listening) response.setHeader('connection', 'close');
        send(response, answer);
      });
  });
  await listen(server, served.options);
  const { port } = server.address() as AddressInfo;
  const closed = new Promise<void>((done) => server.once('close', done));
  return {
    port,
    refuse: () => {
      server.close();
    },
    close: () => {
      server.close();
      server.closeAllConnections();
      return closed;
    },
  };
}

function failed(error: unknown): Reply {
  const { code, message } = normalise(error);
  return { status: code === 'UNAVAILABLE' ? 503 : 500, body: { detail: message } };
}

function listen(server: Server, { host, port }: InstanceOptions): Promise<void> {
  return new Promise((done, reject) => {
    server.once('error', (error) => reject(ioError('listen on', `${host}:${port}`, error)));
    server.listen(port, host, done);
  });
}

async function reply(request: IncomingMessage, served: Served): Promise<Reply> {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://instance');
  const refused = refusal(request.headers['x-api-key'], served.options.apiKey);
  if (refused !== undefined && pathname !== OPEN_PATH) return { status: 403, body: { detail: refused } };
  const route = ROUTES[`${request.method} ${pathname}`];
  if (route !== undefined) return await route(served, searchParams, refused === undefined);
  const known = Object.keys(ROUTES).some((one) => one.endsWith(` ${pathname}`));
  return known
    ? { status: 405, body: { detail: 'Method Not Allowed' } }
    : { status: 404, body: { detail: 'Not Found' } };
}

/** Returns LightRAG's refusal of a key; undefined for the right one. */
function refusal(key: string | string[] | undefined, wanted: string): string | undefined {
  if (wanted === '') return undefined;
  if (key === undefined || key === '') return 'API Key required';
  const [given, right] = [Buffer.from(String(key)), Buffer.from(wanted)];
  return given.length === right.length && timingSafeEqual(given, right) ? undefined : 'Invalid API Key';
}

function send(response: ServerResponse, { status, body }: Reply): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(body)}\n`);
}

async function answerQuery({ memory, pipeline }: Served, query: URLSearchParams): Promise<Reply> {
  const entity = query.get('entity');
  if (entity === null) return { status: 422, body: { detail: 'Cannot answer without "entity"' } };
  const answer = memory.answer(entity);
  if (answer === undefined) return { status: 404, body: { detail: `Entity '${entity}' not found` } };
  if (query.get('cache') !== '0') await pipeline.query();
  return ok(answer);
}

/** Returns what `/health` tells. Since 1.5, callers without a key learn only that the server lives. */
function health({ options, memory, pipeline }: Served, isAuthenticated: boolean) {
  const { dir, version, apiKey } = options;
  const live = {
    status: 'healthy',
    auth_mode: apiKey === '' ? 'disabled' : 'enabled',
    ...NAMED[version],
    webui_available: true,
    webui_title: null,
    webui_description: null,
    pipeline_busy: pipeline.status.busy,
  };
  const where = {
    working_directory: resolve(dir),
    input_directory: join(dirname(resolve(dir)), 'inputs'),
    configuration: configuration(options, memory),
  };
  if (version === '1.4.9.11') return { ...live, ...where };
  const { busy, isDestructive, waiting } = pipeline.status;
  const active = { ...live, pipeline_active: busy || waiting > 0 };
  if (!isAuthenticated) return active;
  const work = {
    pipeline_scanning: false,
    pipeline_destructive_busy: isDestructive,
    pipeline_pending_enqueues: waiting,
  };
  return { ...active, ...where, ...work };
}

function configuration({ storage, workspace }: InstanceOptions, memory: Memory) {
  const [kv_storage, doc_status_storage, graph_storage, vector_storage] = STORAGES[storage];
  return {
    llm_binding: 'stand-in',
    llm_binding_host: 'http://127.0.0.1:1/v1',
    llm_model: 'stand-in',
    embedding_binding: 'stand-in',
    embedding_binding_host: 'http://127.0.0.1:1/v1',
    embedding_model: `stand-in-${memory.dimension}`,
    kv_storage,
    doc_status_storage,
    graph_storage,
    vector_storage,
    enable_llm_cache_for_extract: true,
    enable_llm_cache: true,
    workspace,
  };
}

function pipelineStatus({ flush, pipeline, options }: Served) {
  const { busy, isDestructive, waiting, jobName, startedAt, messages } = pipeline.status;
  const count = busy ? 1 : 0;
  const counts = { docs: count, batchs: count, cur_batch: count };
  const job = { busy, job_name: jobName, job_start: startedAt, ...counts };
  const messageFields = { latest_message: messages.at(-1) ?? '', history_messages: messages };
  const update_status = updateFlags(flush, options);
  // The first job adds the fields of a cancellation.
  const cancellation = startedAt === null ? {} : { cancellation_requested: false };
  if (options.version === '1.4.9.11') {
    return {
      autoscanned: false,
      ...job,
      request_pending: waiting > 0,
      ...messageFields,
      update_status,
      ...cancellation,
    };
  }
  const fence = { recovery_required: false, recovery_kind: null, recovery_message: null };
  const slots = { destructive_busy: isDestructive, scanning: false, scanning_exclusive: false };
  const reason = startedAt === null ? {} : { cancellation_reason: null, cancellation_detail: null };
  const waits = { pending_enqueues: waiting, ...cancellation, ...reason };
  return { ...job, ...messageFields, update_status, ...fence, ...slots, ...waits };
}
