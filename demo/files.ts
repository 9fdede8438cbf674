import { open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { threadId } from 'node:worker_threads';

/**
 * How a server writes a file: in place, as until January 2026, or to a temporary file that it renames, as since May
 * 2026.
 */
export type Style = 'in-place' | 'rename';

/** Called when the file is open (0 bytes) and after each write, before a rename. Its promise is awaited. */
// A caller can slow the writer down, stop it halfway or inspect the directory.
export type Pace = (name: string, writtenBytes: number) => void | Promise<void>;

const BLOCK_BYTES = 1 << 20;
/** Most bytes of UTF-8 for a UTF-16 code unit. */
const UTF8_BYTES_MAX = 3;

/** Settings of a write. */
export interface WriteStyle {
  readonly style: Style;
  readonly pace?: Pace | undefined;
  /** Approximate bytes of one write; 1 MiB by default. */
  readonly blockBytes?: number;
}

/** Writes `pieces` to `dir/name` and returns the size in bytes. Syncs nothing, like LightRAG. */
export async function writePieces(
  dir: string,
  name: string,
  pieces: Iterable<string>,
  { style, pace, blockBytes = BLOCK_BYTES }: WriteStyle,
): Promise<number> {
  const path = join(dir, name);
  const target =
    style === 'rename' ? `${path}.tmp.${process.pid}.${threadId}.${process.hrtime.bigint()}` : path;
  const file = await open(target, 'w');
  let written = 0;
  try {
    await pace?.(name, written);
    for (const block of blocks(pieces, blockBytes)) {
      await file.writeFile(block);
      written += block.length;
      await pace?.(name, written);
    }
  } finally {
    await file.close();
  }
  if (style === 'rename') await rename(target, path);
  return written;
}

/** Returns the size of `pieces` in bytes. */
export function sizeOf(pieces: Iterable<string>): number {
  let bytes = 0;
  for (const piece of pieces) bytes += Buffer.byteLength(piece);
  return bytes;
}

/** Yields `pieces` in blocks of about `blockBytes`, each valid until the next. */
function* blocks(pieces: Iterable<string>, blockBytes: number): Generator<Buffer> {
  const block = Buffer.allocUnsafe(blockBytes);
  let used = 0;
  for (const piece of pieces) {
    if (used + piece.length * UTF8_BYTES_MAX > blockBytes && used > 0) {
      yield block.subarray(0, used);
      used = 0;
    }
    if (piece.length * UTF8_BYTES_MAX > blockBytes) yield Buffer.from(piece);
    else used += block.write(piece, used);
  }
  if (used > 0) yield block.subarray(0, used);
}
