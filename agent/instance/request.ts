import { type IncomingMessage, type RequestOptions, request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { systemCode } from '../../core/errors.ts';

/** Most bytes of a response. */
// A pipeline status contains the last messages of the pipeline.
const RESPONSE_BYTES_MAX = 4 << 20;

/** The fields of a JSON object. */
export type Fields = Readonly<Record<string, unknown>>;

/** Outcome of a request to an instance; `why` is a part of a sentence. */
export type InstanceReply =
  /** A JSON object. */
  | { readonly kind: 'json'; readonly body: Fields }
  /** HTTP 401 or 403. */
  | { readonly kind: 'key-needed'; readonly why: string }
  /** No complete response in time. `isLate` is false if the connection was refused or broke. */
  | { readonly kind: 'no-response'; readonly why: string; readonly isLate: boolean }
  /** Any other response. */
  | { readonly kind: 'unusable'; readonly why: string };

/** What a request needs beside its path. */
export interface RequestSettings {
  /** Base URL of the instance; it may have a path. */
  readonly url: string;
  /** API key; empty for none. */
  readonly apiKey: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** Requests a JSON object from an instance. Rejects only if the signal aborts. */
export async function getJson(path: string, settings: RequestSettings): Promise<InstanceReply> {
  const timeout = AbortSignal.timeout(settings.timeoutMs);
  const { signal } = settings;
  try {
    const response = await send(urlBelow(settings.url, path), {
      headers: settings.apiKey === '' ? {} : { 'X-API-Key': settings.apiKey },
      // The server closes idle connections at a time of its own: a kept one may break under the next request.
      agent: false,
      signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
    });
    return await replyOf(path, response);
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof Error)) throw error;
    if (timeout.aborted) {
      const why = `it does not respond within ${settings.timeoutMs} ms`;
      return { kind: 'no-response', why, isLate: true };
    }
    return failureOf(error);
  }
}

/** Returns the URL of a path below the base URL, which may have a path of its own. */
function urlBelow(base: string, path: string): URL {
  const url = new URL(base);
  url.pathname = `${url.pathname.replace(/\/+$/, '')}${path}`;
  url.search = '';
  url.hash = '';
  return url;
}

function send(url: URL, options: RequestOptions): Promise<IncomingMessage> {
  const request = url.protocol === 'https:' ? requestHttps : requestHttp;
  return new Promise((resolve, reject) => {
    request(url, options, resolve).once('error', reject).end();
  });
}

async function replyOf(path: string, response: IncomingMessage): Promise<InstanceReply> {
  const status = response.statusCode ?? 0;
  if (status !== 200) {
    response.destroy();
    const why = `${path} is HTTP ${status}`;
    return { kind: status === 401 || status === 403 ? 'key-needed' : 'unusable', why };
  }
  const text = await boundedText(response);
  if (text === undefined) return { kind: 'unusable', why: `${path} is longer than 4 MiB` };
  const body = parsed(text);
  if (typeof body === 'object' && body !== null && !Array.isArray(body))
    return { kind: 'json', body: body as Fields };
  return { kind: 'unusable', why: `${path} is no JSON object` };
}

/** Returns a response as text; undefined if it is too long. */
async function boundedText(response: IncomingMessage): Promise<string | undefined> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    bytes += part.length;
    // Leaving the loop closes the connection.
    if (bytes > RESPONSE_BYTES_MAX) return undefined;
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The caller reports a response that is no JSON.
    return undefined;
  }
}

function failureOf(error: Error): InstanceReply {
  const code = systemCode(error) ?? '';
  if (code === 'ECONNREFUSED') return { kind: 'no-response', why: 'it refuses connections', isLate: false };
  if (/^(?:HPE_|ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO)/.test(code))
    return { kind: 'unusable', why: `its response cannot be read (${code})` };
  return { kind: 'no-response', why: `the connection failed (${code || error.message})`, isLate: false };
}
