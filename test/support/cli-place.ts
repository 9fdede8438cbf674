import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe } from 'node:test';
import { commandHere } from './command-here.ts';
import { type Ended, lightkeeper, type Running, startLightkeeper } from './program.ts';

/** A command on a small store that takes this long hangs. */
const COMMAND_MS = 60_000;

// As the processes that a place starts.
process.env.TZ = 'UTC';

const own = mkdtempSync(join(tmpdir(), 'lightkeeper-cli-'));
after(() => rmSync(own, { recursive: true, force: true }));

/** Tests that run beside each other, each in a place of its own. */
export function suite(name: string, body: () => void): void {
  describe(name, { concurrency: 3 }, body);
}

/** What a command did. */
export type Outcome = Pick<Ended, 'code' | 'stdout' | 'stderr'>;

export type Json = Record<string, unknown>;

/** Variables of a process, beside those of this one. */
type Env = Readonly<Record<string, string>>;

let places = 0;

/** A place of its own for one test: a directory, a store, a runtime folder, and commands that run in it. */
export class Place {
  readonly root: string;
  readonly dir: string;
  readonly store: string;
  readonly env: Env;

  constructor() {
    places += 1;
    this.root = join(own, `${places}`);
    this.dir = join(this.root, 'rag');
    this.store = join(this.root, 'store');
    for (const folder of [this.dir, join(this.root, 'run'), join(this.root, 'home')])
      mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.env = {
      HOME: join(this.root, 'home'),
      XDG_RUNTIME_DIR: join(this.root, 'run'),
      LIGHTKEEPER_STATE: join(this.root, 'state'),
      TZ: 'UTC',
    };
  }

  path(name: string): string {
    return join(this.root, name);
  }

  /** Writes a file of the directory. */
  write(name: string, content: string | Buffer): void {
    writeFileSync(join(this.dir, name), content);
  }

  start(args: readonly string[], env: Env = {}): Running {
    return startLightkeeper(args, { env: { ...this.env, ...env }, cwd: this.root });
  }

  run(args: readonly string[], env: Env = {}): Promise<Ended> {
    return lightkeeper(args, { env: { ...this.env, ...env }, cwd: this.root, timeoutMs: COMMAND_MS });
  }

  /** Runs a command of a store with --json, in this process, and returns its document. */
  async json(args: readonly string[], code = 0): Promise<Json> {
    return documentOf(await commandHere([...args, '--store', this.store, '--json']), args, code);
  }

  /** As `json`, in a process of its own that runs in this place. */
  async jsonOfProcess(args: readonly string[], code = 0): Promise<Json> {
    return documentOf(await this.run([...args, '--store', this.store, '--json']), args, code);
  }

  /** Takes a snapshot of the directory with some files in it. */
  async snapshot(files: Readonly<Record<string, string | Buffer>> = {}, ...args: string[]): Promise<Json> {
    for (const [name, content] of Object.entries(files)) this.write(name, content);
    const quiet = args.includes('--quiet') ? [] : ['--quiet', '50ms'];
    return await this.json(['snapshot', '--dir', this.dir, ...quiet, ...args]);
  }

  /** Takes a snapshot while something writes all the time. */
  async tornSnapshot(): Promise<Json> {
    let n = 0;
    const writing = setInterval(() => this.write('restless', `${n++}`), 10);
    try {
      return await this.json(['snapshot', '--dir', this.dir, '--settle-timeout', '1ms'], 3);
    } finally {
      clearInterval(writing);
    }
  }

