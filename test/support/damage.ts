import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  PACK_HEADER_BYTES,
  PACK_TRAILER_BYTES,
  parsePackFooter,
  parsePackHeader,
  parsePackTrailer,
} from '../../agent/pack/format.ts';
import { PackKind_Value, type UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';

/** A pack of a store on disk. */
export interface PackFile {
  readonly path: string;
  readonly kind: PackKind_Value;
  readonly frames: readonly {
    readonly kind: UnitKind_Value;
    readonly offset: number;
    readonly length: number;
  }[];
}

/** Returns the packs of a store. */
export function packFiles(store: string): PackFile[] {
  const found: PackFile[] = [];
  for (const shard of readdirSync(join(store, 'packs')).sort()) {
    for (const name of readdirSync(join(store, 'packs', shard)).sort()) {
      const path = join(store, 'packs', shard, name);
      const bytes = readFileSync(path);
      const trailer = parsePackTrailer(bytes.subarray(-PACK_TRAILER_BYTES), bytes.length);
      const { footerOffset, footerLength } = trailer;
      const frames = parsePackFooter(bytes.subarray(footerOffset, footerOffset + footerLength), trailer);
      found.push({ path, kind: parsePackHeader(bytes.subarray(0, PACK_HEADER_BYTES)).kind, frames });
    }
  }
  return found;
}

/** Returns a pack with a frame of this kind, and that frame. */
export function frameOf(
  store: string,
  kind: UnitKind_Value,
): { path: string; offset: number; length: number } {
  for (const { path, frames } of packFiles(store)) {
    const frame = frames.find((one) => one.kind === kind);
    if (frame !== undefined) return { path, offset: frame.offset, length: frame.length };
  }
  return assert.fail(`no pack has a frame of kind ${kind}`);
}

/** Changes one byte at the end of a frame of this kind, as a failing disk does. Returns the path of the pack. */
export function flipByte(store: string, kind: UnitKind_Value): string {
  const { path, offset, length } = frameOf(store, kind);
  const bytes = readFileSync(path);
  const at = offset + length - 1;
  bytes[at] = (bytes[at] ?? 0) ^ 0x10;
  writeFileSync(path, bytes);
  return path;
}

/** Removes the packs with file bytes. */
export function loseData(store: string): void {
  const data = packFiles(store).filter(({ kind }) => kind === PackKind_Value.DATA);
  assert.ok(data.length > 0);
  for (const { path } of data) rmSync(path);
}
