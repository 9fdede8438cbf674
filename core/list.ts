import { createHash } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { type ListRoot, ListRootSchema } from '../gen/lightkeeper/store/v1/manifest_pb.ts';
import { assert } from './assert.ts';
import { LIST_ENTRIES_INLINE, PIECE_ENTRIES_MAX, pieceEnds } from './boundaries.ts';
import { LightkeeperError } from './errors.ts';
import { UNIT_ID_BYTES } from './unit.ts';

/** Bytes of one list entry: a unit id and a span. */
export const NODE_REF_BYTES = 40;
/** Most levels of a list. Deeper lists are neither written nor read. */
// Pieces of up to 512 entries, five levels of them, hold more than any disk.
export const LIST_DEPTH_MAX = 6;

/** One entry of a list. */
export interface NodeRef {
  readonly id: Buffer;
  /** Bytes of file content below this entry; in the list of files, the number of files below it. */
  readonly span: number;
}

/** Writes one entry into `out` at `offset`. */
export function writeNodeRef(out: Buffer, offset: number, id: Uint8Array, span: number): void {
  out.set(id, offset);
  out.writeUInt32LE(span >>> 0, offset + UNIT_ID_BYTES);
  out.writeUInt32LE(Math.floor(span / 2 ** 32), offset + UNIT_ID_BYTES + 4);
}

/** Parses the entries of a piece or a root. Throws DAMAGED for anything else. */
export function readNodeRefs(bytes: Uint8Array): NodeRef[] {
  if (bytes.length % NODE_REF_BYTES !== 0) {
    throw new LightkeeperError('DAMAGED', 'Cannot read a list: it does not hold whole entries');
  }
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const refs: NodeRef[] = [];
  for (let at = 0; at < view.length; at += NODE_REF_BYTES) {
    const high = view.readUInt32LE(at + UNIT_ID_BYTES + 4);
    if (high >= 2 ** 21) throw new LightkeeperError('DAMAGED', 'Cannot read a list: a span is too large');
    refs.push({
      id: view.subarray(at, at + UNIT_ID_BYTES),
      span: view.readUInt32LE(at + UNIT_ID_BYTES) + high * 2 ** 32,
    });
  }
  return refs;
}

/** Stores a finished piece and returns its unit id. */
export type PieceSink = (piece: Buffer) => Buffer;

interface Level {
  readonly piece: Buffer;
  entries: number;
  span: number;
}

/** Builds a list of any length in memory proportional to its depth. */
// Pieces end by the content of their last entry, so that a change in the middle moves the nearby cuts only.
export class ListBuilder {
  readonly #emit: PieceSink;
  readonly #firstDepth: number;
  readonly #levels: Level[] = [];
  #count = 0;

  /**
   * Sets where the pieces go. `firstDepth` is 1 for a list whose lowest pieces are made elsewhere (the list of
   * files).
   */
  constructor(emit: PieceSink, firstDepth = 0) {
    this.#emit = emit;
    this.#firstDepth = firstDepth;
  }

  /** Adds the next entry, which covers `entries` entries of depth 0. */
  add(id: Uint8Array, span: number, entries = 1): void {
    this.#count += entries;
    this.#addAt(0, id, span);
  }

  #addAt(depth: number, id: Uint8Array, span: number): void {
    let level = this.#levels[depth];
    if (level === undefined) {
      level = { piece: Buffer.alloc(PIECE_ENTRIES_MAX * NODE_REF_BYTES), entries: 0, span: 0 };
      this.#levels[depth] = level;
    }
    writeNodeRef(level.piece, level.entries * NODE_REF_BYTES, id, span);
    level.entries += 1;
    level.span += span;
    if (pieceEnds(level.entries, id[0] as number)) this.#flush(depth);
  }

  #flush(depth: number): void {
    const level = this.#levels[depth];
    if (level === undefined || level.entries === 0) return;
    const id = this.#emit(Buffer.from(level.piece.subarray(0, level.entries * NODE_REF_BYTES)));
    const span = level.span;
    level.entries = 0;
    level.span = 0;
    this.#addAt(depth + 1, id, span);
  }

  /** Writes the remaining pieces and returns the root. */
  finish(): ListRoot {
    for (let depth = 0; ; depth++) {
      const level = this.#levels[depth];
      const above = this.#levels[depth + 1];
      const entries = level?.entries ?? 0;
      if (above === undefined && entries <= LIST_ENTRIES_INLINE) {
        assert(depth + this.#firstDepth < LIST_DEPTH_MAX, 'a list is not too deep');
        return create(ListRootSchema, {
          depth: depth + this.#firstDepth,
          entries: Uint8Array.from(level?.piece.subarray(0, entries * NODE_REF_BYTES) ?? []),
          count: BigInt(this.#count),
        });
      }
      this.#flush(depth);
    }
  }
}

/** Reports whether a piece of the list of files that holds `entries` entries ends after `path`. */
export function filesPieceEnds(entries: number, path: Uint8Array): boolean {
  const first = createHash('sha256').update(path).digest()[0] as number;
  return pieceEnds(entries, first);
}

/** Returns the sum of the spans of a list; 0 without a list. */
export function spanOf(root: ListRoot | undefined): number {
  if (root === undefined) return 0;
  const { entries } = root;
  const view = Buffer.from(entries.buffer, entries.byteOffset, entries.byteLength);
  let sum = 0;
  for (let at = UNIT_ID_BYTES; at + 8 <= view.length; at += NODE_REF_BYTES)
    sum += view.readUInt32LE(at) + view.readUInt32LE(at + 4) * 2 ** 32;
  return sum;
}
