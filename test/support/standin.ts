import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { BUILT, type Ended, killGroup, type StartOptions, start } from './command.ts';
import { atEnd, type Scope, until } from './place.ts';

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

/** How an instance ended. */
export type End = Pick<Ended, 'code' | 'signal'>;

/** A running stand-in instance. */
export interface StandIn {
  readonly child: ChildProcess;
  readonly url: string;
  /** Asks for a route such as `GET /digest`. */
  ask(route: string, headers?: Record<string, string>): Promise<Answer>;
  /** A name for all that it knows. */
  digest(headers?: Record<string, string>): Promise<string>;
  /** Sends SIGTERM and tells how it ended. */
  stop(): Promise<End>;
  readonly ended: Promise<End>;
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
  const child = start([process.execPath, INSTANCE, '--dir', dir, ...CALM, ...flags], options);
  const ended = new Promise<End>((resolve) => {
    child.once('close', (code, signal) => resolve({ code, signal }));
  });
  atEnd(t, async () => {
    killGroup(child);
    await ended;
  });
  let out = '';
  let err = '';
  child.stdout?.on('data', (data: Buffer) => (out += data.toString()));
  child.stderr?.on('data', (data: Buffer) => (err += data.toString()));
  await until('the stand-in serves', () => out.includes('\n') || child.exitCode !== null, READY_WITHIN_MS);
  assert.equal(child.exitCode, null, err);
  const { ready, port, pid } = JSON.parse(out) as { ready: boolean; port: number; pid: number };
  assert.deepEqual([ready, pid], [true, child.pid]);
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
  const stop = () => {
    child.kill('SIGTERM');
    return ended;
  };
  return { child, url, ask, digest, stop, ended };
}
