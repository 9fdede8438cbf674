import type { Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { create } from '@bufbuild/protobuf';
import {
  type Codec_Value,
  type FrameInfo,
  FrameInfoSchema,
  PackKind_Value,
  type UnitKind_Value,
} from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { removeFile, syncFile, writeAt } from '../../host/disk.ts';
import { encodePackEnd, encodePackHeader, packHash } from './format.ts';
import type { PackStore } from './pack-store.ts';

/** A pack that has been published. */
export interface PublishedPack {
  readonly packId: Buffer;
  readonly kind: PackKind_Value;
  readonly size: number;
  readonly frames: FrameInfo[];
}

/** What a pack must know of a frame that it takes. */
export interface FrameDescription {
  readonly kind: UnitKind_Value;
  readonly ids: Uint8Array;
  readonly lengths: readonly number[];
  readonly codec: Codec_Value;
}

/** Writes one pack: frames as they come, then the end, then its name. */
export class PackWriter {
  readonly #packs: PackStore;
  readonly #kind: PackKind_Value;
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #hash: Hash = packHash();
  readonly #frames: FrameInfo[] = [];
  #length = 0;

  private constructor(packs: PackStore, kind: PackKind_Value, spool: { path: string; file: FileHandle }) {
    this.#packs = packs;
    this.#kind = kind;
    this.#path = spool.path;
    this.#file = spool.file;
  }

  static async begin(packs: PackStore, kind: PackKind_Value, storeId: Uint8Array): Promise<PackWriter> {
    const writer = new PackWriter(packs, kind, await packs.spool());
    try {
      await writer.#put(encodePackHeader(kind, storeId));
    } catch (error) {
      await writer.discard();
      throw error;
    }
    return writer;
  }

  /** Bytes so far. */
  get length(): number {
    return this.#length;
  }

  async #put(bytes: Uint8Array): Promise<void> {
    const at = this.#length;
    this.#length += bytes.length;
    this.#hash.update(bytes);
    await writeAt(`store:${this.#label}:write`, this.#path, this.#file, bytes, at);
  }

  get #label(): string {
    return this.#kind === PackKind_Value.META ? 'meta' : 'data';
  }

  /** Appends a proven frame. `bytes` may be used again when this returns. */
  async append(bytes: Uint8Array, frame: FrameDescription): Promise<void> {
    this.#frames.push(frameInfo(frame, this.#length, bytes.length));
    await this.#put(bytes);
  }

  /** How long the pack will be if it ends after `more` frames, of the given lengths. */
  sizeWith(more: readonly { frame: FrameDescription; length: number }[]): number {
    let offset = this.#length;
    const frames = [...this.#frames];
    for (const { frame, length } of more) {
      frames.push(frameInfo(frame, offset, length));
      offset += length;
    }
    return offset + encodePackEnd(frames, offset, packHash(), { raw: true }).end.length;
  }

  /** Ends the pack and makes it durable under its name. */
  async publish(): Promise<PublishedPack> {
    const { end, packId } = encodePackEnd(this.#frames, this.#length, this.#hash, {
      raw: this.#kind === PackKind_Value.META,
    });
    const size = this.#length + end.length;
    try {
      await writeAt(`store:${this.#label}:end`, this.#path, this.#file, end, this.#length);
      await syncFile(`store:${this.#label}:sync`, this.#path, this.#file);
      await this.#file.close();
      await this.#packs.putIfAbsent(packId.toString('hex'), { path: this.#path, size });
    } catch (error) {
      // On a full disk what is left of it would be in the way of the next attempt.
      await this.discard();
      throw error;
    }
    return { packId, kind: this.#kind, size, frames: this.#frames };
  }

  /** Throws the pack away. Never fails: what cannot be removed now is removed by the next owner. */
  async discard(): Promise<void> {
    await this.#file.close().catch(() => {});
    await removeFile('store:pack:discard', this.#path).catch(() => {});
  }
}

function frameInfo(frame: FrameDescription, offset: number, length: number): FrameInfo {
  return create(FrameInfoSchema, {
    offset,
    length,
    kind: frame.kind,
    codecs: [frame.codec],
    unitIds: Uint8Array.from(frame.ids),
    unitLengths: [...frame.lengths],
  });
}
