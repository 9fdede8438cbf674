import { createRequire } from 'node:module';
import * as zlib from 'node:zlib';
import type * as Binding from 'zstd-napi/binding.js';
import { LightkeeperError, systemCode } from '../../core/errors.ts';

/** Compression level of large captures. */
// Higher levels take half as long again and save two percent of data that is mostly vectors.
const LEVEL_BULK = 1;
/** Compression level of small changes. */
const LEVEL_SMALL = 7;

/** An implementation of zstd between two buffers of the caller, a whole zstd frame in each call. */
export interface Zstd {
  /** Compresses `bytes` into `out`, which has `compressedCap` bytes. Returns the length. */
  compress(out: Uint8Array, bytes: Uint8Array, options: { level: number }): number;
  /** Decompresses `bytes` into `out`. Returns the length. Throws if the frame is damaged or does not fit. */
  decompress(out: Uint8Array, bytes: Uint8Array): number;
  /** Releases the memory that is allocated between calls. */
  dropContexts(): void;
}

/** Loads zstd from the package zstd-napi. Throws if it is not installed or was not compiled. */
export function loadNapiZstd(): Zstd {
  // The package's own entry loads stream classes that nothing here uses.
  const binding = createRequire(import.meta.url)('zstd-napi/binding.js') as typeof Binding;
  // A context takes six megabytes, so there is one for each level.
  const compressing = new Map<number, Binding.CCtx>();
  let decompressing: Binding.DCtx | undefined;
  const compressor = (level: number): Binding.CCtx => {
    const known = compressing.get(level);
    if (known !== undefined) return known;
    const made = new binding.CCtx();
    made.setParameter(binding.CParameter.compressionLevel, level);
    compressing.set(level, made);
    return made;
  };
  return {
    compress: (out, bytes, { level }) => compressor(level).compress2(out, bytes),
    decompress: (out, bytes) => {
      decompressing ??= new binding.DCtx();
      return decompressing.decompress(out, bytes);
    },
    dropContexts: () => {
      compressing.clear();
      decompressing = undefined;
    },
  };
}

/** The zstd functions of node:zlib, which Node 20 and its types lack. */
interface NodeZstd {
  zstdCompressSync(bytes: Uint8Array, options: NodeZstdOptions): Uint8Array;
  zstdDecompressSync(
    bytes: Uint8Array,
    options: NodeZstdOptions & { maxOutputLength: number; info: true },
  ): { buffer: Uint8Array; engine: { bytesWritten: number } };
  constants: { ZSTD_c_compressionLevel: number; ZSTD_d_windowLogMax: number };
}

interface NodeZstdOptions {
  readonly chunkSize: number;
  readonly params: Readonly<Record<number, number>>;
}

function hasZstd(module: object): module is NodeZstd {
  return 'zstdCompressSync' in module && 'zstdDecompressSync' in module;
}

const CHUNK_BYTES_MIN = 64;
const WINDOW_LOG_MIN = 10;

/** Loads zstd from node:zlib. Returns undefined in a Node without it (before 22.15). */
export function loadNodeZstd(): Zstd | undefined {
  const node: object = zlib;
  if (!hasZstd(node)) return undefined;
  const { ZSTD_c_compressionLevel, ZSTD_d_windowLogMax } = node.constants;
  // With a chunk longer than the result Node allocates once, and zstd needs no window of its own.
  const chunkFor = (length: number): number => Math.max(CHUNK_BYTES_MIN, length + 1);
  return {
    compress: (out, bytes, { level }) => {
      const made = node.zstdCompressSync(bytes, {
        chunkSize: chunkFor(compressedCap(bytes.length)),
        params: { [ZSTD_c_compressionLevel]: level },
      });
      out.set(made);
      return made.length;
    },
    decompress: (out, bytes) => {
      const { buffer, engine } = node.zstdDecompressSync(bytes, {
        info: true,
        chunkSize: chunkFor(out.length),
        maxOutputLength: Math.max(1, out.length),
        // A frame may ask for a window of 128 MiB. Frames of this project have no longer window than their content.
        params: { [ZSTD_d_windowLogMax]: Math.max(WINDOW_LOG_MIN, Math.ceil(Math.log2(out.length))) },
      });
      // Node ignores what follows the first frame.
      const rest = bytes.length - engine.bytesWritten;
      if (rest > 0) throw new Error(`${rest} bytes follow the frame`);
      if (buffer.length <= out.length) out.set(buffer);
      return buffer.length;
    },
    dropContexts: () => {},
  };
}

let loaded: Zstd | undefined;

/** Returns the zstd of this process, which the first call loads. UNAVAILABLE if there is none. */
// Not loaded at the start, because not every command needs it.
export function loadZstd(): Zstd {
  if (loaded !== undefined) return loaded;
  try {
    loaded = loadNapiZstd();
  } catch (cause) {
    // An optional dependency: absent where it could not be compiled.
    loaded = loadNodeZstd();
    if (loaded === undefined) {
      throw new LightkeeperError(
        'UNAVAILABLE',
        `Cannot load "zstd-napi": it is not installed, and Node ${process.versions.node} has no zstd of its own`,
        {
          hint: 'use Node 22.15 or newer, or install build-essential and python3, then install again',
          cause,
        },
      );
    }
  }
  return loaded;
}

/** Returns the most bytes to which `length` bytes can compress: ZSTD_compressBound. */
export function compressedCap(length: number): number {
  const small = 128 * 1024;
  return length + Math.floor(length / 256) + (length < small ? Math.floor((small - length) / 2048) : 0);
}

/** Releases the memory that zstd allocated between calls. */
export function dropContexts(): void {
  loaded?.dropContexts();
}

/** Compresses into `out`, which has `compressedCap` bytes. Returns the length. */
export function compressInto(out: Uint8Array, bytes: Uint8Array, options: { bulk?: boolean } = {}): number {
  return loadZstd().compress(out, bytes, { level: options.bulk === true ? LEVEL_BULK : LEVEL_SMALL });
}

/** Error codes of node:zlib that do not mean damaged bytes. */
const RESOURCE_ERRORS: ReadonlySet<string> = new Set([
  'ERR_ZLIB_INITIALIZATION_FAILED',
  'ZSTD_error_memory_allocation',
]);

/** Decompresses into `out`. DAMAGED if that gives any other number of bytes than `out.length`. */
// The size in the compressed bytes is not trusted.
export function decompressInto(out: Uint8Array, bytes: Uint8Array): void {
  const reader = loadZstd();
  let length: number;
  try {
    length = reader.decompress(out, bytes);
  } catch (error) {
    if (RESOURCE_ERRORS.has(systemCode(error) ?? '')) throw error;
    throw new LightkeeperError('DAMAGED', 'Cannot decompress a stream: it is damaged', { cause: error });
  }
  if (length !== out.length) {
    throw new LightkeeperError(
      'DAMAGED',
      `Cannot decompress a stream: it holds ${length} bytes instead of ${out.length}`,
    );
  }
}
