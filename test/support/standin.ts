import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { Scope } from './place.ts';
import { BUILT, type Ended, Running, type StartOptions } from './program.ts';

/** The stand-in as it is built. */
export const INSTANCE = join(BUILT, '../instance.js');
/** A small graph that changes only when it is asked to. */
export const CALM = ['--ingest-every', '0', '--query-every', '0', '--documents', '5', '--dimension', '8'];
const READY_WITHIN_MS = 20_000;
const ANSWERS_WITHIN_MS = 20_000;

/** An answer of an instance. */
export interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

/** A running stand-in instance. */
export interface StandIn {
  readonly running: Running;
  readonly url: string;
  /** Asks for a route such as `GET /digest`. */
  ask(route: string, headers?: Record<string, string>): Promise<Answer>;
  /** A name for all that it knows. */
  digest(headers?: Record<string, string>): Promise<string>;
  /** Ends it by SIGTERM. */
  stop(): Promise<Ended>;
}

/**
 * Starts an instance and waits until it serves. When the test ends it is killed and waited for: it would write
 * while its directory is removed.
 */
export async function startStandIn(
  t: Scope,
  dir: string,
  flags: readonly string[] = [],
  options: StartOptions = {},
): Promise<StandIn> {
  const running = new Running([process.execPath, INSTANCE, '--dir', dir, ...CALM, ...flags], options);
  running.endWith(t);
  await running.until('it serves', () => running.stdout.includes('\n'), READY_WITHIN_MS);
  const { ready, port, pid } = JSON.parse(running.stdout) as { ready: boolean; port: number; pid: number };
  assert.deepEqual([ready, pid], [true, running.pid]);
  const url = `http://127.0.0.1:${port}`;
  const ask: StandIn['ask'] = async (route, headers = {}) => {
    const [method = '', path = ''] = route.split(' ');
    const signal = AbortSignal.timeout(ANSWERS_WITHIN_MS);
    const response = await fetch(`${url}${path}`, { method, headers, signal });
    return { status: response.status, body: (await response.json()) as Answer['body'] };
  };
  const digest = async (headers: Record<string, string> = {}) => {
    const { status, body } = await ask('GET /digest', headers);
    assert.equal(status, 200, JSON.stringify(body));
    return String(body.digest);
  };
  return { running, url, ask, digest, stop: () => running.stop() };
}
