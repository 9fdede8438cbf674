import assert from 'node:assert/strict';
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { after, describe } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

const ROOT = join(import.meta.dirname, '../..');
const BUILT_WITHIN_MS = 30_000;
/** A command on a small store that takes this long hangs. */
const COMMAND_MS = 30_000;

const own = mkdtempSync(join(tmpdir(), 'lightkeeper-cli-'));
after(() => rmSync(own, { recursive: true, force: true }));

/** Whether every part that a part of a build loads is there: a build that is being written is not whole. */
function isWhole(dist: string): boolean {
  const names = new Set(readdirSync(dist));
  if (!names.has('lightkeeper.js') || !names.has('worker.js')) return false;
  return [...names]
    .filter((name) => name.endsWith('.js'))
    .every((name) => {
      const text = readFileSync(join(dist, name), 'utf8');
      return [...text.matchAll(/"\.\/([\w-]+\.js)"/g)].every(([, part]) => names.has(part ?? ''));
    });
}

/**
 * The built program. It is copied once, so that another build meanwhile takes nothing away from under a test.
 */
async function copyBuilt(): Promise<string> {
  const dist = join(own, 'dist');
  for (const startedMs = performance.now(); ; await sleep(200)) {
    try {
      rmSync(dist, { recursive: true, force: true });
      cpSync(join(ROOT, 'dist'), dist, { recursive: true, preserveTimestamps: true });
      if (isWhole(dist)) break;
    } catch (error) {
      if (performance.now() - startedMs > BUILT_WITHIN_MS) throw error;
    }
    assert.ok(performance.now() - startedMs < BUILT_WITHIN_MS, 'dist is whole: run node build.mjs first');
  }
  writeFileSync(join(own, 'package.json'), JSON.stringify({ type: 'module' }));
  symlinkSync(join(ROOT, 'node_modules'), join(own, 'node_modules'));
  return join(dist, 'lightkeeper.js');
}

/** The file that `bin.lightkeeper` names. */
export const built = await copyBuilt();

const alive = new Set<Running>();

/**
 * Tests that run beside each other, each in a place of its own. Processes that a failed test left behind are
 * ended with them.
 */
export function suite(name: string, body: () => void): void {
  describe(name, { concurrency: 3 }, () => {
    after(() => {
      for (const { child } of alive) child.kill('SIGKILL');
    });
    body();
  });
}

/** What a command did. */
export interface Outcome {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export type Json = Record<string, unknown>;

/** A running process of the built program, and what it has said so far. */
export class Running {
  readonly child: ChildProcessByStdio<null, Readable, Readable>;
  readonly ended: Promise<Outcome>;
  stdout = '';
  stderr = '';

  constructor(command: string, args: readonly string[], env: NodeJS.ProcessEnv, cwd: string) {
    this.child = spawn(command, args, { env, cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    alive.add(this);
    this.ended = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code, signal) => {
        alive.delete(this);
        resolve({ code, signal, stdout: this.stdout, stderr: this.stderr });
      });
    });
  }

  /** Waits for something to come true; fails if the process ends before. */
  async until<T>(what: string, look: () => T | undefined): Promise<T> {
    for (const startedMs = performance.now(); performance.now() - startedMs < COMMAND_MS; await sleep(20)) {
      const found = look();
      if (found !== undefined) return found;
      if (this.child.exitCode !== null) break;
    }
    throw new Error(`${what} did not happen; stdout: ${this.stdout}; stderr: ${this.stderr}`);
  }

  /** Waits until standard output matches. */
  says(pattern: RegExp): Promise<RegExpExecArray> {
    return this.until(`${pattern}`, () => pattern.exec(this.stdout) ?? undefined);
  }

  /** Ends it with a signal and answers how it ended; kills it if it does not. */
  async stop(signal: NodeJS.Signals, withinMs = COMMAND_MS): Promise<Outcome> {
    this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), withinMs);
    const outcome = await this.ended;
    clearTimeout(timer);
    return outcome;
  }
}

let places = 0;

/** A place of its own for one test: a directory, a store, a runtime folder, and commands that run in it. */
export class Place {
  readonly root: string;
  readonly dir: string;
  readonly store: string;
  readonly env: NodeJS.ProcessEnv;

  constructor() {
    places += 1;
    this.root = join(own, `${places}`);
    this.dir = join(this.root, 'rag');
    this.store = join(this.root, 'store');
    for (const folder of [this.dir, join(this.root, 'run'), join(this.root, 'home')])
      mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { PATH } = process.env;
    this.env = {
      PATH,
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

  start(args: readonly string[], env: NodeJS.ProcessEnv = {}): Running {
    return new Running(process.execPath, [built, ...args], { ...this.env, ...env }, this.root);
  }

  async run(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
    const running = this.start(args, env);
    const timer = setTimeout(() => running.child.kill('SIGKILL'), COMMAND_MS);
    const outcome = await running.ended;
    clearTimeout(timer);
    return outcome;
  }

  /** Runs a command of a store with --json and answers its document. */
  async json(args: readonly string[], code = 0): Promise<Json> {
    const outcome = await this.run([...args, '--store', this.store, '--json']);
    assert.equal(outcome.code, code, `${args.join(' ')}: ${outcome.stdout}${outcome.stderr}`);
    return oneDocument(outcome);
  }

  /** Takes a snapshot of the directory with some files in it. */
  async snapshot(files: Readonly<Record<string, string | Buffer>> = {}, ...args: string[]): Promise<Json> {
    for (const [name, content] of Object.entries(files)) this.write(name, content);
    return await this.json(['snapshot', '--dir', this.dir, ...args]);
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
  async fails(args: readonly string[], code: number, env: NodeJS.ProcessEnv = {}): Promise<Json> {
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
  async failsPlainly(args: readonly string[], code: number, env: NodeJS.ProcessEnv = {}): Promise<string> {
    const outcome = await this.run(args, env);
    assert.equal(outcome.code, code, `${args.join(' ')}: ${outcome.stdout}${outcome.stderr}`);
    assert.equal(outcome.stdout, '', args.join(' '));
    errorLines(outcome, args.join(' '));
    return outcome.stderr;
  }

  /** Starts `up` on the directory and waits until it serves. */
  async up(...args: string[]): Promise<Agent> {
    const given = ['up', '--dir', this.dir, '--store', this.store, '--http', '127.0.0.1:0', ...args];
    const running = this.start(given);
    const [, port = ''] = await running.says(/http:\/\/127\.0\.0\.1:([0-9]+)\/metrics/);
    return { running, url: `http://127.0.0.1:${port}`, stop: (signal = 'SIGTERM') => running.stop(signal) };
  }
}

/** An `up` that serves. */
export interface Agent {
  readonly running: Running;
  readonly url: string;
  readonly stop: (signal?: NodeJS.Signals) => Promise<Outcome>;
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
