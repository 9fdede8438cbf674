import type { BytePath } from '../../core/path.ts';
import { now } from '../../host/clock.ts';
import { FLUSH_AGE_MAX_MS } from './names.ts';
import type { WriterState } from './temp-writers.ts';

/** What is known of a temporary or lock file of LightRAG. */
interface TransientFile {
  readonly path: BytePath;
  readonly size: number;
  readonly mtimeNs: bigint;
  /** State of the process that writes a temporary file; undefined for a lock file. */
  readonly writer: WriterState | undefined;
}

interface TransientFiles<File extends TransientFile = TransientFile> {
  readonly transient: readonly File[];
}

/**
 * Returns the temporary files of a scan that mean a flush under way.
 *
 * Such a file has grown since the scan `before`, or is younger than a minute and its writer may still run. Every other
 * temporary file was left behind by a process that ended during a flush.
 */
export function flushFiles<File extends TransientFile>(
  { transient }: TransientFiles<File>,
  before?: TransientFiles,
): File[] {
  const known = new Map(before?.transient.map((file) => [file.path, file]));
  return transient.filter((file) => {
    if (file.writer === undefined) return false;
    const old = known.get(file.path);
    const grew = old !== undefined && (old.size !== file.size || old.mtimeNs !== file.mtimeNs);
    return grew || !isLeftBehind(file);
  });
}

/** Reports whether a temporary file that does not grow was left behind by its writer. */
export function isLeftBehind({ writer, mtimeNs }: Omit<TransientFile, 'path' | 'size'>): boolean {
  // A time far in the future was written before the clock was set back.
  return writer === 'gone' || Math.abs(ageMs(mtimeNs)) >= FLUSH_AGE_MAX_MS;
}

function ageMs(mtimeNs: bigint): number {
  return now() - Number(mtimeNs / 1_000_000n);
}
