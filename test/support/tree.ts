import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs';

/** Restored times are those that were captured, to the microsecond. */
const TIME_SLACK_NS = 2000n;
const STEP_BYTES = 4 << 20;
const PATH_MAX = 4096;

/** All about one name that a restore gives back. */
export interface Fact {
  readonly type: string;
  readonly mode: string;
  readonly owner: string;
  readonly mtimeNs: bigint;
  readonly size: bigint;
  /** SHA-256 of a file's bytes, target of a symlink. */
  readonly content: string;
  /** The first name, in order, of the same file; empty if it has no other. */
  readonly first: string;
}

/** All names below a directory, one character a byte. */
export type Tree = ReadonlyMap<string, Fact>;

function digestOf(path: Buffer): string {
  const hash = createHash('sha256');
  const step = Buffer.allocUnsafe(STEP_BYTES);
  const fd = openSync(path, 'r');
  try {
    for (;;) {
      const read = readSync(fd, step);
      if (read === 0) return hash.digest('hex');
      hash.update(step.subarray(0, read));
    }
  } finally {
    closeSync(fd);
  }
}

function at(dir: Buffer, path: string): Buffer {
  return path === '' ? dir : Buffer.concat([dir, Buffer.from(`/${path}`, 'latin1')]);
}

function typeOf(stat: ReturnType<typeof statOf>): string {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'dir';
  return stat.isSymbolicLink() ? 'symlink' : 'special';
}

function statOf(path: Buffer) {
  return lstatSync(path, { bigint: true });
}

/** Every name below a directory, one character a byte, with what is known of it; special files left out. */
export function readTree(dir: string): Map<string, Fact> {
  const root = Buffer.from(dir);
  const facts = new Map<string, Fact>();
  const firsts = new Map<string, string>();
  const names = (folder: string) =>
    readdirSync(at(root, folder), { encoding: 'buffer' })
      .map((name) => (folder === '' ? '' : `${folder}/`) + name.toString('latin1'))
      .sort();
  const look = (path: string) => {
    const place = at(root, path);
    // No system call can name what is that deep, so neither can a snapshot.
    if (place.length >= PATH_MAX) return;
    const stat = statOf(place);
    const type = typeOf(stat);
    if (type === 'special') return;
    const linked = type === 'file' && stat.nlink > 1n ? `${stat.dev}:${stat.ino}` : '';
    const first = linked === '' ? '' : (firsts.get(linked) ?? path);
    if (linked !== '') firsts.set(linked, first);
    facts.set(path, {
      type,
      mode: (stat.mode & 0o7777n).toString(8),
      owner: `${stat.uid}:${stat.gid}`,
      mtimeNs: stat.mtimeNs,
      size: type === 'file' ? stat.size : 0n,
      content: type === 'file' ? digestOf(place) : type === 'symlink' ? readlinkSync(place, 'latin1') : '',
      first,
    });
    if (type === 'dir') for (const name of names(path)) look(name);
  };
  for (const name of names('')) look(name);
  return facts;
}

/** How two looks differ, as lines; empty if they do not. Links to names outside count as none. */
export function differences(wanted: Tree, there: Tree, options: { owners?: boolean } = {}): string[] {
  const lines: string[] = [];
  for (const path of there.keys()) if (!wanted.has(path)) lines.push(`${path}: should not be there`);
  for (const [path, a] of wanted) {
    const b = there.get(path);
    if (b === undefined) {
      lines.push(`${path}: is not there`);
      continue;
    }
    const apart = a.mtimeNs > b.mtimeNs ? a.mtimeNs - b.mtimeNs : b.mtimeNs - a.mtimeNs;
    if (apart > TIME_SLACK_NS) lines.push(`${path}: time ${a.mtimeNs} became ${b.mtimeNs}`);
    for (const key of ['type', 'mode', 'size', 'content'] as const)
      if (a[key] !== b[key]) lines.push(`${path}: ${key} ${a[key]} became ${b[key]}`);
    if (options.owners !== false && a.owner !== b.owner)
      lines.push(`${path}: owner ${a.owner} became ${b.owner}`);
    const linked = (fact: Fact) => (fact.first === path ? '' : fact.first);
    if (linked(a) !== linked(b)) lines.push(`${path}: linked to "${linked(a)}" became "${linked(b)}"`);
  }
  return lines;
}

/** Returns the first difference of two trees, or undefined. */
export function difference(wanted: Tree, there: Tree): string | undefined {
  return differences(wanted, there)[0];
}

/** Asserts that a directory is what another one was when it was looked at. */
export function assertSameTree(wanted: Tree, dir: string, options: { owners?: boolean } = {}): void {
  assert.deepEqual(differences(wanted, readTree(dir), options), []);
}
