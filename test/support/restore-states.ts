import assert from 'node:assert/strict';
import {
  chmodSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fill, noise } from './fill.ts';
import { differences, type Fact, readTree } from './tree.ts';

const NEVER = /^(?:\.lightkeeper(?:\/|$)|[^/]*\.tmp\.[0-9.]+$|\.lightrag_[^/]*lock$)/;
const TIME_SLACK_NS = 2000n;

/** A state of a directory: all below it that belongs to its graph, and what it is itself. */
export interface State {
  readonly facts: ReadonlyMap<string, Fact>;
  readonly mode: number;
  readonly mtimeNs: bigint;
}

/** Looks at the state of a directory. */
export function stateOf(dir: string): State {
  const facts = readTree(dir);
  for (const path of [...facts.keys()]) if (NEVER.test(path)) facts.delete(path);
  const { mode, mtimeNs } = lstatSync(dir, { bigint: true });
  return { facts, mode: Number(mode & 0o7777n), mtimeNs };
}

/** How a directory differs from a state, as lines. */
export function notAs(wanted: State, dir: string, options: { rootTime?: boolean } = {}): string[] {
  const found = stateOf(dir);
  const lines = differences(wanted.facts, found.facts);
  if (found.mode !== wanted.mode) lines.push(`its own mode ${wanted.mode} became ${found.mode}`);
  const apart = found.mtimeNs - wanted.mtimeNs;
  if (options.rootTime === true && (apart > TIME_SLACK_NS || apart < -TIME_SLACK_NS))
    lines.push(`its own time is ${apart} ns off`);
  return lines;
}

function raw(dir: string, name: string): Buffer {
  return Buffer.from(`${dir}/${name}`, 'latin1');
}

/** The state of a snapshot: files, folders, links, modes and times of every kind. */
export function fillNew(dir: string): void {
  fill(dir, {
    'docs.json': 'new docs',
    'vectors.bin': noise('new', 300_000),
    'kind/now': 'a folder now',
    'sub/deep/leaf': 'leaf',
    'sub/only-new': '',
  });
  writeFileSync(raw(dir, 'top\xff\xfe\n'), 'no UTF-8');
  writeFileSync(raw(dir, 'sub/\xe9'), 'no UTF-8 either');
  linkSync(join(dir, 'sub/deep/leaf'), join(dir, 'hard'));
  symlinkSync('sub/nowhere', join(dir, 'soft'));
  chmodSync(join(dir, 'docs.json'), 0o600);
  chmodSync(join(dir, 'sub'), 0o711);
  lutimesSync(join(dir, 'soft'), 1.3e9, 1.3e9);
  for (const [i, name] of ['sub/deep/leaf', 'sub/deep', 'sub', 'kind'].entries())
    utimesSync(join(dir, name), 1.2e9, 1.2e9 + i + 0.123456);
  chmodSync(dir, 0o750);
  utimesSync(dir, 1.1e9, 1.1e9 + 0.654321);
}

/** What the directory holds when it is restored to. */
export function fillOld(dir: string): void {
  fill(dir, {
    'docs.json': 'old docs, longer',
    'gone.json': 'only here',
    kind: 'a file',
    'sub/deep/leaf': 'old leaf',
    'away/with/it': 'only here too',
  });
  writeFileSync(raw(dir, 'old\xff'), 'no UTF-8');
  symlinkSync('kind', join(dir, 'soft'));
  writeFileSync(join(dir, '.lightrag_kv_lock'), '');
  writeFileSync(join(dir, 'a.json.tmp.1.2.3'), 'left behind long ago');
  // The deepest first: what is made in a folder changes its time.
  const names = readdirSync(dir, { recursive: true, encoding: 'latin1' }).sort().reverse();
  for (const [i, name] of names.entries()) lutimesSync(raw(dir, name), 1e9, 1e9 + i);
  chmodSync(dir, 0o755);
  utimesSync(dir, 1.4e9, 1.4e9 + 0.25);
}

/** Names below the folder that is ours, the lock left out. */
export function ownNames(dir: string): string[] {
  return readdirSync(join(dir, '.lightkeeper'))
    .filter((name) => name !== 'lock')
    .sort();
}

/** A fresh directory in the old state, its parent included. */
export function oldDirectory(dir: string): string {
  mkdirSync(dir, { recursive: true });
  fillOld(dir);
  assert.ok(readdirSync(dir).length > 0);
  return dir;
}
