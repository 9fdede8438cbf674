import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { LightkeeperError } from '../core/errors.ts';
import { builtFile } from '../host/built.ts';

const DOCUMENTS = 60;
const READY_WITHIN_MS = 20_000;
const REPLY_WITHIN_MS = 20_000;

type Fields = Readonly<Record<string, unknown>>;

/** A running stand-in instance that writes on request only. */
export class StandIn {
  readonly url: string;
  readonly #child: ChildProcess;
  readonly #dir: string;
  #asked = 0;

  private constructor(child: ChildProcess, dir: string, port: number) {
    this.#child = child;
    this.#dir = dir;
    this.url = `http://127.0.0.1:${port}`;
  }

  /** Starts an instance on a directory, which it creates if necessary, and waits until it serves. */
  static async start(dir: string): Promise<StandIn> {
    const flags = ['--ingest-every', '0', '--query-every', '0', '--pause', '150ms', '--seed', '7'];
    const words = [builtFile('instance.js'), '--dir', dir, '--documents', String(DOCUMENTS), ...flags];
    const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    const lines = createInterface({ input: child.stdout });
    const [line] = (await Promise.race([
      once(lines, 'line', { signal: AbortSignal.timeout(READY_WITHIN_MS) }),
      once(child, 'exit').then(() => ['{}']),
    ])) as [string];
    lines.close();
    const { port } = JSON.parse(line) as { port?: number };
    if (port === undefined)
      throw new LightkeeperError('INTERNAL', 'Cannot run the demo: the instance does not start');
    return new StandIn(child, dir, port);
  }

  async #ask(method: string, path: string): Promise<Fields> {
    const signal = AbortSignal.timeout(REPLY_WITHIN_MS);
    const response = await fetch(new URL(path, this.url), { method, signal });
    if (!response.ok) {
      throw new LightkeeperError('INTERNAL', `Cannot run the demo: ${path} returned ${response.status}`);
    }
    return (await response.json()) as Fields;
  }

  /** Returns a summary of its contents for people. */
  async summary(): Promise<string> {
    const { documents } = await this.#ask('GET', '/documents');
    const { core_version, api_version } = await this.#ask('GET', '/health');
    const count = Array.isArray(documents) ? documents.length : Object.keys(documents ?? {}).length;
    return `it serves ${count} documents as LightRAG ${core_version}, API ${api_version}`;
  }

  /** Ingests one more document: its files are rewritten one after another. */
  async ingest(): Promise<void> {
    await this.#ask('POST', '/documents');
  }

  /** Returns the id of the document that was ingested last. */
  async newest(): Promise<string> {
    const { documents } = await this.#ask('GET', '/documents');
    return String((documents as { id: string }[]).at(-1)?.id);
  }

  /** Deletes a document. */
  async deleteDocument(id: string): Promise<void> {
    await this.#ask('DELETE', `/documents?id=${encodeURIComponent(id)}`);
  }

  /** Sends one query, which adds to the cache of the language model's answers. */
  async query(): Promise<void> {
    const graph = await readFile(join(this.#dir, 'graph_chunk_entity_relation.graphml'), 'utf8');
    const names = [...graph.matchAll(/<node id="([^"&]+)"/g)].map(([, name]) => name as string);
    const name = names[this.#asked++ % names.length] ?? '';
    await this.#ask('GET', `/query?entity=${encodeURIComponent(name)}`);
  }

  /** Returns a digest of its contents: instances with equal digests give the same answers. */
  async digest(): Promise<string> {
    return String((await this.#ask('GET', '/digest')).digest);
  }

  /** Kills it without a flush, like a power cut. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}
