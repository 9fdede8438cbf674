// A stand-in for OpenAI's chat and embedding calls on loopback: the same request gets the same reply.
//
// Directives in the text of a document act on the chunk that has them:
//   @@FAIL500@@ (any status)   the extraction of this chunk fails
//   @@FAILWHILE:key@@          it fails while the key is on
//   @@HANG@@ @@DROP@@          it gets no reply; its connection is closed
//   @@SLOW:ms@@                its reply comes later
//   @@EMBED500@@               any text with it cannot be embedded
// Directives for replies are in fake-extraction.ts, those for vectors in fake-vectors.ts.
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { atEnd, type Scope } from '../place.ts';
import { directive } from './fake-extraction.ts';
import { type Message, type Prompt, promptOf } from './fake-prompts.ts';
import { embed } from './fake-vectors.ts';

/** The dimension of the embeddings, unless a request names another. */
export const DIMENSION = 128;
const PIECE_CHARACTERS = 40;
const KEEP_ALIVE_MS = 65_000;

interface ChatRequest {
  readonly messages?: readonly Message[];
  readonly model?: string;
  readonly stream?: boolean;
  readonly stream_options?: { readonly include_usage?: boolean };
}

interface EmbeddingRequest {
  readonly input?: string | readonly (string | number)[];
  readonly dimensions?: number;
  readonly encoding_format?: string;
}

/** A running fake. */
export class FakeOpenAi {
  /** Keys that are on, for @@FAILWHILE:key@@. */
  readonly failing = new Set<string>();
  /** Time before every chat reply and every embedding, in milliseconds. */
  chatDelayMs = 0;
  embeddingDelayMs = 0;
  /** HTTP status of all chats, and of all embeddings; 0: they succeed. */
  chatStatus = 0;
  embeddingStatus = 0;
  chats = 0;
  embeddings = 0;
  readonly #server: Server;

  private constructor() {
    this.#server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) => {
      // A server that is killed takes its connections with it.
      this.#serve(request, response).catch(() => response.destroy());
    });
  }

  /** Starts a fake on a free port; it ends with the scope. */
  static async start(scope: Scope): Promise<FakeOpenAi> {
    const fake = new FakeOpenAi();
    await new Promise<void>((resolve) => fake.#server.listen(0, '127.0.0.1', resolve));
    atEnd(scope, () => {
      fake.#server.closeAllConnections();
      fake.#server.close();
    });
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1`;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const raw = Buffer.concat(parts);
    const body: unknown = raw.length === 0 ? {} : JSON.parse(raw.toString('utf8'));
    const path = (request.url ?? '').replace(/^\/v1/, '').replace(/\?.*/, '');
    if (path === '/chat/completions') await this.#chat(body as ChatRequest, raw, response);
    else if (path === '/embeddings') await this.#embed(body as EmbeddingRequest, response);
    else if (path === '/models') sendJson(response, 200, { object: 'list', data: [] });
    else sendError(response, 404, `no such path: ${path}`);
  }

  async #embed(request: EmbeddingRequest, response: ServerResponse): Promise<void> {
    const { input = '', dimensions = DIMENSION, encoding_format } = request;
    this.embeddings += 1;
    if (this.embeddingDelayMs > 0) await sleep(this.embeddingDelayMs);
    const texts = typeof input === 'string' ? [input] : input.map(String);
    if (this.embeddingStatus > 0) return sendError(response, this.embeddingStatus, 'embeddings fail');
    if (texts.some((text) => text.includes('@@EMBED500@@'))) return sendError(response, 500, 'not this text');
    const data = texts.map((text, index) => {
      const vector = embed(text, dimensions);
      const bytes = Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength);
      const embedding = encoding_format === 'base64' ? bytes.toString('base64') : [...vector];
      return { object: 'embedding', index, embedding };
    });
    const tokens = texts.reduce((sum, text) => sum + Math.ceil(text.length / 4), 0);
    const usage = { prompt_tokens: tokens, total_tokens: tokens };
    sendJson(response, 200, { object: 'list', data, model: 'fake', usage });
  }

  async #chat(request: ChatRequest, raw: Buffer, response: ServerResponse): Promise<void> {
    const prompt = promptOf(request.messages ?? []);
    this.chats += 1;
    const delayMs = this.chatDelayMs + directive(prompt.text, 'SLOW');
    if (delayMs > 0) await sleep(delayMs);
    if (response.destroyed) return;
    if (prompt.kind === 'extraction') {
      if (prompt.text.includes('@@HANG@@')) return;
      if (prompt.text.includes('@@DROP@@')) {
        response.destroy();
        return;
      }
    }
    const status = this.#statusOf(prompt);
    if (status > 0) sendError(response, status, `set to fail with ${status}`);
    else sendCompletion(request, raw, prompt.reply(), response);
  }

  #statusOf({ kind, text }: Prompt): number {
    if (this.chatStatus > 0 || kind !== 'extraction') return this.chatStatus;
    const keys = [...text.matchAll(/@@FAILWHILE:([\w-]+)@@/g)].map(([, key = '']) => key);
    if (keys.some((key) => this.failing.has(key))) return 500;
    return Number(/@@FAIL(\d{3})@@/.exec(text)?.[1] ?? 0);
  }
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const text = JSON.stringify(value);
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
  response.writeHead(status, headers).end(text);
}

function sendError(response: ServerResponse, status: number, message: string): void {
  const type = status === 429 ? 'rate_limit_error' : 'fake_error';
  sendJson(response, status, { error: { message, type, param: null, code: null } });
}

function sendCompletion(request: ChatRequest, raw: Buffer, content: string, response: ServerResponse): void {
  const id = `chatcmpl-${createHash('md5').update(raw).digest('hex').slice(0, 24)}`;
  const about = { id, created: 1_700_000_000, model: request.model ?? 'fake' };
  const [asked, said] = [Math.ceil(raw.length / 4), Math.ceil(content.length / 4)];
  const usage = { prompt_tokens: asked, completion_tokens: said, total_tokens: asked + said };
  if (request.stream !== true) {
    const message = { role: 'assistant', content, refusal: null };
    const choices = [{ index: 0, message, logprobs: null, finish_reason: 'stop' }];
    sendJson(response, 200, { ...about, object: 'chat.completion', choices, usage });
    return;
  }
  const send = (choices: unknown, more: object = {}) => {
    const event = { ...about, object: 'chat.completion.chunk', choices, ...more };
    response.write(`data: ${JSON.stringify(event)}\n\n`);
  };
  const delta = (text: string) => [
    { index: 0, delta: { role: 'assistant', content: text }, finish_reason: null },
  ];
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  // By code points: no piece ends in the middle of one.
  const points = Array.from(content);
  for (let at = 0; at < points.length; at += PIECE_CHARACTERS)
    send(delta(points.slice(at, at + PIECE_CHARACTERS).join('')));
  send([{ index: 0, delta: {}, finish_reason: 'stop' }]);
  if (request.stream_options?.include_usage === true) send([], { usage });
  response.end('data: [DONE]\n\n');
}
