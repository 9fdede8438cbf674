import { createRequire } from 'node:module';
import type * as Binding from 'zstd-napi/binding.js';
import { LightkeeperError } from '../../core/errors.ts';

// The package's own entry loads stream classes that nothing here uses.
const binding = createRequire(import.meta.url)('zstd-napi/binding.js') as typeof Binding;

/** The level for everything: higher ones cost more time than the bytes they save are worth here. */
export const ZSTD_LEVEL = 3;

let compressing: Binding.CCtx | undefined;
let decompressing: Binding.DCtx | undefined;

/** Most bytes that compressing `length` bytes can give. */
export function compressedCap(length: number): number {
  return binding.compressBound(length);
}

/** Compresses into `out`; answers the length, or undefined if it does not fit. */
export function compressInto(out: Uint8Array, bytes: Uint8Array): number {
  if (compressing === undefined) {
    compressing = new binding.CCtx();
    compressing.setParameter(binding.CParameter.compressionLevel, ZSTD_LEVEL);
  }
  return compressing.compress2(out, bytes);
}

/**
 * Decompresses into `out` and nowhere else: what the bytes say of their own size is never believed. Anything
 * but exactly `out.length` bytes is damage.
 */
export function decompressInto(out: Uint8Array, bytes: Uint8Array): void {
  decompressing ??= new binding.DCtx();
  let length: number;
  try {
    length = decompressing.decompress(out, bytes);
  } catch (error) {
    throw new LightkeeperError('DAMAGED', 'Cannot decompress a stream: it is damaged', { cause: error });
  }
  if (length !== out.length) {
    throw new LightkeeperError(
      'DAMAGED',
      `Cannot decompress a stream: it holds ${length} bytes instead of ${out.length}`,
    );
  }
}
