import assert from 'node:assert/strict';
import { type ChunkReader, LayoutError, type LayoutFlaw } from '../../core/lightrag/chunk-reader.ts';

/** Gives a reader bytes in chunks of these lengths, again and again, and ends it. */
export function feedIn(reader: ChunkReader, bytes: Buffer, ...lengths: readonly number[]): void {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const length = lengths[i % lengths.length] ?? bytes.length;
    reader.feed(bytes.subarray(at, at + length));
    at += length;
  }
  reader.end();
}

/** How a reading fails; undefined if it does not. It may fail by the layout of what is read alone. */
export function flawOf(read: () => unknown): LayoutFlaw | undefined {
  try {
    read();
    return undefined;
  } catch (error) {
    assert.equal(error instanceof LayoutError, true, String((error as Error).stack));
    return (error as LayoutError).flaw;
  }
}
