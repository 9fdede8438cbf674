import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { mkdirSync, mkdtempSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AgentClient, withStore } from '../../agent/main.ts';
import { lastOf } from '../../cli/await-result.ts';
import {
  GetStatusResponseSchema,
  ListSnapshotsResponseSchema,
  VerifyLevel_Value,
  VerifyResultSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { asPrinted } from './case.ts';
import { removeAll, type Scope, until } from './place.ts';
import { lightkeeper, type Running, type StartOptions, startLightkeeper } from './program.ts';

/** A command on a small store that takes this long hangs. */
const COMMAND_MS = 60_000;
/** Longest wait until a follower has everything, in milliseconds. */
const CATCH_UP_MS = 60_000n;

export type Json = Readonly<Record<string, unknown>>;

/** One machine with an agent of its own: a directory, a state folder, and a port for other agents. */
export class Machine {
  readonly root: string;
  readonly dir: string;
  readonly state: string;
  readonly store: string;
  readonly name: string;
  readonly port: number;
  readonly #env: Readonly<Record<string, string>>;
  agent: Running | undefined;
  /** How the next start of the agent differs from the others. */
  next: StartOptions = {};

  constructor(root: string, name: string, port: number) {
    this.root = join(root, name);
    this.name = name;
    this.port = port;
    this.dir = join(this.root, 'rag');
    this.state = join(this.root, 'state');
    this.store = join(this.state, 'store');
    for (const folder of [this.dir, join(this.root, 'run')])
      mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.#env = { HOME: this.root, XDG_RUNTIME_DIR: join(this.root, 'run'), TZ: 'UTC' };
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Starts the agent with these flags, and waits until it serves. */
  async start(...args: string[]): Promise<Running> {
    const common = ['--state', this.state, '--name', this.name, '--grpc', `127.0.0.1:${this.port}`];
    const more = ['--http', '127.0.0.1:0', '--disk-reserve', '0', '--log-level', 'debug'];
    const { env, ...options } = this.next;
    this.next = {};
    const agent = startLightkeeper(['agent', ...common, ...more, ...args], {
      ...options,
      env: { ...this.#env, ...env },
      cwd: this.root,
    });
    this.agent = agent;
    await until(`the agent of ${this.name} serves`, () => {
      assert.ok(!agent.hasEnded, agent.stderr);
      return this.isServing;
    });
    return agent;
  }

  /** Whether its agent runs and serves. */
  get isServing(): boolean {
    return this.agent !== undefined && !this.agent.hasEnded && this.agent.stderr.includes('serving');
  }

  /** Guards the directory of this machine. */
  async guard(...args: string[]): Promise<Running> {
    return await this.start(
      '--dir',
      this.dir,
      '--graph',
      'g',
      '--quiet',
      '50ms',
      '--min-interval',
      '100ms',
      ...args,
    );
  }

  /** Follows the graph at another machine. */
  async follow(source: Machine, ...args: string[]): Promise<Running> {
    return await this.start('--graph', 'g', '--follow', source.url, ...args);
  }

  /** Ends the agent as a person does. */
  async stop(): Promise<void> {
    const { agent } = this;
    this.agent = undefined;
    if (agent === undefined) return;
    const { code } = await agent.stop();
    assert.equal(code, 0, agent.stderr);
  }

  /** Ends the agent as the kernel does. */
  async kill(): Promise<void> {
    const { agent } = this;
    this.agent = undefined;
    agent?.kill('SIGKILL');
    await agent?.ended;
  }

  /** Runs a command on the store of this machine with --json, and returns its document. */
  async json(args: readonly string[], code = 0): Promise<Json> {
    const ended = await this.run([...args, '--state', this.state, '--json']);
    assert.equal(ended.code, code, `${args.join(' ')}: ${ended.stdout}${ended.stderr}`);
    return JSON.parse(ended.stdout) as Json;
  }

  async run(args: readonly string[]) {
    return await lightkeeper(args, { env: this.#env, cwd: this.root, timeoutMs: COMMAND_MS });
  }

  /** Returns the snapshots of the store, newest first. */
  async list(): Promise<readonly Json[]> {
    const reply = await this.#ask((client) => client.listSnapshots({}));
    return asPrinted<{ snapshots: Json[] }>(ListSnapshotsResponseSchema, reply).snapshots;
  }

  /** Returns the ids of the snapshots of the store, newest first. */
  async ids(): Promise<string[]> {
    return (await this.list()).map(({ snapshotId }) => String(snapshotId));
  }

  /** Returns the state of the graph `g`. */
  async graph(): Promise<Json> {
    const reply = await this.#ask((client) => client.getStatus({}));
    const { graphs } = asPrinted<{ graphs: Json[] }>(GetStatusResponseSchema, reply);
    const graph = graphs.find(({ graphId }) => graphId === 'g');
    assert.ok(graph !== undefined, 'the status has the graph');
    return graph;
  }

  /** Reads every byte of the store, which must be whole. */
  async verified(): Promise<void> {
    const verified = await this.#ask((client) =>
      lastOf(client.verifyStore({ level: VerifyLevel_Value.BYTES })),
    );
    assert.deepEqual(asPrinted<Json>(VerifyResultSchema, verified).findings, []);
  }

  /** Waits until this follower holds the newest snapshot of its source, and history too. */
  async caughtUp(): Promise<void> {
    await this.#ask((client) => client.replicateGraph({ graphId: 'g', target: '', timeoutMs: CATCH_UP_MS }));
  }

  /** Asks the agent, or the store where none runs. Tests ask again and again: a process for each costs too much. */
  #ask<T>(run: (client: AgentClient) => Promise<T>): Promise<T> {
    return withStore(this.store, {}, run);
  }
}

/** Returns a port of loopback that is free at present. */
export async function freePort(): Promise<number> {
  for (;;) {
    // Below those that the kernel gives to outgoing connections: it stays free while its agent is stopped.
    const port = randomInt(20_000, 32_000);
    const server = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!isFree) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

/** Makes machines of these names for one test. Their agents end with it. */
export async function machines(t: Scope, ...names: string[]): Promise<Machine[]> {
  const root = mkdtempSync(join(tmpdir(), 'lightkeeper-machines-'));
  const made: Machine[] = [];
  for (const name of names) made.push(new Machine(root, name, await freePort()));
  t.after(async () => {
    for (const machine of made) await machine.kill();
    await removeAll(root);
  });
  return made;
}
