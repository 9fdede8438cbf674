import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, open } from 'node:fs/promises';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import { type BytePath, bytesText, pathFromText, pathProblem, pathText } from '../../core/path.ts';
import type { FileEntry } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { createFile, removeFile, renameFile, syncDir, syncFile, writeAt } from '../../host/disk.ts';
import { below, isTemporary, isTransient, OWN_FOLDER } from '../watch/names.ts';

// A longer journal is not read, so it is not written either.
/** Longest journal, in bytes. */
const JOURNAL_BYTES_MAX = 64 << 20;
const JOURNAL_FORMAT = 1;
/** Highest user or group id. */
const OWNER_MAX = 0xffff_ffff;

/** Metadata of a directory itself. */
export interface RootMetadata {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
}

// While a journal is on the disk, a crash is recovered from.
/** Moves that a restore in place is about to make. */
export interface Journal {
  /** Suffix of the folder that takes the old state. */
  readonly id: string;
  readonly snapshotId: string;
  /** Names at the top of the directory to move out. */
  readonly out: readonly BytePath[];
  /** Staged names to move in. */
  readonly in: readonly BytePath[];
  /** Metadata of the directory after a roll back. */
  readonly before: RootMetadata;
  /** Metadata of the directory after a roll forward. */
  readonly after: RootMetadata;
}

/** Returns the paths that a restore in place uses below a directory. */
export function restorePaths(dir: Uint8Array, id = '') {
  return {
    own: below(dir, OWN_FOLDER),
    stage: below(dir, `${OWN_FOLDER}/stage`),
    journal: below(dir, `${OWN_FOLDER}/journal.json`),
    draft: below(dir, `${OWN_FOLDER}/journal.new`),
    old: below(dir, `${OWN_FOLDER}/old-${id}`),
    /** Folder of files that were in the way of a recovery. */
    found: below(dir, `${OWN_FOLDER}/old-${id}-found`),
  };
}

/** Returns the metadata of a directory from a scan or a manifest. */
export function rootMetadata({ mode, uid, gid, mtimeNs }: RootMetadata | FileEntry): RootMetadata {
  return { mode, uid, gid, mtimeNs };
}

/** Returns whether a restore in place has begun to move names and has not ended. */
export async function hasJournal(dir: Uint8Array): Promise<boolean> {
  try {
    await lstat(restorePaths(dir).journal);
    return true;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return false;
    throw ioError('read', dir, error);
  }
}

