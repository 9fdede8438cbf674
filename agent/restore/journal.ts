import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, open } from 'node:fs/promises';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import { type BytePath, bytesText, pathFromText, pathProblem, pathText } from '../../core/path.ts';
import type { FileEntry } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { createFile, removeFile, renameFile, syncDir, syncFile, writeAt } from '../../host/disk.ts';
import { below, isNever, OWN_FOLDER } from '../watch/names.ts';

/** A journal that is longer is not read, and so never written. */
const JOURNAL_BYTES_MAX = 64 << 20;
const FORMAT = 1;
const OWNER_MAX = 0xffff_ffff;

/** What a directory itself is given. */
export interface RootFacts {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
}

/** What a restore in place is about to move: from when it is on the disk until it is gone, a crash is survived. */
export interface Journal {
  /** Names the folder of the old state. */
  readonly id: string;
  readonly snapshotId: string;
  /** Names at the top of the directory that make room. */
  readonly out: readonly BytePath[];
  /** Staged names that take their place. */
  readonly in: readonly BytePath[];
  /** Of the directory itself, if it is undone. */
  readonly before: RootFacts;
  readonly after: RootFacts;
}

/** Where a restore in place keeps what is its own. */
export function placesOf(dir: Uint8Array, id = '') {
  return {
    own: below(dir, OWN_FOLDER),
    stage: below(dir, `${OWN_FOLDER}/stage`),
    journal: below(dir, `${OWN_FOLDER}/journal.json`),
    draft: below(dir, `${OWN_FOLDER}/journal.new`),
    old: below(dir, `${OWN_FOLDER}/old-${id}`),
    /** What was in the way of a recovery. */
    found: below(dir, `${OWN_FOLDER}/old-${id}-found`),
  };
}

/** What a folder's own facts are, from a scan or a manifest. */
export function rootFacts({ mode, uid, gid, mtimeNs }: RootFacts | FileEntry): RootFacts {
  return { mode, uid, gid, mtimeNs };
}

/** Whether a restore in place has begun to move and has not ended. */
export async function hasJournal(dir: Uint8Array): Promise<boolean> {
  try {
    await lstat(placesOf(dir).journal);
    return true;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return false;
    throw ioError('read', bytesText(dir), error);
  }
}

/** Puts a journal on the disk: from here on a crash is rolled forward or back. */
export async function writeJournal(dir: Uint8Array, journal: Journal): Promise<void> {
  const { own, draft, journal: path } = placesOf(dir);
  const bytes = encode(journal);
  if (bytes.length > JOURNAL_BYTES_MAX) {
    throw new LightkeeperError(
      'REFUSED',
      `Cannot restore in place to "${bytesText(dir)}": it holds too many names at its top`,
      { hint: 'restore to another directory with --to, and swap the two' },
    );
  }
  await removeFile('inplace:journal:clear', draft);
  const file = await createFile('inplace:journal:create', draft);
  try {
    await writeAt('inplace:journal:write', draft, file, bytes, 0);
    await syncFile('inplace:journal:sync', draft, file);
  } finally {
    await file.close();
  }
  await renameFile('inplace:journal:rename', draft, path);
  await syncDir('inplace:journal:publish', own);
}

/** Takes the journal away: what is in the directory now is its state. */
export async function removeJournal(dir: Uint8Array): Promise<void> {
  const { own, journal } = placesOf(dir);
  await removeFile('inplace:journal:end', journal);
  await syncDir('inplace:journal:ended', own);
}

function encode({ id, snapshotId, out, in: into, before, after }: Journal): Buffer {
  const root = (facts: RootFacts) => ({ ...facts, mtimeNs: String(facts.mtimeNs) });
  const journal = {
    format: FORMAT,
    id,
    snapshotId,
    out: out.map(pathText),
    in: into.map(pathText),
    before: root(before),
    after: root(after),
  };
  return Buffer.from(`${JSON.stringify({ journal, sha256: digest(journal) }, null, 1)}\n`);
}

function digest(journal: unknown): string {
  return createHash('sha256').update(JSON.stringify(journal)).digest('hex');
}

