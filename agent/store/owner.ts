import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Level } from 'level';
import { LightkeeperError, systemCode } from '../../core/errors.ts';
import { makeDir, removeFile, replaceFile } from '../../host/disk.ts';
import { lockFolder } from '../../host/folder-lock.ts';

/** Who has a store open for writing. */
export interface Holder {
  readonly agent: string;
  readonly host: string;
  readonly pid: number;
  /** The Unix socket on which the holder answers; empty if it answers nobody. */
  readonly socket: string;
}

/**
 * Ownership of a store: a kernel lock that LevelDB takes on `owner/LOCK`. It ends with the process, however it
 * ends, holds across containers that share the disk, and does not depend on the index, which may be rebuilt.
 */
export class Ownership {
  readonly #folder: string;
  readonly #db: Level;
  #holder: Holder;

  private constructor(folder: string, db: Level, holder: Holder) {
    this.#folder = folder;
    this.#db = db;
    this.#holder = holder;
  }

  /** Takes the store at `root`, or says who has it (IN_USE). */
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

  /** Tells others where this process answers. */
  async listenOn(socket: string): Promise<void> {
    this.#holder = { ...this.#holder, socket };
    await this.#write();
  }

  async release(): Promise<void> {
    await removeFile('store:owner:release', join(this.#folder, 'holder.json'));
    // Only LOCK stays: removing it would let two processes lock two files of one name.
    for (const name of await readdir(this.#folder)) {
      if (name !== 'LOCK') await removeFile('store:owner:release', join(this.#folder, name));
    }
    await this.#db.close();
  }
}

function inUse(root: string, holder: Holder | undefined, cause: unknown): LightkeeperError {
  const who = holder === undefined ? 'another process' : `process ${holder.pid} on ${holder.host}`;
  return new LightkeeperError('IN_USE', `Cannot open the store "${root}": ${who} has it`, {
    hint: 'name another store with --store (or --state), or stop that process',
    cause,
  });
}

/** Who says to hold the store at `root`; undefined if nobody does. It may be the trace of a killed process. */
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
    // Not JSON: a process was killed while the disk was full. The lock decides, not this file.
    return undefined;
  }
}
