import { createRequire } from 'node:module';
import type * as Binding from 'zstd-napi/binding.js';
import { LightkeeperError } from '../../core/errors.ts';

// The package's own entry loads stream classes that nothing here uses.
const binding = createRequire(import.meta.url)('zstd-napi/binding.js') as typeof Binding;

/** For a lot of data at once: higher levels take half as long again and save two percent of what is mostly vectors. */
const LEVEL_BULK = 1;
/** For small changes, for which there is time. */
const LEVEL_SMALL = 7;

const compressing = new Map<number, Binding.CCtx>();
let decompressing: Binding.DCtx | undefined;

/** Most bytes that compressing `length` bytes can give. */
export function compressedCap(length: number): number {
  return binding.compressBound(length);
}

function context(level: number): Binding.CCtx {
  const known = compressing.get(level);
  if (known !== undefined) return known;
  const made = new binding.CCtx();
  made.setParameter(binding.CParameter.compressionLevel, level);
  compressing.set(level, made);
  return made;
}

/** Lets go of what compression has kept for the next time: some six megabytes for each level. */
export function dropContexts(): void {
  compressing.clear();
  decompressing = undefined;
}

/** Compresses into `out`, which has `compressedCap` bytes; answers the length. */
export function compressInto(out: Uint8Array, bytes: Uint8Array, options: { bulk?: boolean } = {}): number {
  return context(options.bulk === true ? LEVEL_BULK : LEVEL_SMALL).compress2(out, bytes);
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