/** Reads the journal of a directory; undefined if there is none. One that is not whole is refused, never guessed at. */
export async function readJournal(dir: Uint8Array): Promise<Journal | undefined> {
  const bytes = await readBounded(dir);
  if (bytes === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch (error) {
    throw damaged(dir, 'it is no JSON', error);
  }
  const { journal, sha256 } = record(value);
  if (typeof sha256 !== 'string' || journal === undefined || sha256 !== digest(journal))
    throw damaged(dir, 'its hash is another');
  const problem = problemOf(record(journal));
  if (problem !== undefined) throw damaged(dir, problem);
  const { id, snapshotId, out, in: into, before, after } = journal as Encoded;
  const root = (facts: Encoded['before']) => ({ ...facts, mtimeNs: BigInt(facts.mtimeNs) });
  return {
    id,
    snapshotId,
    out: out.map(pathFromText),
    in: into.map(pathFromText),
    before: root(before),
    after: root(after),
  };
}

interface Encoded {
  readonly id: string;
  readonly snapshotId: string;
  readonly out: readonly string[];
  readonly in: readonly string[];
  readonly before: { mode: number; uid: number; gid: number; mtimeNs: string };
  readonly after: Encoded['before'];
}

async function readBounded(dir: Uint8Array): Promise<Buffer | undefined> {
  const path = placesOf(dir).journal;
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stat = await file.stat();
      if (!stat.isFile()) throw damaged(dir, 'it is no file');
      if (stat.size > JOURNAL_BYTES_MAX) throw damaged(dir, 'it is too long');
      const bytes = Buffer.alloc(stat.size);
      const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
      return bytes.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT') return undefined;
    if (code === undefined) throw error;
    throw damaged(dir, `it cannot be read (${code})`, error);
  }
}

/** That the interrupted restore of a directory can be neither finished nor undone. */
export function damaged(dir: Uint8Array, state: string, cause?: unknown): LightkeeperError {
  const own = `${bytesText(dir)}/${OWN_FOLDER}`;
  return new LightkeeperError(
    'REFUSED',
    `Cannot finish the interrupted restore of "${bytesText(dir)}" by its journal: ${state}`,
    {
      hint:
        `nothing was changed: what was there before is in ${own}/old-* where it is not in place, what was to come ` +
        `in ${own}/stage; restore to another directory with --to, or put the names right by hand and remove ` +
        `${own}/journal.json`,
      ...(cause === undefined ? {} : { cause }),
    },
  );
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function problemOf(journal: Record<string, unknown>): string | undefined {
  if (journal.format !== FORMAT) return 'a newer version wrote it';
  if (!matches(journal.id, /^[0-9a-f]{8}$/) || !matches(journal.snapshotId, /^[0-9a-f]{32}$/))
    return 'its ids are none';
  for (const facts of [record(journal.before), record(journal.after)]) {
    const whole = ['mode', 'uid', 'gid'].every((key) => Number.isSafeInteger(facts[key]));
    if (!whole || !matches(facts.mtimeNs, /^-?\d{1,19}$/))
      return 'it does not say what the directory is given';
    const { mode, uid, gid } = facts as { mode: number; uid: number; gid: number };
    const inRange = (id: number) => id >= 0 && id <= OWNER_MAX;
    if (mode < 0 || mode > 0o7777 || !inRange(uid) || !inRange(gid))
      return 'it does not say what the directory is given';
  }
  return problemOfNames(journal.out) ?? problemOfNames(journal.in);
}

function matches(value: unknown, pattern: RegExp): boolean {
  return typeof value === 'string' && pattern.test(value);
}

function problemOfNames(names: unknown): string | undefined {
  if (!Array.isArray(names)) return 'it names nothing';
  const seen = new Set<unknown>();
  for (const text of names as unknown[]) {
    const path = typeof text === 'string' ? pathFromText(text) : '';
    const problem = pathProblem(path);
    if (problem !== undefined || path.includes('/'))
      return `it names "${String(text)}", which leads elsewhere`;
    if (path === OWN_FOLDER || isNever(path)) return `it names "${String(text)}", which is never moved`;
    if (seen.has(text)) return `it names "${String(text)}" twice`;
    seen.add(text);
  }
  return undefined;
}
