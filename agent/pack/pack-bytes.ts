import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import type { PackReference } from './pack-store.ts';

/** The bytes of one pack, read synchronously. */
// For worker threads, which would only wait for an asynchronous read.
export class PackBytes {
  readonly size: number;
  readonly #source: number | Uint8Array;

  private constructor(source: number | Uint8Array, size: number) {
    this.#source = source;
    this.size = size;
  }

  /** Opens a pack. Throws the system's error if its file cannot be opened. */
  static open(reference: PackReference): PackBytes {
    if ('memory' in reference)
      return new PackBytes(new Uint8Array(reference.memory), reference.memory.byteLength);
    const fd = openSync(reference.file, 'r');
    try {
      return new PackBytes(fd, Number(fstatSync(fd, { bigint: true }).size));
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Fills `into` with bytes from `position` on. Returns the number of bytes read. */
  readInto(into: Buffer, position: number): number {
    if (typeof this.#source !== 'number') {
      const part = this.#source.subarray(position, position + into.length);
      into.set(part);
      return part.length;
    }
    return readInto(this.#source, into, position);
  }

  /** Returns at most `length` bytes from `position` on. */
  readAt(position: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    return bytes.subarray(0, this.readInto(bytes, position));
  }

  close(): void {
    if (typeof this.#source === 'number') closeSync(this.#source);
  }
}

/** Reads from a position until `bytes` is full or the file ends. Returns the number of bytes. */
export function readInto(fd: number, bytes: Buffer, position: number): number {
  let done = 0;
  while (done < bytes.length) {
    const read = readSync(fd, bytes, done, bytes.length - done, position + done);
    if (read === 0) break;
    done += read;
  }
  return done;
}

/** Fills `into` with the bytes of a pack from `offset` on. DAMAGED if the pack is missing or too short. */
export function readPackInto(reference: PackReference, offset: number, into: Buffer): Buffer {
  const name = 'file' in reference ? reference.file : 'a pack in memory';
  let pack: PackBytes;
  try {
    pack = PackBytes.open(reference);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw ioError('read', name, error);
    throw new LightkeeperError('DAMAGED', `Cannot read "${name}": it is missing`, {
      hint: 'bring the file back, or run lightkeeper repair',
      cause: error,
    });
  }
  try {
    if (pack.readInto(into, offset) < into.length)
      throw new LightkeeperError('DAMAGED', `Cannot read "${name}": it is truncated`);
    return into;
  } catch (error) {
    throw ioError('read', name, error);
  } finally {
    pack.close();
  }
}
