// LightRAG's REST API, 1.4.9 to 1.5. A refused call is a reply as any other: a scenario looks at its status.
import { type Dirent, readdirSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const CALL_MS = 120_000;
/** Time between two questions whether a server has settled. */
const POLL_MS = 150;
/** How long nothing may have happened before a server counts as settled, and if a file flag is still set. */
const STILL_MS = 1000;
const STUCK_MS = 4000;
const SETTLED_WITHIN_MS = 180_000;
/** Steps of the pipeline in which it works on a document. */
const UNDER_WAY = new Set(['pending', 'processing', 'parsing', 'analyzing', 'preprocessed']);
const BUSY_FIELDS = ['busy', 'request_pending', 'scanning', 'scanning_exclusive', 'destructive_busy'];
/** Namespaces whose flag means "load again", not "not written yet". */
const RELOAD_FLAGS = new Set(['entities', 'relationships', 'chunks', 'chunk_entity_relation']);

export type Json = Readonly<Record<string, unknown>>;

/** A reply; status 0 means that there was none. */
export interface Reply {
  readonly status: number;
  readonly body: unknown;
}

/** A document as the API lists it. */
export interface ListedDocument {
  readonly id: string;
  readonly status: string;
  readonly file_path?: string;
  readonly chunks_count?: number | null;
}

/** What was seen of a server that was waited for. */
export interface Settled {
  readonly isSettled: boolean;
  /** Namespaces that it still calls unwritten. */
  readonly stuck: readonly string[];
  /** What it was busy with at last. */
  readonly busy: readonly string[];
}

export interface SettleOptions {
  /** Documents under way are not waited for: nothing will go on with them. */
  readonly ignoresUnfinished?: boolean;
  readonly withinMs?: number;
}

export const QUERY_MODES = ['local', 'global', 'hybrid', 'naive', 'mix', 'bypass'] as const;

interface Payload {
  readonly type: string;
  readonly bytes: Buffer;
}

/** The fields of a reply; none if it is no object. */
export function fieldsOf(reply: Reply): Json {
  return typeof reply.body === 'object' && reply.body !== null ? (reply.body as Json) : {};
}

/** Returns sizes and times of all files below a folder, as one text to compare. */
export function filesMark(folder: string): string {
  const marks: string[] = [];
  for (const entry of entriesOf(folder)) {
    const path = join(entry.parentPath, entry.name);
    const stat = entry.isFile() ? statSync(path, { bigint: true, throwIfNoEntry: false }) : undefined;
    if (stat !== undefined) marks.push(`${path} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs}`);
  }
  return marks.sort().join('\n');
}

function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { recursive: true, withFileTypes: true });
  } catch {
    return []; // Not there yet.
  }
}

/** The client of one server. */
export class LightRagApi {
  readonly url: string;

  constructor(url: string) {
    this.url = url;
  }

