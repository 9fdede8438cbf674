import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { BUILT, type Ended, killGroup, type StartOptions, start } from './command.ts';
import { atEnd, type Scope, until } from './place.ts';

/** How an agent is started. */
export interface AgentOptions extends StartOptions {
  readonly command?: 'up' | 'agent';
}

/** A running agent. */
export class Agent {
  readonly child: ChildProcess;
  out = '';
  err = '';
  readonly #ended: Promise<Ended>;

  /** Starts one on a free port, unless the words name another; it is killed when the test ends. */
  constructor(t: Scope, words: readonly string[], options: AgentOptions = {}) {
    const http =
      words.includes('--http') || words.includes('--default-http') ? [] : ['--http', '127.0.0.1:0'];
    const flags = words.filter((word) => word !== '--default-http');
    this.child = start([process.execPath, BUILT, options.command ?? 'up', ...flags, ...http], options);
    atEnd(t, async () => {
      killGroup(this.child);
      await this.#ended.catch(() => {});
    });
    const began = performance.now();
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.out += text;
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.err += text;
    });
    this.#ended = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code, signal) => {
        resolve({ code, signal, stdout: this.out, stderr: this.err, ms: performance.now() - began });
      });
    });
  }

  /** The process itself, under whatever it was started with. */
  get pid(): number {
    return this.child.pid ?? assert.fail('it was not started');
  }

  get text(): string {
    return `${this.out}\n${this.err}`;
  }

  /** Waits until it has written something, on either stream. */
  async says(what: RegExp, ms?: number): Promise<void> {
    const gone = () => this.child.exitCode !== null || this.child.signalCode !== null;
    await until(`${what}`, () => what.test(this.text) || gone(), ms).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${this.text}`);
    });
    assert.match(this.text, what);
  }

  /** Starts of the ids of the snapshots that it has told of, side snapshots left out. */
  get points(): string[] {
    const printed = / snapshot ([0-9a-f]{12}):/g;
    const logged = / snapshot taken .*? snapshot=([0-9a-f]{12})/g;
    const found = [...this.out.matchAll(printed), ...this.err.matchAll(logged)];
    return found.map(([, id]) => id as string);
  }

  /** Waits for its n-th point. */
  async point(n: number, ms?: number): Promise<string> {
    await until(`point ${n}`, () => this.points.length >= n || this.child.exitCode !== null, ms).catch(
      (error: unknown) => {
        throw new Error(`${String(error)}\n${this.text}`);
      },
    );
    return this.points[n - 1] ?? assert.fail(this.text);
  }

  /** Sends a signal. */
  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Ends it by a signal; answers how it ended. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<Ended & { readonly tookMs: number }> {
    const began = performance.now();
    this.kill(signal);
    const ended = await this.#ended;
    return { ...ended, tookMs: performance.now() - began };
  }

  /** Waits until it ends by itself. */
  ended(): Promise<Ended> {
    return this.#ended;
  }
}