  /** Paths of the packs, the largest first. */
  #packs(): string[] {
    const folder = join(this.store, 'packs');
    return readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.pack'))
      .map((name) => join(folder, name))
      .sort((a, b) => statSync(b).size - statSync(a).size);
  }

  packSizes(): number {
    return this.#packs().reduce((sum, path) => sum + statSync(path).size, 0);
  }

  /** The path of the pack of file bytes that was written first; meta packs are the other kind. */
  firstDataPack(): string {
    const data = this.#packs().filter((path) => readFileSync(path)[10] === 1);
    const [first] = data.sort((a, b) => statSync(a).mtimeMs - statSync(b).mtimeMs);
    assert.ok(first !== undefined, 'there is a pack of file bytes');
    return first;
  }

  /** Changes one bit of the stored bytes of the first snapshot, as a disk would. */
  damage(): void {
    const path = this.firstDataPack();
    const bytes = readFileSync(path);
    // Before the footer is the end of the last frame: the stored bytes of a unit.
    const at = Number(bytes.readBigUInt64LE(bytes.length - 56)) - 1;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(path, bytes);
  }

  /** The ids of all snapshots, in the order of `list`. */
  async ids(): Promise<string[]> {
    return listOf(await this.json(['list']), 'snapshots').map(({ snapshotId }) => String(snapshotId));
  }

  /** Runs a command that must fail, with --json: its exit code and both forms of its error are checked. */
  async fails(args: readonly string[], code: number, env: Env = {}): Promise<Json> {
    const what = args.join(' ');
    // Behind the words of the command, so that it is not taken for the value of a flag.
    const flag = args.findIndex((word) => word.startsWith('-'));
    const at = flag <= 0 ? args.length : flag;
    const outcome = await this.run(args.toSpliced(at, 0, '--json'), env);
    assert.equal(outcome.code, code, `${what}: ${outcome.stdout}${outcome.stderr}`);
    errorLines(outcome, what);
    const { error } = oneDocument(outcome) as { error?: Json };
    assert.ok(error !== undefined, what);
    assert.deepEqual(Object.keys(error).sort(), ['code', 'hint', 'message'], what);
    assert.ok(outcome.stderr.endsWith(`\nhint: ${error.hint}\n`), what);
    assert.match(String(error.message), /^Cannot /);
    return error;
  }

  /** As `fails`, without --json: there is nothing on standard output. */
  async failsPlainly(args: readonly string[], code: number, env: Env = {}): Promise<string> {
    const outcome = await this.run(args, env);
    assert.equal(outcome.code, code, `${args.join(' ')}: ${outcome.stdout}${outcome.stderr}`);
    assert.equal(outcome.stdout, '', args.join(' '));
    errorLines(outcome, args.join(' '));
    return outcome.stderr;
  }

  /** Starts `up` on the directory and waits until it serves. */
  async up(...args: string[]): Promise<Up> {
    const given = ['up', '--dir', this.dir, '--store', this.store, '--http', '127.0.0.1:0', ...args];
    const running = this.start(given);
    after(() => running.kill('SIGKILL'));
    const [, port = ''] = await running.says(/http:\/\/127\.0\.0\.1:([0-9]+)\/metrics/);
    return { running, url: `http://127.0.0.1:${port}`, stop: (signal) => running.stop(signal) };
  }
}

/** An `up` that serves. */
export interface Up {
  readonly running: Running;
  readonly url: string;
  readonly stop: (signal?: NodeJS.Signals) => Promise<Outcome>;
}

function documentOf(outcome: Outcome, args: readonly string[], code: number): Json {
  assert.equal(outcome.code, code, `${args.join(' ')}: ${outcome.stdout}${outcome.stderr}`);
  return oneDocument(outcome);
}

/** Exactly one JSON document on standard output. */
export function oneDocument({ stdout }: Outcome): Json {
  const value: unknown = JSON.parse(stdout);
  assert.ok(typeof value === 'object' && value !== null && !Array.isArray(value), stdout);
  return value as Json;
}

/** `error: Cannot …` and `hint: …`, a line each, and nothing else. */
export function errorLines({ stderr }: Outcome, what: string): void {
  assert.match(stderr, /^error: Cannot [^\n]+\nhint: [^\n]+\n$/, what);
}

/** A field that is a list of objects. */
export function listOf(document: Json, field: string): Json[] {
  const value = document[field];
  assert.ok(Array.isArray(value), `${field} is a list: ${JSON.stringify(value)}`);
  return value as Json[];
}

/** What a field may be. */
export const kinds = {
  id: (value: unknown) => typeof value === 'string' && /^[0-9a-f]{32}$/.test(value),
  hex: (value: unknown) => typeof value === 'string' && /^[0-9a-f]+$/.test(value),
  /** A 64-bit integer. */
  long: (value: unknown) => typeof value === 'string' && /^-?[0-9]+$/.test(value),
  number: (value: unknown) => typeof value === 'number',
  text: (value: unknown) => typeof value === 'string',
  word: (value: unknown) => typeof value === 'string' && /^[A-Z][A-Z_]*$/.test(value),
  time: (value: unknown) =>
    typeof value === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z$/.test(value),
  flag: (value: unknown) => typeof value === 'boolean',
  list: (value: unknown) => Array.isArray(value),
  texts: (value: unknown) => Array.isArray(value) && value.every((item) => typeof item === 'string'),
  map: (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value),
} as const;

/** Checks that a document has at least these fields, of these kinds. */
export function hasFields(document: unknown, fields: Readonly<Record<string, keyof typeof kinds>>): void {
  assert.ok(kinds.map(document), JSON.stringify(document));
  for (const [field, kind] of Object.entries(fields)) {
    const value = (document as Json)[field];
    assert.ok(kinds[kind](value), `${field} is ${kind}: ${JSON.stringify(value)}`);
  }
}

/** Whether a file or folder is there. */
export const there = existsSync;