/** Writes and syncs a journal. From then on a crash is rolled forward or back. */
export async function writeJournal(dir: Uint8Array, journal: Journal): Promise<void> {
  const { own, draft, journal: path } = restorePaths(dir);
  const bytes = encodeJournal(journal);
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

/** Removes the journal, which makes the present content final. */
export async function removeJournal(dir: Uint8Array): Promise<void> {
  const { own, journal } = restorePaths(dir);
  await removeFile('inplace:journal:end', journal);
  await syncDir('inplace:journal:ended', own);
}

function encodeJournal({ id, snapshotId, out, in: into, before, after }: Journal): Buffer {
  const root = (facts: RootMetadata) => ({ ...facts, mtimeNs: String(facts.mtimeNs) });
  const journal = {
    format: JOURNAL_FORMAT,
    id,
    snapshotId,
    out: out.map(pathText),
    in: into.map(pathText),
    before: root(before),
    after: root(after),
  };
  return Buffer.from(`${JSON.stringify({ journal, sha256: journalDigest(journal) }, null, 1)}\n`);
}

function journalDigest(journal: unknown): string {
  return createHash('sha256').update(JSON.stringify(journal)).digest('hex');
}

/** Reads the journal of a directory. Returns undefined if there is none, and refuses a damaged one. */
export async function readJournal(dir: Uint8Array): Promise<Journal | undefined> {
  const bytes = await readBounded(dir);
  if (bytes === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch (error) {
    throw unrecoverable(dir, 'it is not JSON', error);
  }
  const { journal, sha256 } = recordOf(value);
  if (typeof sha256 !== 'string' || journal === undefined || sha256 !== journalDigest(journal))
    throw unrecoverable(dir, 'its hash does not match');
  const problem = journalProblem(recordOf(journal));
  if (problem !== undefined) throw unrecoverable(dir, problem);
  const { id, snapshotId, out, in: into, before, after } = journal as EncodedJournal;
  const root = (facts: EncodedJournal['before']) => ({ ...facts, mtimeNs: BigInt(facts.mtimeNs) });
  return {
    id,
    snapshotId,
    out: out.map(pathFromText),
    in: into.map(pathFromText),
    before: root(before),
    after: root(after),
  };
}

interface EncodedJournal {
  readonly id: string;
  readonly snapshotId: string;
  readonly out: readonly string[];
  readonly in: readonly string[];
  readonly before: { mode: number; uid: number; gid: number; mtimeNs: string };
  readonly after: EncodedJournal['before'];
}

async function readBounded(dir: Uint8Array): Promise<Buffer | undefined> {
  const path = restorePaths(dir).journal;
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stat = await file.stat();
      if (!stat.isFile()) throw unrecoverable(dir, 'it is not a file');
      if (stat.size > JOURNAL_BYTES_MAX) throw unrecoverable(dir, 'it is too long');
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
    throw unrecoverable(dir, `it cannot be read (${code})`, error);
  }
}

/** Returns the error for an interrupted restore that can be neither finished nor undone. */
export function unrecoverable(dir: Uint8Array, state: string, cause?: unknown): LightkeeperError {
  const own = `${bytesText(dir)}/${OWN_FOLDER}`;
  return new LightkeeperError(
    'REFUSED',
    `Cannot finish the interrupted restore of "${bytesText(dir)}" by its journal: ${state}`,
    {
      hint:
        `nothing was changed: old files that are not in place are in ${own}/old-*, new ones in ${own}/stage; ` +
        'restore to another directory with --to, or move the files by hand and remove ' +
        `${own}/journal.json`,
      ...(cause === undefined ? {} : { cause }),
    },
  );
}

function recordOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function journalProblem(journal: Record<string, unknown>): string | undefined {
  if (journal.format !== JOURNAL_FORMAT) return 'a newer version wrote it';
  if (!matches(journal.id, /^[0-9a-f]{8}$/) || !matches(journal.snapshotId, /^[0-9a-f]{32}$/))
    return 'its ids are malformed';
  for (const facts of [recordOf(journal.before), recordOf(journal.after)]) {
    const whole = ['mode', 'uid', 'gid'].every((key) => Number.isSafeInteger(facts[key]));
    if (!whole || !matches(facts.mtimeNs, /^-?\d{1,19}$/))
      return 'the metadata of the directory is malformed';
    const { mode, uid, gid } = facts as { mode: number; uid: number; gid: number };
    const inRange = (id: number) => id >= 0 && id <= OWNER_MAX;
    if (mode < 0 || mode > 0o7777 || !inRange(uid) || !inRange(gid))
      return 'the metadata of the directory is malformed';
  }
  return namesProblem(journal.out, isTemporary) ?? namesProblem(journal.in, () => false);
}

function matches(value: unknown, pattern: RegExp): boolean {
  return typeof value === 'string' && pattern.test(value);
}

/** Returns what is wrong with a list of names. `isLeftover` accepts temporary files, which can only move out. */
function namesProblem(names: unknown, isLeftover: (path: BytePath) => boolean): string | undefined {
  if (!Array.isArray(names)) return 'it has no list of names';
  const seen = new Set<unknown>();
  for (const text of names as unknown[]) {
    const path = typeof text === 'string' ? pathFromText(text) : '';
    const problem = pathProblem(path);
    if (problem !== undefined || path.includes('/'))
      return `it names "${String(text)}", which leads elsewhere`;
    if (path === OWN_FOLDER || (isTransient(path) && !isLeftover(path)))
      return `it names "${String(text)}", which is never moved`;
    if (seen.has(text)) return `it names "${String(text)}" twice`;
    seen.add(text);
  }
  return undefined;
}
