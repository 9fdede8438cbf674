import { createHash } from 'node:crypto';
import {
  chmodSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import type { Random } from '../../demo/random.ts';

/** What one name below a directory is. */
export interface Node {
  readonly type: 'file' | 'dir' | 'symlink';
  readonly mode: number;
  readonly owner: string;
  readonly mtimeNs: bigint;
  readonly size: bigint;
  /** Of the bytes. */
  readonly sha256: string;
  readonly target: string;
  /** The first name of the same file; its own where it has no other. */
  readonly first: string;
}

/** All names below a directory, one character a byte. */
export type Tree = ReadonlyMap<string, Node>;

const MTIME_SLACK_NS = 2000n;

/** The bytes of a path in which one character is a byte. */
export function raw(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}

function nodeOf(path: string, name: string, firsts: Map<string, string>): Node {
  const stat = lstatSync(raw(path), { bigint: true });
  const type = stat.isDirectory() ? 'dir' : stat.isSymbolicLink() ? 'symlink' : 'file';
  const inode = `${stat.dev}:${stat.ino}`;
  const first = type === 'file' ? (firsts.get(inode) ?? name) : name;
  firsts.set(inode, first);
  const bytes = type === 'file' ? readFileSync(raw(path)) : Buffer.alloc(0);
  return {
    type,
    mode: Number(stat.mode & 0o7777n),
    owner: `${stat.uid}:${stat.gid}`,
    mtimeNs: stat.mtimeNs,
    size: type === 'file' ? stat.size : 0n,
    sha256: createHash('sha256').update(bytes).digest('hex'),
    target: type === 'symlink' ? readlinkSync(raw(path), { encoding: 'buffer' }).toString('latin1') : '',
    first,
  };
}

/** Looks at every name below a directory, by its own code: nothing of the program is used. */
export function readTree(dir: string): Tree {
  const names: string[] = [];
  const look = (folder: string) => {
    for (const name of readdirSync(raw(`${dir}/${folder}`), { encoding: 'buffer' })) {
      const path = folder === '' ? name.toString('latin1') : `${folder}/${name.toString('latin1')}`;
      names.push(path);
      if (lstatSync(raw(`${dir}/${path}`)).isDirectory()) look(path);
    }
  };
  look('');
  const firsts = new Map<string, string>();
  return new Map(names.sort().map((name) => [name, nodeOf(`${dir}/${name}`, name, firsts)]));
}

/** What is not equal in two trees, or undefined; times may differ by two microseconds. */
export function difference(wanted: Tree, found: Tree): string | undefined {
  for (const [name, one] of wanted) {
    const other = found.get(name);
    const shown = JSON.stringify(name);
    if (other === undefined) return `${shown} is missing`;
    for (const key of ['type', 'mode', 'owner', 'size', 'sha256', 'target', 'first'] as const) {
      if (one[key] !== other[key]) return `${shown}: ${key} is ${other[key]} instead of ${one[key]}`;
    }
    const late = one.mtimeNs - other.mtimeNs;
    if (late > MTIME_SLACK_NS || late < -MTIME_SLACK_NS) return `${shown}: its time is ${late} ns off`;
  }
  for (const name of found.keys()) if (!wanted.has(name)) return `${JSON.stringify(name)} is too much`;
  return undefined;
}

/** Bytes that compress to about a half, of any length. */
export function someBytes(draw: Random, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) bytes[i] = draw(16) === 0 ? draw(256) : 0x20 + draw(48);
  return bytes;
}

/**
 * A small directory with everything that a snapshot keeps; versions of one seed share most of their bytes. From
 * version to version `turn.bin` is another file, `grow.json` is longer, `old-N` goes and `new-N` comes.
 */
export function makeTree(dir: string, draw: Random, version: number): void {
  const put = (name: string, bytes: Uint8Array | string, mode = 0o644) => {
    mkdirSync(dirname(`${dir}/${name}`), { recursive: true });
    writeFileSync(raw(`${dir}/${name}`), bytes);
    chmodSync(raw(`${dir}/${name}`), mode);
  };
  mkdirSync(dir, { recursive: true });
  const fixed = someBytes(draw, 48_000);
  const chapters = Array.from({ length: 12 }, () => someBytes(draw, 6000));
  put('fixed.json', fixed, 0o600);
  put('grow.json', Buffer.concat(chapters.slice(0, 3 + version)));
  const turns = Array.from({ length: 8 }, () => someBytes(draw, 90_000));
  put('turn.bin', turns[version % turns.length] as Buffer, 0o640);
  put('sub/deep/leaf', `leaf ${version >> 1}`);
  put('sub/empty', '');
  put(`sub/new-${version}`, someBytes(draw, 3000));
  writeFileSync(raw(`${dir}/sub/\xff\xfe\n name`), 'no UTF-8, and a line feed');
  mkdirSync(`${dir}/hollow`, { mode: 0o700 });
  linkSync(`${dir}/sub/deep/leaf`, `${dir}/hard`);
  symlinkSync('sub/deep/leaf', `${dir}/soft`);
  lutimesSync(`${dir}/soft`, 1e9, 1e9 + version);
  utimesSync(`${dir}/fixed.json`, 1.1e9, 1.1e9 + 0.123456);
  utimesSync(`${dir}/sub`, 1.2e9, 1.2e9);
}
