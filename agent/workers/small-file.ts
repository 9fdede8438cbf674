import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { BLOCK_BUFFER_BYTES } from './chunker.ts';

/** A small file as it was read. */
export interface SmallFile {
  /** Bytes of the file before it was read; 0 if it could not be opened. */
  readonly size: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  /** Whether all of it was read, and it did not change meanwhile. */
  readonly stable: boolean;
  /** System error of the read. */
  readonly error: { code: string; message: string } | undefined;
}

/** Reads a small file into `buffer` at `at`. Returns its metadata, and never throws a system error. */
export function readSmallFile(buffer: Buffer, at: number, path: Buffer): SmallFile {
  let fd: number | undefined;
  try {
    // Without NONBLOCK a file that has become a FIFO would block this thread for ever.
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
