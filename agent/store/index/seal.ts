import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ioCode, ioError, systemCode } from '../../../core/errors.ts';
import { effect, removeFile, removeTree } from '../../../host/disk.ts';

const SEAL = 'SEAL';
/** What LevelDB writes of its own doings, and its lock: nothing depends on it. */
const UNSEALED_FILES = new Set([SEAL, 'LOG', 'LOG.old', 'LOCK']);
/** Openings in a row that ended without a word. One is a kill or a power cut; more may be the index's doing. */
const UNCLOSED_OPENINGS_MAX = 2;
/** A copy that keeps times keeps them not to the nanosecond. */
const TIME_SLACK_MS = 2;

/** What is known of an index that nobody has open. */
interface Seal {
  /** Openings that have not ended, since the last one that has. */
  readonly deaths: number;
  /** Name, size in bytes and time of change in milliseconds of each file, if the last one has ended. */
  readonly files: readonly (readonly [name: string, size: number, mtimeMs: number])[] | undefined;
}

const UNKNOWN: Seal = { deaths: 0, files: undefined };

/**
 * To be called before an index is opened. LevelDB believes its files, and ends the whole process when they contradict
 * themselves; so an index is removed, and made again by whoever opens it, if its files are not those that were there
 * when it was closed, or if several processes in a row have ended with it open.
 */
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

/** To be called after an index was closed. */
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
    // None yet, or one that was cut off: it says nothing.
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

/** Not synced: after a power loss an old one fits no index, or the index that it was written for. */
async function writeSeal(path: string, seal: Seal): Promise<void> {
  const file = join(path, SEAL);
  try {
    await effect({ label: 'store:index:seal', op: 'other', path: file }, () =>
      writeFile(file, JSON.stringify(seal), { mode: 0o600 }),
    );
  } catch (error) {
    // A full disk must not keep anybody from reading: without a seal the index is believed as it is.
    if (!['ENOSPC', 'EDQUOT'].includes(ioCode(error) ?? '')) throw ioError('write', file, error);
    await removeFile('store:index:unseal', file);
  }
}
