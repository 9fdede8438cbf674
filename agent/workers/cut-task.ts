import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { BLOCK_BUFFER_BYTES } from './chunker.ts';

/** A small file to be read whole. */
export interface SmallFile {
  /** Absolute. */
  readonly path: Uint8Array;
}

/** What came of one small file. */
export interface SmallFileResult {
  /** Units in the block's lists, after those of the files before it. */
  readonly units: number;
  readonly size: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  /** Stable while it was read, and of a length that fitted. */
  readonly stable: boolean;
  /** The system error that kept it from being read. */
  readonly error: { code: string; message: string } | undefined;
}

/** The frame that one stream of new units is filling. */
export interface Gathering {
  readonly raw: Buffer;
  rawBytes: number;
  ids: Uint8Array[];
  lengths: number[];
}

export function readSmall(buffer: Buffer, at: number, path: Buffer): Omit<SmallFileResult, 'units'> {
  let fd: number | undefined;
  try {
    // Without NONBLOCK a file that has become a FIFO would hold this thread for ever.
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const before = fstatSync(fd, { bigint: true });
    const size = Number(before.size);
    const facts = { size, mtimeNs: before.mtimeNs, ctimeNs: before.ctimeNs, error: undefined };
    if (!before.isFile() || size > buffer.length - at || size > BLOCK_BUFFER_BYTES)
      return { ...facts, stable: false };
    let done = 0;
    while (done < size) {
      const read = readSync(fd, buffer, at + done, size - done, done);
      if (read === 0) return { ...facts, stable: false };
      done += read;
    }
    const after = fstatSync(fd, { bigint: true });
    const stable =
      after.size === before.size && after.mtimeNs === before.mtimeNs && after.ctimeNs === before.ctimeNs;
    return { ...facts, stable };
  } catch (error) {
    const { code = 'EIO', message } = error as NodeJS.ErrnoException;
    return { size: 0, mtimeNs: 0n, ctimeNs: 0n, stable: false, error: { code, message } };
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
