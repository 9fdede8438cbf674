import type { Hash } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import {
  type Codec_Value,
  type FrameInfo,
  FrameInfoSchema,
  PackKind_Value,
  type UnitKind_Value,
} from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { encodePackEnd, encodePackHeader, packHash } from './format.ts';
import type { PackSink, PackStore } from './pack-store.ts';

/** A published pack. */
export interface PublishedPack {
  readonly packId: Buffer;
  readonly kind: PackKind_Value;
  readonly size: number;
  readonly frames: FrameInfo[];
}

/** A frame as the footer of its pack describes it, without its place. */
export interface FrameDescription {
  readonly kind: UnitKind_Value;
  /** Ids of its units, concatenated. */
  readonly ids: Uint8Array;
  /** Length of each unit in bytes. */
  readonly lengths: readonly number[];
  readonly codec: Codec_Value;
}

/** Writes one pack: the header, then frames as they are appended, then the footer. */
export class PackWriter {
  readonly #kind: PackKind_Value;
  readonly #sink: PackSink;
  readonly #hash: Hash = packHash();
  readonly #frames: FrameInfo[] = [];
  #length = 0;

  private constructor(kind: PackKind_Value, sink: PackSink) {
    this.#kind = kind;
    this.#sink = sink;
  }

  /** Creates a pack of the store `storeId` and writes its header. */
  static async begin(packs: PackStore, kind: PackKind_Value, storeId: Uint8Array): Promise<PackWriter> {
    const writer = new PackWriter(kind, await packs.create('store:pack:create'));
    try {
      await writer.#append(encodePackHeader(kind, storeId));
    } catch (error) {
      await writer.discard();
      throw error;
    }
    return writer;
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  async #append(bytes: Uint8Array): Promise<void> {
    this.#length += bytes.length;
    this.#hash.update(bytes);
    await this.#sink.append(`store:${this.#label}:write`, bytes);
  }

  get #label(): string {
    return this.#kind === PackKind_Value.META ? 'meta' : 'data';
  }

  /** Appends a proven frame. `bytes` may be reused when this returns. */
  async append(bytes: Uint8Array, frame: FrameDescription): Promise<void> {
    this.#frames.push(frameInfo(frame, this.#length, bytes.length));
    await this.#append(bytes);
  }

  /** Returns the size in bytes that the pack would have after `more` frames of these lengths. */
  sizeWith(more: readonly { frame: FrameDescription; length: number }[]): number {
    let offset = this.#length;
    const frames = [...this.#frames];
    for (const { frame, length } of more) {
      frames.push(frameInfo(frame, offset, length));
      offset += length;
    }
    return offset + encodePackEnd(frames, { length: offset, hash: packHash(), raw: true }).end.length;
  }

  /** Writes the footer and makes the pack durable under its name. */
  async publish(): Promise<PublishedPack> {
    const { end, packId } = encodePackEnd(this.#frames, {
      length: this.#length,
      hash: this.#hash,
      raw: this.#kind === PackKind_Value.META,
    });
    const size = this.#length + end.length;
    try {
      await this.#sink.append(`store:${this.#label}:end`, end);
      await this.#sink.publish(`store:${this.#label}:sync`, packId.toString('hex'));
    } catch (error) {
      // On a full disk an abandoned file would take the space of the next attempt.
      await this.discard();
      throw error;
    }
    return { packId, kind: this.#kind, size, frames: this.#frames };
  }

  /** Drops the pack. Never rejects. */
  async discard(): Promise<void> {
    await this.#sink.discard();
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
