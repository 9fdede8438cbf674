// A real LightRAG server as a process, with a clean environment, against a fake of OpenAI.
import { mkdirSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Scope } from '../place.ts';
import { Running } from '../program.ts';
import { LightRagApi } from './api.ts';
import { DIMENSION, type FakeOpenAi } from './fake-openai.ts';
import type { Installed } from './install.ts';

const UP_WITHIN_MS = 120_000;
const ENDS_WITHIN_MS = 60_000;
const POLL_MS = 150;
const LOG_TAIL = 1500;

/** Where a server runs, and what it is told beside the defaults; an empty setting removes one. */
export interface ServerPlace {
  readonly installed: Installed;
  readonly fake: FakeOpenAi;
  /** WORKING_DIR. */
  readonly dir: string;
  /** A folder for what is not part of the graph: inputs, log. */
  readonly beside: string;
  readonly settings?: Readonly<Record<string, string>>;
}

/** A server that did not come up, with the end of its log. */
export class ServerRefused extends Error {
  override readonly name = 'ServerRefused';
}

/** Returns a free port of the loopback address. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/** Returns the environment of a server or of a library call. */
export function environment(place: ServerPlace): Record<string, string> {
  const { installed, fake, dir, beside } = place;
  const all: Record<string, string> = {
    PATH: '/usr/local/bin:/usr/bin:/bin',
    HOME: beside,
    LANG: 'C.UTF-8',
    PYTHONUTF8: '1',
    PYTHONUNBUFFERED: '1',
    TIKTOKEN_CACHE_DIR: installed.vocabularies,
    NO_PROXY: '127.0.0.1,localhost',
    HOST: '127.0.0.1',
    WORKERS: '1',
    WORKING_DIR: dir,
    INPUT_DIR: join(beside, 'inputs'),
    WORKSPACE: '',
    LOG_DIR: beside,
    LOG_LEVEL: 'INFO',
    LLM_BINDING: 'openai',
    LLM_BINDING_HOST: fake.url,
    LLM_BINDING_API_KEY: 'sk-fake',
    OPENAI_API_KEY: 'sk-fake',
    LLM_MODEL: 'gpt-4o-mini',
    EMBEDDING_BINDING: 'openai',
    EMBEDDING_BINDING_HOST: fake.url,
    EMBEDDING_BINDING_API_KEY: 'sk-fake',
    EMBEDDING_MODEL: 'text-embedding-3-small',
    EMBEDDING_DIM: `${DIMENSION}`,
    EMBEDDING_SEND_DIM: 'false',
    RERANK_BINDING: 'null',
    ENABLE_LLM_CACHE: 'true',
    ENABLE_LLM_CACHE_FOR_EXTRACT: 'true',
    LIGHTRAG_KV_STORAGE: 'JsonKVStorage',
    LIGHTRAG_VECTOR_STORAGE: 'NanoVectorDBStorage',
    LIGHTRAG_GRAPH_STORAGE: 'NetworkXStorage',
    LIGHTRAG_DOC_STATUS_STORAGE: 'JsonDocStatusStorage',
    MAX_ASYNC: '4',
    MAX_PARALLEL_INSERT: '2',
    EMBEDDING_FUNC_MAX_ASYNC: '8',
    EMBEDDING_BATCH_NUM: '10',
    LLM_TIMEOUT: '30',
    EMBEDDING_TIMEOUT: '30',
    SUMMARY_LANGUAGE: 'English',
    CHUNK_SIZE: '400',
    CHUNK_OVERLAP_SIZE: '40',
    MAX_GLEANING: '1',
    FORCE_LLM_SUMMARY_ON_MERGE: '4',
    COSINE_THRESHOLD: '0.2',
    ...place.settings,
  };
  return Object.fromEntries(
    Object.entries(all).filter(([name, value]) => value !== '' || name === 'WORKSPACE'),
  );
}

/** Returns a command that starts a Python of an install with an environment of its own. */
export function pythonCommand(
  installed: Installed,
  env: Record<string, string>,
  ...args: string[]
): string[] {
  const settings = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  return ['env', '-i', ...settings, installed.python, ...args];
}

/** A server that serves. */
export class LightRagServer {
  readonly running: Running;
  readonly api: LightRagApi;
  /** Time from the start of the process to its first reply, in milliseconds. */
  readonly upAfterMs: number;

  private constructor(running: Running, api: LightRagApi, upAfterMs: number) {
    this.running = running;
    this.api = api;
    this.upAfterMs = upAfterMs;
  }

  /** Starts a server and waits until it serves; throws `ServerRefused` if it ends before. */
  static async start(scope: Scope, place: ServerPlace): Promise<LightRagServer> {
    const port = await freePort();
    mkdirSync(join(place.beside, 'inputs'), { recursive: true });
    mkdirSync(place.dir, { recursive: true });
    // Without this file in its folder it asks on a terminal.
    writeFileSync(join(place.beside, '.env'), '');
    const env = { ...environment(place), PORT: `${port}` };
    const main = 'from lightrag.api.lightrag_server import main; main()';
    const running = new Running(pythonCommand(place.installed, env, '-c', main), { cwd: place.beside });
    running.endWith(scope);
    const began = performance.now();
    const api = new LightRagApi(`http://127.0.0.1:${port}`);
    while ((await api.health()).status !== 200) {
      if (running.hasEnded) throw new ServerRefused(running.text.trim().slice(-LOG_TAIL));
      if (performance.now() - began > UP_WITHIN_MS) {
        running.kill('SIGKILL');
        throw new Error(`the server does not come up: ${running.text.slice(-LOG_TAIL)}`);
      }
      await sleep(POLL_MS);
    }
    return new LightRagServer(running, api, performance.now() - began);
  }

  /** Ends the server by a signal and waits for its end. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.running.kill(signal);
    const late = setTimeout(() => this.running.kill('SIGKILL'), ENDS_WITHIN_MS);
    await this.running.ended.finally(() => clearTimeout(late));
  }
}