  /** Makes a call on a connection of its own: a server closes idle ones after five seconds. */
  async #send(method: string, path: string, payload?: Payload): Promise<Reply> {
    const headers =
      payload === undefined ? {} : { 'content-type': payload.type, 'content-length': payload.bytes.length };
    try {
      const [status, text] = await new Promise<[number, string]>((resolve, reject) => {
        const options = { method, headers, agent: false, timeout: CALL_MS } as const;
        const call = request(this.url + path, options, (response) => {
          const parts: Buffer[] = [];
          response.on('data', (part: Buffer) => parts.push(part));
          response.on('end', () =>
            resolve([response.statusCode ?? 0, Buffer.concat(parts).toString('utf8')]),
          );
          response.on('error', reject);
        });
        call.on('timeout', () => call.destroy(new Error('timeout')));
        call.on('error', reject);
        call.end(payload?.bytes);
      });
      return { status, body: parsed(text) };
    } catch (error) {
      return { status: 0, body: String(error) };
    }
  }

  call(method: string, path: string, body?: Json): Promise<Reply> {
    const payload = { type: 'application/json', bytes: Buffer.from(JSON.stringify(body ?? {})) };
    return this.#send(method, path, body === undefined ? undefined : payload);
  }

  get(path: string): Promise<Reply> {
    return this.call('GET', path);
  }

  post(path: string, body: Json = {}): Promise<Reply> {
    return this.call('POST', path, body);
  }

  // ----- documents

  insert(text: string, source?: string): Promise<Reply> {
    return this.post('/documents/text', source === undefined ? { text } : { text, file_source: source });
  }

  insertAll(texts: readonly string[], sources?: readonly string[]): Promise<Reply> {
    return this.post(
      '/documents/texts',
      sources === undefined ? { texts } : { texts, file_sources: sources },
    );
  }

  async upload(name: string, content: string | Uint8Array<ArrayBuffer>): Promise<Reply> {
    const form = new FormData();
    form.set('file', new Blob([content]), name);
    const encoded = new Response(form);
    const bytes = Buffer.from(await encoded.arrayBuffer());
    return this.#send('POST', '/documents/upload', {
      type: encoded.headers.get('content-type') ?? '',
      bytes,
    });
  }

  scan(): Promise<Reply> {
    return this.post('/documents/scan');
  }

  remove(ids: readonly string[], options: { withCache?: boolean; withFile?: boolean } = {}): Promise<Reply> {
    const { withCache = false, withFile = false } = options;
    const body = { doc_ids: ids, delete_file: withFile, delete_llm_cache: withCache };
    return this.call('DELETE', '/documents/delete_document', body);
  }

  clear(): Promise<Reply> {
    return this.call('DELETE', '/documents');
  }

  clearCache(): Promise<Reply> {
    return this.post('/documents/clear_cache');
  }

  reprocess(): Promise<Reply> {
    return this.post('/documents/reprocess_failed');
  }

  cancel(): Promise<Reply> {
    return this.post('/documents/cancel_pipeline');
  }

  /** Returns every document, by whichever listing the version has. */
  async documents(): Promise<ListedDocument[]> {
    const found: ListedDocument[] = [];
    for (let page = 1; ; page++) {
      const reply = await this.post('/documents/paginated', { page, page_size: 200 });
      const { documents = [], pagination } = fieldsOf(reply) as {
        documents?: ListedDocument[];
        pagination?: { has_next?: boolean };
      };
      if (reply.status !== 200)
        throw new Error(`no list of documents: ${reply.status} ${String(reply.body)}`);
      for (const one of documents) found.push({ ...one, status: one.status.toLowerCase() });
      if (pagination?.has_next !== true) return found;
    }
  }

  // ----- graph

  createEntity(name: string, data: Json = {}): Promise<Reply> {
    return this.post('/graph/entity/create', { entity_name: name, entity_data: data });
  }

  createRelation(source: string, target: string, data: Json = {}): Promise<Reply> {
    const body = { source_entity: source, target_entity: target, relation_data: data };
    return this.post('/graph/relation/create', body);
  }

  editEntity(
    name: string,
    data: Json,
    options: { renames?: boolean; merges?: boolean } = {},
  ): Promise<Reply> {
    const { renames = false, merges = false } = options;
    const body = { entity_name: name, updated_data: data, allow_rename: renames, allow_merge: merges };
    return this.post('/graph/entity/edit', body);
  }

  editRelation(source: string, target: string, data: Json): Promise<Reply> {
    return this.post('/graph/relation/edit', { source_id: source, target_id: target, updated_data: data });
  }

  merge(names: readonly string[], into: string): Promise<Reply> {
    return this.post('/graph/entities/merge', { entities_to_change: names, entity_to_change_into: into });
  }

  /** Deletes by the path of 1.5, or by the one before. */
  async #delete(paths: readonly [string, string], body: Json): Promise<Reply> {
    const reply = await this.call('DELETE', paths[0], body);
    const isMissing = reply.status === 404 && fieldsOf(reply).detail === 'Not Found';
    return isMissing || reply.status === 405 ? await this.call('DELETE', paths[1], body) : reply;
  }

  deleteEntity(name: string): Promise<Reply> {
    const paths = ['/graph/entity/delete', '/documents/delete_entity'] as const;
    return this.#delete(paths, { entity_name: name });
  }

  deleteRelation(source: string, target: string): Promise<Reply> {
    const paths = ['/graph/relation/delete', '/documents/delete_relation'] as const;
    return this.#delete(paths, { source_entity: source, target_entity: target });
  }

  labels(): Promise<Reply> {
    return this.get('/graph/label/list');
  }

  // ----- queries

  query(query: string, mode = 'mix', more: Json = {}): Promise<Reply> {
    return this.post('/query', { query, mode, ...more });
  }

  queryData(query: string, mode = 'mix', more: Json = {}): Promise<Reply> {
    return this.post('/query/data', { query, mode, ...more });
  }

  // ----- waiting

  health(): Promise<Reply> {
    return this.get('/health');
  }

  /** Returns what the pipeline is busy with, and namespaces that it calls unwritten. */
  async pipeline(): Promise<{ busy: string[]; unwritten: string[] }> {
    const reply = await this.get('/documents/pipeline_status');
    if (reply.status !== 200) return { busy: [`pipeline_status ${reply.status}`], unwritten: [] };
    const fields = fieldsOf(reply);
    const busy = BUSY_FIELDS.filter((name) => fields[name] === true);
    if (Number(fields.pending_enqueues ?? 0) > 0) busy.push('pending_enqueues');
    const flags = Object.entries((fields.update_status ?? {}) as Json);
    const isSet = (flag: unknown) => [flag].flat().some((one) => one === true);
    const unwritten = flags.filter(([name, flag]) => isSet(flag) && !RELOAD_FLAGS.has(name));
    return { busy, unwritten: unwritten.map(([name]) => name) };
  }

  /** Waits until the pipeline is idle, no document is under way, and the files of a folder stand still. */
  async settle(folder: string, options: SettleOptions = {}): Promise<Settled> {
    const { ignoresUnfinished = false, withinMs = SETTLED_WITHIN_MS } = options;
    const end = performance.now() + withinMs;
    let [mark, since] = ['', performance.now()];
    for (;;) {
      const { busy, unwritten } = await this.pipeline();
      const listed = ignoresUnfinished ? [] : await this.documents().catch(() => []);
      const underWay = listed.filter(({ status }) => UNDER_WAY.has(status)).map(({ id }) => id);
      const now = filesMark(folder);
      const isStill = busy.length === 0 && underWay.length === 0 && now === mark;
      const at = performance.now();
      if (!isStill) since = at;
      // A flag may stay set for good after a failed document.
      if (at - since >= (unwritten.length > 0 ? STUCK_MS : STILL_MS))
        return { isSettled: true, stuck: unwritten, busy: [] };
      if (at > end) return { isSettled: false, stuck: unwritten, busy: [...busy, ...underWay] };
      mark = now;
      await sleep(POLL_MS);
    }
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text; // A stream, or the page of an error.
  }
}
