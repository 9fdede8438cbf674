import type { Hash } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import {
  type Codec_Value,
  type FrameInfo,
  FrameInfoSchema,
  PackKind_Value,
  type UnitKind_Value,
} from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { encodePackEnd, encodePackHeader, packHash, type WrittenPart } from './format.ts';
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

/** Where the frames of a pack come from: this store's own captures, or a peer. */
export type PackOrigin = 'store' | 'peer';

/** The part of an unfinished pack whose frames were proven. */
export interface ProvenPart extends WrittenPart {
  readonly frames: readonly FrameInfo[];
}

interface WriterOptions {
  readonly origin: PackOrigin;
  readonly written?: ProvenPart;
}

/** Writes one pack: the header, then frames as they are appended, then the footer. */
export class PackWriter {
  readonly #kind: PackKind_Value;
  readonly #sink: PackSink;
  readonly #origin: PackOrigin;
  readonly #hash: Hash;
  readonly #frames: FrameInfo[];
  #length: number;

  private constructor(kind: PackKind_Value, sink: PackSink, { origin, written }: WriterOptions) {
    this.#kind = kind;
    this.#sink = sink;
    this.#origin = origin;
    this.#hash = written?.hash ?? packHash();
    this.#frames = [...(written?.frames ?? [])];
    this.#length = written?.length ?? 0;
  }

  /** Creates a pack of the store `storeId` and writes its header. */
  static async begin(
    packs: PackStore,
    kind: PackKind_Value,
    { storeId, origin = 'store' }: { readonly storeId: Uint8Array; readonly origin?: PackOrigin },
  ): Promise<PackWriter> {
    const sink = await packs.create(`${origin}:pack:create`, { received: origin === 'peer' });
    const writer = new PackWriter(kind, sink, { origin });
    try {
      await writer.#append(encodePackHeader(kind, storeId));
    } catch (error) {
      await writer.discard();
      throw error;
    }
    return writer;
  }

  /** Goes on with a received pack, of which a part was proven. */
  static resume(kind: PackKind_Value, sink: PackSink, written: ProvenPart): PackWriter {
    return new PackWriter(kind, sink, { origin: 'peer', written });
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  async #append(bytes: Uint8Array): Promise<void> {
    this.#length += bytes.length;
    this.#hash.update(bytes);
    await this.#sink.append(`${this.#label}:write`, bytes);
  }

  get #label(): string {
    return `${this.#origin}:${this.#kind === PackKind_Value.META ? 'meta' : 'data'}`;
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
      await this.#sink.append(`${this.#label}:end`, end);
      await this.#sink.publish(`${this.#label}:sync`, packId.toString('hex'));
    } catch (error) {
      // On a full disk an abandoned file would take the space of the next attempt.
      await this.discard();
      throw error;
    }
    return { packId, kind: this.#kind, size, frames: this.#frames };
  }

  /** Returns bytes [offset, offset + length) of the pack so far. */
  async read(offset: number, length: number): Promise<Buffer> {
    return await this.#sink.read(offset, length);
  }

  /** Leaves the pack as it is, for the next owner of the store. Never rejects. */
  async release(): Promise<void> {
    await this.#sink.release();
  }

  /** Drops the pack. Never rejects. */
  async discard(): Promise<void> {
    await this.#sink.discard();
  }
}

/** Describes a frame at an offset for the footer of its pack. */
export function frameInfo(frame: FrameDescription, offset: number, length: number): FrameInfo {
  return create(FrameInfoSchema, {
    offset,
    length,
    kind: frame.kind,
    codecs: [frame.codec],
    unitIds: Uint8Array.from(frame.ids),
    unitLengths: [...frame.lengths],
  });
}
