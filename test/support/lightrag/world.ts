// One scenario's directory with its servers, and what the scenario does with them.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Scope } from '../place.ts';
import { runToEnd } from '../program.ts';
import {
  fieldsOf,
  type Json,
  type LightRagApi,
  type Reply,
  type Settled,
  type SettleOptions,
} from './api.ts';
import { FakeOpenAi } from './fake-openai.ts';
import type { Installed } from './install.ts';
import { environment, LightRagServer, pythonCommand, type ServerPlace, ServerRefused } from './server.ts';

const LIBRARY = join(import.meta.dirname, 'library.py');
/** Time in which a call that was accepted has begun. */
const BEGINS_WITHIN_MS = 400;
const REPLY_SHOWN = 220;

/** Documented operations on one directory. */
export interface Scenario {
  readonly name: string;
  /** Settings of its first server. */
  readonly settings?: Readonly<Record<string, string>>;
  /** False: it starts what it needs itself. */
  readonly starts?: boolean;
  /** It needs a newer version beside its own. */
  readonly upgrades?: boolean;
  run(world: World): Promise<void>;
}

/** A directory in one state of a scenario. */
export interface State {
  readonly name: string;
  readonly dir: string;
  /** Undefined if no server runs on the directory. */
  readonly server: LightRagServer | undefined;
  /** The place of the server that ran last. */
  readonly place: ServerPlace;
}

/** What a world needs. */
export interface WorldOptions {
  readonly scope: Scope;
  readonly installed: Installed;
  readonly newer?: Installed | undefined;
  /** A folder of its own. */
  readonly root: string;
  /** Is called in each state that is to be graded. */
  onState(state: State): Promise<void>;
}

export class World {
  readonly dir: string;
  readonly fake: FakeOpenAi;
  /** Replies of the servers: a refused operation is a fact, not a failure. */
  readonly replies: string[] = [];
  readonly newer: Installed | undefined;
  readonly #options: WorldOptions;
  #place: ServerPlace;
  #server: LightRagServer | undefined;
  #stuck: readonly string[] = [];

  private constructor(options: WorldOptions, fake: FakeOpenAi) {
    this.#options = options;
    this.fake = fake;
    this.newer = options.newer;
    this.dir = join(options.root, 'rag');
    this.#place = { installed: options.installed, fake, dir: this.dir, beside: join(options.root, 'beside') };
    for (const folder of [this.dir, this.inputs]) mkdirSync(folder, { recursive: true });
  }

  static async make(options: WorldOptions): Promise<World> {
    return new World(options, await FakeOpenAi.start(options.scope));
  }

  /** INPUT_DIR of its servers. */
  get inputs(): string {
    return join(this.#place.beside, 'inputs');
  }

  get installed(): Installed {
    return this.#place.installed;
  }

  get server(): LightRagServer | undefined {
    return this.#server;
  }

  get api(): LightRagApi {
    if (this.#server === undefined) throw new Error('no server runs');
    return this.#server.api;
  }

  /** Namespaces that the server called unwritten when it had settled. */
  get stuck(): readonly string[] {
    return this.#stuck;
  }

  /** Starts a server; settings and version stay for later starts. */
  async start(settings = this.#place.settings ?? {}, installed = this.#place.installed): Promise<void> {
    this.#place = { ...this.#place, settings, installed };
    this.#server = await LightRagServer.start(this.#options.scope, this.#place);
  }

  /** Starts a server, and returns whether it came up. */
  async tryStart(what: string, settings?: Record<string, string>, installed?: Installed): Promise<boolean> {
    try {
      await this.start(settings, installed);
      this.replies.push(`${what}: started`);
      return true;
    } catch (error) {
      if (!(error instanceof ServerRefused)) throw error;
      this.replies.push(`${what}: refused: ${error.message.split('\n').slice(-2).join(' | ')}`);
      return false;
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    await server?.stop(signal);
  }

  /** Starts a second server on the same directory. */
  startBeside(): Promise<LightRagServer> {
    const beside = `${this.#place.beside}-second`;
    mkdirSync(beside, { recursive: true });
    return LightRagServer.start(this.#options.scope, { ...this.#place, beside });
  }

  async settle(options: SettleOptions = {}): Promise<Settled> {
    // A call is accepted before the work on it begins.
    await sleep(BEGINS_WITHIN_MS);
    const settled = await this.api.settle(this.dir, options);
    this.#stuck = settled.stuck;
    if (!settled.isSettled) this.replies.push(`NOT SETTLED: ${settled.busy.join(', ')}`);
    return settled;
  }

  /** Records what a call returned. */
  async say(what: string, call: Promise<Reply>): Promise<Reply> {
    const reply = await call;
    const body = typeof reply.body === 'string' ? reply.body : JSON.stringify(reply.body);
    this.replies.push(`${what}: ${reply.status} ${body.slice(0, REPLY_SHOWN)}`);
    return reply;
  }

  /** Makes a call and waits until the server has settled. */
  async do(what: string, call: Promise<Reply>): Promise<Reply> {
    const reply = await this.say(what, call);
    await this.settle();
    return reply;
  }

  /** Inserts a text and waits until it is processed. */
  async insert(text: string, source?: string): Promise<Reply> {
    return await this.do(`insert ${source?.slice(0, 40) ?? ''}`, this.api.insert(text, source));
  }

  /** Returns the id of the document that came from a source. */
  async idOf(source: string): Promise<string> {
    const found = (await this.api.documents()).find(({ file_path }) => file_path === source);
    return found?.id ?? `no document from ${source}`;
  }

  /** Deletes the document that came from a source, and waits. */
  async remove(source: string, options: { withCache?: boolean; withFile?: boolean } = {}): Promise<void> {
    await this.do(`delete ${source}`, this.api.remove([await this.idOf(source)], options));
  }

  /** Calls the library; no server may run. */
  async library(command: string, given: Json = {}): Promise<Json> {
    if (this.#server !== undefined) throw new Error('the library beside a server');
    const { installed, beside } = this.#place;
    const words = [LIBRARY, command, JSON.stringify(given)];
    const ended = await runToEnd(pythonCommand(installed, environment(this.#place), ...words), {
      cwd: beside,
    });
    const last = ended.stdout.trim().split('\n').at(-1) ?? '';
    const isJson = last.startsWith('{');
    const body: unknown = isJson ? JSON.parse(last) : ended.stderr.trim().split('\n').slice(-3).join(' | ');
    await this.say(`library ${command}`, Promise.resolve({ status: ended.code ?? -1, body }));
    return fieldsOf({ status: 0, body });
  }

  /** Has the directory graded as it is now. */
  async state(name: string, dir = this.dir): Promise<void> {
    await this.#options.onState({ name, dir, server: this.#server, place: this.#place });
  }
}

/** Runs a scenario and has its last states graded: settled beside the server, and after its end. */
export async function runScenario(scenario: Scenario, options: WorldOptions): Promise<World> {
  const world = await World.make(options);
  if (scenario.starts !== false) await world.start(scenario.settings);
  await scenario.run(world);
  if (world.server === undefined) await world.state('end');
  else {
    await world.settle();
    await world.state('settled');
    await world.stop();
    await world.state('stopped');
  }
  return world;
}
