import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Scope } from '../place.ts';
import { Running } from '../program.ts';
import { environment, pythonCommand, type ServerPlace } from './server.ts';

const JUDGE = join(import.meta.dirname, 'judge.py');
const REPLY_MS = 60_000;

/** What a server makes of a directory. */
export interface Verdict {
  /** Why it does not start. */
  readonly refused?: string;
  /** Calls that fail. */
  readonly broken?: readonly string[];
  /** What is not there when it is asked for, of the whole directory or of processed documents. */
  readonly lost?: readonly string[];
  /** States of the documents, where their truth was given. */
  readonly documents?: readonly string[];
}

/** What a document says, so that a server must know it. */
export interface Truth {
  readonly text: string;
  readonly names: readonly string[];
  readonly pairs: readonly (readonly [string, string])[];
}

/** Returns a verdict as a word with its first reason. */
export function verdictText({ refused, broken = [], lost = [] }: Verdict): string {
  if (refused !== undefined) return `refuses: ${refused}`;
  if (broken.length > 0) return `fails: ${broken[0]}`;
  return lost.length > 0 ? `lost ${lost.length}: ${lost[0]}` : 'unharmed';
}

/** A process that loads directories with LightRAG's own storages, one after the other. */
export class Judge {
  readonly #running: Running;
  readonly #scope: Scope;
  #read = 0;

  constructor(scope: Scope, place: Omit<ServerPlace, 'dir'>) {
    mkdirSync(place.beside, { recursive: true });
    const env = { ...environment({ ...place, dir: place.beside }), PYTHONDONTWRITEBYTECODE: '1' };
    const command = pythonCommand(place.installed, env, JUDGE);
    this.#scope = scope;
    this.#running = new Running(command, { cwd: place.beside, writesStdin: true });
    this.#running.endWith(this.#scope);
  }

  /** Judges a directory beside a whole one. Its files stay as they are. */
  judge(dir: string, base: string, options: { writes?: boolean } = {}): Promise<Verdict> {
    return this.#ask({ dir, base, writes: options.writes === true });
  }

  /** Judges whether the documents that a directory calls processed are whole, by file name. */
  judgeTruth(dir: string, truth: ReadonlyMap<string, Truth>): Promise<Verdict> {
    return this.#ask({ dir, truth: Object.fromEntries(truth) });
  }

  async #ask(question: object): Promise<Verdict> {
    const { stdin } = this.#running.child;
    if (stdin === null) throw new Error('the judge has no input');
    if (!stdin.write(`${JSON.stringify(question)}\n`)) await once(stdin, 'drain');
    const end = () => this.#running.stdout.indexOf('\n', this.#read);
    await this.#running.until('a verdict', () => end() !== -1, REPLY_MS);
    const line = this.#running.stdout.slice(this.#read, end());
    this.#read = end() + 1;
    return JSON.parse(line) as Verdict;
  }
}
