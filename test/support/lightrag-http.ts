import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { atEnd, type Scope } from './place.ts';

/** Replies to one request, or leaves it open. */
export type Reply = (response: ServerResponse, request: IncomingMessage) => void;

/** A server with the two calls that are asked of LightRAG; its replies can be changed while it runs. */
export interface LightRagHttp {
  readonly url: string;
  /** Paths that were requested so far. */
  readonly requests: string[];
  health: Reply;
  status: Reply;
  /** Closes it and all its connections; it then refuses connections. */
  close(): Promise<void>;
}

/** Returns a reply with a JSON body. */
export function json(body: unknown, status = 200): Reply {
  return (response) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  };
}

/** Returns the health of LightRAG 1.5.7 with credentials. */
export function healthOf(dir: string, more: Readonly<Record<string, unknown>> = {}) {
  const storages = {
    kv_storage: 'JsonKVStorage',
    doc_status_storage: 'JsonDocStatusStorage',
    graph_storage: 'NetworkXStorage',
    vector_storage: 'NanoVectorDBStorage',
  };
  return {
    status: 'healthy',
    core_version: '1.5.7',
    api_version: '0344',
    auth_mode: 'disabled',
    working_directory: dir,
    configuration: { ...storages, workspace: '', embedding_model: 'bge-m3', embedding_dim: 1024, ...more },
  };
}

/** What /health of LightRAG 1.5.7 says without credentials. */
export const PARTIAL_HEALTH = {
  status: 'healthy',
  core_version: '1.5.7',
  api_version: '0344',
  auth_mode: 'enabled',
};

/** The pipeline status of an idle LightRAG 1.5.7. */
export const IDLE = {
  busy: false,
  job_name: '-',
  latest_message: '',
  history_messages: [],
  update_status: { full_docs: [false], text_chunks: [false] },
  destructive_busy: false,
  scanning: false,
  pending_enqueues: 0,
};

/** Starts a server that responds as LightRAG does for `dir`, idle, below a path such as `/rag`. */
export async function serveLightRag(t: Scope, dir: string, prefix = ''): Promise<LightRagHttp> {
  const requests: string[] = [];
  const replies = { health: json(healthOf(dir)), status: json(IDLE) };
  const server = createServer((request, response) => {
    const { url = '' } = request;
    requests.push(url);
    if (url === `${prefix}/health`) served.health(response, request);
    else if (url === `${prefix}/documents/pipeline_status`) served.status(response, request);
    else json({ detail: 'Not Found' }, 404)(response, request);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const close = async () => {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  };
  atEnd(t, close);
  const { port } = server.address() as AddressInfo;
  const served = { url: `http://127.0.0.1:${port}${prefix}`, requests, close, ...replies };
  return served;
}
