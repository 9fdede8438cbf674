import { open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { threadId } from 'node:worker_threads';

/** How a server writes a file: over itself, as up to January 2026, or beside it, as since May 2026. */
export type Style = 'in-place' | 'rename';

/**
 * Called once the file is open (0 bytes) and after each write, before a rename. What it returns is awaited:
 * here a caller slows the writer down, stops it halfway or looks at the directory.
 */
export type Pace = (name: string, writtenBytes: number) => void | Promise<void>;

const BLOCK_BYTES = 1 << 20;
/** UTF-8 needs at most so many bytes for a UTF-16 code unit. */
const UTF8_BYTES_MAX = 3;

/** How a file is written. */
export interface WriteStyle {
  readonly style: Style;
  readonly pace?: Pace | undefined;
  /** About how many bytes are written at once; 1 MiB where not given. */
  readonly blockBytes?: number;
}

/** Writes `pieces` to `dir/name` and gives the size in bytes. Nothing is synced, as in LightRAG. */
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

/** How many bytes `pieces` would be. */
export function sizeOf(pieces: Iterable<string>): number {
  let bytes = 0;
  for (const piece of pieces) bytes += Buffer.byteLength(piece);
  return bytes;
}

/** `pieces` in blocks of about `blockBytes`, each valid until the next is asked for. */
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
