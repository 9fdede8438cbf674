import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Level } from 'level';
import { LightkeeperError, systemCode } from '../../core/errors.ts';
import { makeDir, removeFile, replaceFile } from '../../host/disk.ts';
import { lockFolder } from '../../host/folder-lock.ts';

/** The process that has a store open for writing. */
export interface Holder {
  readonly agent: string;
  readonly host: string;
  readonly pid: number;
  /** Unix socket on which it serves AgentService; empty if it serves none. */
  readonly socket: string;
}

/** Ownership of a store: a kernel lock that LevelDB takes on `owner/LOCK`. */
// The kernel releases it when the process ends in any way. It works between containers that share the disk, and does
// not depend on the index, which may be rebuilt.
export class Ownership {
  readonly #folder: string;
  readonly #db: Level;
  #holder: Holder;

  private constructor(folder: string, db: Level, holder: Holder) {
    this.#folder = folder;
    this.#db = db;
    this.#holder = holder;
  }

  /** Takes ownership of the store at `root`. IN_USE, with the holder, if another process has it open. */
  static async take(root: string): Promise<Ownership> {
    const folder = join(root, 'owner');
    await makeDir('store:owner:create', folder);
    const db = await lockFolder(folder, async (cause) => inUse(root, await readHolder(root), cause));
    const holder = { agent: randomBytes(8).toString('hex'), host: hostname(), pid: process.pid, socket: '' };
    const ownership = new Ownership(folder, db, holder);
    try {
      await ownership.#write();
    } catch (error) {
      await db.close();
      throw error;
    }
    return ownership;
  }

  async #write(): Promise<void> {
    await replaceFile(
      'store:owner:record',
      join(this.#folder, 'holder.json'),
      Buffer.from(JSON.stringify(this.#holder)),
    );
  }

  /** Publishes the socket on which this process serves AgentService. */
  async listenOn(socket: string): Promise<void> {
    this.#holder = { ...this.#holder, socket };
    await this.#write();
  }

  async release(): Promise<void> {
    await removeFile('store:owner:release', join(this.#folder, 'holder.json'));
    // LOCK stays: if it were removed, two processes could lock two files of one name.
    for (const name of await readdir(this.#folder)) {
      if (name !== 'LOCK') await removeFile('store:owner:release', join(this.#folder, name));
    }
    await this.#db.close();
  }
}

function inUse(root: string, holder: Holder | undefined, cause: unknown): LightkeeperError {
  const who = holder === undefined ? 'another process' : `process ${holder.pid} on ${holder.host}`;
  return new LightkeeperError('IN_USE', `Cannot open the store "${root}": ${who} has it open`, {
    hint: 'name another store with --store (or --state), or stop that process',
    cause,
  });
}

/** Returns the recorded holder of the store at `root`; undefined if there is none. */
// A killed process leaves its record, so only the lock decides.
export async function readHolder(root: string): Promise<Holder | undefined> {
  let text: string;
  try {
    text = await readFile(join(root, 'owner', 'holder.json'), 'utf8');
  } catch (error) {
    if (systemCode(error) !== undefined) return undefined;
    throw error;
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return undefined;
    const { agent, host, pid, socket } = value as Partial<Record<keyof Holder, unknown>>;
    if (typeof agent !== 'string' || typeof host !== 'string') return undefined;
    if (typeof pid !== 'number' || typeof socket !== 'string') return undefined;
    return { agent, host, pid, socket };
  } catch {
    // Not JSON: a process was killed while the disk was full.
    return undefined;
  }
}
