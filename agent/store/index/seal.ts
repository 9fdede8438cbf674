import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ioCode, ioError, systemCode } from '../../../core/errors.ts';
import { effect, removeFile, removeTree } from '../../../host/disk.ts';

const SEAL = 'SEAL';
/** Files that the seal leaves out: LevelDB's logs and lock, on which nothing depends. */
const UNSEALED_FILES = new Set([SEAL, 'LOG', 'LOG.old', 'LOCK']);
/** Openings in a row that may end without a close. */
// One can be a kill or a power loss; more may be caused by the index itself.
const UNCLOSED_OPENINGS_MAX = 2;
/** Difference of two modification times that count as equal, in milliseconds. */
// A copy that preserves times does not preserve nanoseconds.
const TIME_SLACK_MS = 2;

/** The state of an index that is not open. */
interface Seal {
  /** Openings without a close since the last close. */
  readonly deaths: number;
  /** Name, size in bytes and modification time in milliseconds of each file; undefined before a close. */
  readonly files: readonly (readonly [name: string, size: number, mtimeMs: number])[] | undefined;
}

const UNKNOWN: Seal = { deaths: 0, files: undefined };

/**
 * Breaks the seal of an index that is about to be opened. Removes the index if its files changed since it was closed,
 * or if several processes in a row ended with it open.
 */
// LevelDB trusts its files and ends the whole process when they contradict each other. A removed index is rebuilt.
export async function breakSeal(path: string): Promise<void> {
  const files = await filesOf(path);
  if (files === undefined) return;
  const seal = await readSeal(path);
  const changed = seal.files !== undefined && !sameFiles(seal.files, files);
  if (changed || seal.deaths >= UNCLOSED_OPENINGS_MAX) {
    await removeTree('store:index:clear', path);
    return;
  }
  await writeSeal(path, { deaths: seal.deaths + 1, files: undefined });
}

/** Seals an index that has been closed: records its files. */
export async function sealIndex(path: string): Promise<void> {
  const files = await filesOf(path);
  if (files !== undefined) await writeSeal(path, { deaths: 0, files });
}

async function filesOf(path: string): Promise<NonNullable<Seal['files']> | undefined> {
  try {
    const names = (await readdir(path)).filter((name) => !UNSEALED_FILES.has(name)).sort();
    return await Promise.all(
      names.map(async (name) => {
        const { size, mtimeMs } = await stat(join(path, name));
        return [name, size, mtimeMs] as const;
      }),
    );
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw ioError('read', path, error);
  }
}

async function readSeal(path: string): Promise<Seal> {
  try {
    const seal: unknown = JSON.parse(await readFile(join(path, SEAL), 'utf8'));
    return isSeal(seal) ? seal : UNKNOWN;
  } catch (error) {
    // There is none yet, or it is truncated.
    if (systemCode(error) === 'ENOENT' || error instanceof SyntaxError) return UNKNOWN;
    throw ioError('read', join(path, SEAL), error);
  }
}

function isSeal(value: unknown): value is Seal {
  if (typeof value !== 'object' || value === null || !('deaths' in value)) return false;
  const files = 'files' in value ? value.files : undefined;
  const isFile = (file: unknown) => Array.isArray(file) && file.length === 3;
  return (
    Number.isInteger(value.deaths) && (files === undefined || (Array.isArray(files) && files.every(isFile)))
  );
}

function sameFiles(a: NonNullable<Seal['files']>, b: NonNullable<Seal['files']>): boolean {
  if (a.length !== b.length) return false;
  return a.every(([name, size, mtimeMs], i) => {
    const other = b[i];
    if (other === undefined) return false;
    return name === other[0] && size === other[1] && Math.abs(mtimeMs - other[2]) < TIME_SLACK_MS;
  });
}

/** Writes a seal. Removes it if the disk is full. */
// Not synced: after a power loss an old seal matches no index, or the one that it was written for.
async function writeSeal(path: string, seal: Seal): Promise<void> {
  const file = join(path, SEAL);
  try {
    await effect({ label: 'store:index:seal', op: 'other', path: file }, () =>
      writeFile(file, JSON.stringify(seal), { mode: 0o600 }),
    );
  } catch (error) {
    // A full disk must not prevent reading. Without a seal the index is used as it is.
    if (!['ENOSPC', 'EDQUOT'].includes(ioCode(error) ?? '')) throw ioError('write', file, error);
    await removeFile('store:index:unseal', file);
  }
}
