import { dirname, relative } from 'node:path';
import type { Random } from '../../demo/random.ts';
import type { Effect } from '../../host/disk.ts';

/** The bytes of one file: what is safe, and what was written since. */
class Inode {
  #durable: Buffer = Buffer.alloc(0);
  #pending: { position: number; bytes: Uint8Array }[] = [];

  write(position: number, bytes: Uint8Array): void {
    this.#pending.push({ position, bytes });
  }

  sync(): void {
    this.#durable = this.after('all', () => 0);
    this.#pending = [];
  }

  /** The bytes that are found later: each write survives, is lost, or is torn. */
  after(style: Survival, draw: Random): Buffer {
    let bytes = this.#durable;
    for (const write of this.#pending) {
      if (!survives(style, draw)) continue;
      const torn = style === 'some' && draw(3) === 0;
      const part = torn ? write.bytes.subarray(0, draw(write.bytes.length + 1)) : write.bytes;
      const end = write.position + part.length;
      const longer = Buffer.alloc(Math.max(end, bytes.length));
      longer.set(bytes);
      longer.set(part, write.position);
      bytes = longer;
    }
    return bytes;
  }
}

/** What of the things that were not synced survives a power loss. */
export type Survival = 'all' | 'none' | 'some';

function survives(style: Survival, draw: Random): boolean {
  return style === 'all' || (style === 'some' && draw(2) === 0);
}

/** One change of names. */
interface NameChange {
  /** The folders in which it shows. */
  readonly folders: readonly string[];
  readonly apply: (names: Map<string, Inode | 'folder'>) => void;
  durable: boolean;
  /** The time of its folder after it, where that was seen. */
  stamp: string | undefined;
}

/** What is found after a power loss. */
export interface StoredSnapshot {
  readonly files: ReadonlyMap<string, Buffer>;
  readonly folders: readonly string[];
  /** Times of the folders of packs, for those that are as they once were. */
  readonly stamps: ReadonlyMap<string, string>;
}

/** What LevelDB writes by itself, and the lock of the owner, are not followed here. */
const NOT_FOLLOWED = /^(?:index|owner)(?:\/|$)/;
const SHARD = /^packs\/([0-9a-f]{2})$/;

/**
 * A disk that keeps for sure only what was synced: bytes of a file by a sync of the file, names by a sync of
 * their folder. It is told of effects as they happened.
 */
export class Disk {
  readonly #root: string;
  readonly #changes: NameChange[] = [];
  readonly #inodes = new Map<string, Inode>();
  /** Effects that have begun and not ended. */
  readonly #begun: Effect[] = [];

  constructor(root: string) {
    this.#root = root;
  }

  #path(path: string | Buffer): string | undefined {
    const inside = relative(this.#root, path.toString());
    return inside.startsWith('..') || NOT_FOLLOWED.test(inside) ? undefined : inside;
  }

  /** An effect begins or has ended; `stamps` are the times of the folders of packs just then. */
  see(phase: 'before' | 'after', effect: Effect, stamps: ReadonlyMap<string, string>): void {
    if (phase === 'before') {
      this.#begun.push(effect);
      return;
    }
    const begun = this.#begun.findIndex(
      ({ label, path, op }) => label === effect.label && path === effect.path && op === effect.op,
    );
    this.#begun.splice(begun, 1);
    this.#happen(effect, stamps);
  }

  #happen(effect: Effect, stamps: ReadonlyMap<string, string>): void {
    const path = this.#path(effect.path);
    if (path === undefined || effect.op === 'other') return;
    switch (effect.op) {
      case 'write':
        this.#inodes.get(path)?.write(effect.position ?? 0, effect.bytes ?? new Uint8Array());
        return;
      case 'sync':
        this.#inodes.get(path)?.sync();
        return;
      case 'syncDir':
        for (const change of this.#changes) if (change.folders.includes(path)) change.durable = true;
        return;
      default: {
        const change = this.#nameChange(effect, path);
        const shard = change.folders
          .map((folder) => SHARD.exec(folder)?.[1])
          .find((name) => name !== undefined);
        change.stamp = shard === undefined ? undefined : stamps.get(shard);
        this.#changes.push(change);
      }
    }
  }

  #nameChange({ op, to }: Effect, path: string): NameChange {
    const folders = [folderOf(path)];
    const made = { folders, durable: false, stamp: undefined };
    if (op === 'create') {
      const inode = new Inode();
      this.#inodes.set(path, inode);
      return { ...made, apply: (names) => names.set(path, inode) };
    }
    if (op === 'mkdir')
      return { ...made, folders: path === '' ? [] : folders, apply: (names) => makeFolders(names, path) };
    if (op === 'rename') {
      const target = this.#path(to ?? '') ?? '';
      const inode = this.#inodes.get(path);
      this.#inodes.delete(path);
      if (inode !== undefined) this.#inodes.set(target, inode);
      const apply = (names: Map<string, Inode | 'folder'>) => {
        names.delete(path);
        if (inode !== undefined) names.set(target, inode);
      };
      // A rename is one change: what makes it safe in its new folder makes it safe.
      return { ...made, folders: [folderOf(target)], apply };
    }
    const below = (name: string) => name === path || name.startsWith(`${path}/`);
    for (const name of [...this.#inodes.keys()]) if (below(name)) this.#inodes.delete(name);
    return {
      ...made,
      apply: (names) => {
        for (const name of [...names.keys()]) if (below(name)) names.delete(name);
      },
    };
  }

  /** Draws one of the states in which the disk can be found. */
  afterPowerLoss(style: Survival, draw: Random): StoredSnapshot {
    // What was under way may have happened in whole or in part; nobody was told that it is safe.
    for (const effect of this.#begun)
      if (effect.op !== 'sync' && effect.op !== 'syncDir' && survives(style, draw))
        this.#happen(effect, new Map());
    const names = new Map<string, Inode | 'folder'>();
    const shards = new Map<string, ShardTimes>();
    for (const change of this.#changes) {
      const happened = change.durable || survives(style, draw);
      if (happened) change.apply(names);
      noteTimes(shards, change, happened);
    }
    const files = new Map<string, Buffer>();
    const folders: string[] = [];
    for (const [name, inode] of names) {
      if (inode === 'folder') folders.push(name);
      else files.set(name, inode.after(style, draw));
    }
    const stamps = new Map<string, string>();
    for (const [shard, { stamp, never }] of shards)
      if (!never && stamp !== undefined) stamps.set(shard, stamp);
    return { files, folders, stamps };
  }
}

/** How a folder of packs came to be as it is. */
interface ShardTimes {
  stamp: string | undefined;
  /** A change of it was lost. */
  lost: boolean;
  /** A change after that one was not: the folder is as it never was. */
  never: boolean;
}

function noteTimes(shards: Map<string, ShardTimes>, change: NameChange, happened: boolean): void {
  for (const folder of change.folders) {
    const shard = SHARD.exec(folder)?.[1];
    if (shard === undefined) continue;
    const times = shards.get(shard) ?? { stamp: undefined, lost: false, never: false };
    shards.set(shard, times);
    if (!happened) times.lost = true;
    else if (times.lost) times.never = true;
    else times.stamp = change.stamp;
  }
}

function folderOf(path: string): string {
  const folder = dirname(path);
  return folder === '.' ? '' : folder;
}

function makeFolders(names: Map<string, Inode | 'folder'>, path: string): void {
  for (let folder = path; folder !== '' && folder !== '.'; folder = dirname(folder))
    names.set(folder, 'folder');
}
