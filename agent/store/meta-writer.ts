import { must } from '../../core/assert.ts';
import { encodeAnnotation } from '../../core/manifest.ts';
import { unitId } from '../../core/unit.ts';
import type { Annotation } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { PackKind_Value, UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  allocateDecodeBuffer,
  encodeFrame,
  FRAME_RAW_BYTES,
  FRAME_UNITS_MAX,
  frameCap,
  proveFrame,
} from '../pack/frame.ts';
import type { PackStore } from '../pack/pack-store.ts';
import { type FrameDescription, PackWriter, type PublishedPack } from '../pack/writer.ts';

/** Most manifests, positions or annotations of one frame. */
const RECORDS_PER_FRAME = 1000;
const META_FRAME_RAW_BYTES = FRAME_RAW_BYTES / 4;

/** An encoded frame and its description for the footer of a pack. */
export interface EncodedFrame extends FrameDescription {
  readonly bytes: Uint8Array;
}

/** Encodes units as one frame and proves that it decodes to them. `ids` defaults to the hashes of the units. */
export function encodeProvenFrame(
  kind: UnitKind_Value,
  units: readonly Uint8Array[],
  {
    ids = units.map((unit) => unitId(kind, unit)),
    ...options
  }: { ids?: readonly Uint8Array[]; raw?: boolean; bulk?: boolean } = {},
): EncodedFrame {
  const bytes = Buffer.concat(units);
  const lengths = units.map((unit) => unit.length);
  const content = { kind, ids: Buffer.concat(ids), lengths, bytes, ...options };
  const out = Buffer.alloc(frameCap(units.length, bytes.length));
  const { length, codec } = encodeFrame(out, content);
  const frame = out.subarray(0, length);
  proveFrame(frame, allocateDecodeBuffer(bytes.length).buffer);
  return { kind, ids: content.ids, lengths, codec, bytes: frame };
}

/** Encodes an annotation as an uncompressed frame, whose length does not depend on the values of numbers. */
export function annotationFrame(annotation: Annotation): EncodedFrame {
  return encodeProvenFrame(UnitKind_Value.ANNOTATION, [encodeAnnotation(annotation)], {
    raw: true,
  });
}

/** Gathers list pieces and records into the frames of one meta pack, which the first frame begins. */
export class MetaWriter {
  readonly #packs: PackStore;
  readonly #storeId: Uint8Array;
  readonly #pieces = new Map<UnitKind_Value, { units: Buffer[]; ids: Buffer[]; bytes: number }>();
  #writer: PackWriter | undefined;

  constructor(packs: PackStore, storeId: Uint8Array) {
    this.#packs = packs;
    this.#storeId = storeId;
  }

  /** Whether no frame has been written since the last pack was published. */
  get isEmpty(): boolean {
    return this.#writer === undefined;
  }

  /** Gathers a list piece for the next frame of its kind. */
  addPiece(kind: UnitKind_Value, piece: Buffer, id: Buffer): void {
    const open = this.#pieces.get(kind) ?? { units: [], ids: [], bytes: 0 };
    this.#pieces.set(kind, open);
    open.units.push(piece);
    open.ids.push(id);
    open.bytes += piece.length;
  }

  /** Writes the gathered list pieces of each kind that fill a frame, or with `all` the pieces of every kind. */
  async flushPieces({ all = false } = {}): Promise<void> {
    for (const [kind, open] of this.#pieces) {
      if (!all && open.bytes < META_FRAME_RAW_BYTES && open.units.length < FRAME_UNITS_MAX / 2) continue;
      this.#pieces.delete(kind);
      for (let from = 0; from < open.units.length; ) {
        let to = from;
        for (
          let bytes = 0;
          to < open.units.length && bytes < META_FRAME_RAW_BYTES && to - from < FRAME_UNITS_MAX;
          to++
        ) {
          bytes += (open.units[to] as Buffer).length;
        }
        // Ids do not compress, so the fast level loses nothing.
        const bulk = kind === UnitKind_Value.LIST;
        const ids = open.ids.slice(from, to);
        await this.append(encodeProvenFrame(kind, open.units.slice(from, to), { ids, bulk }));
        from = to;
      }
    }
  }

  /** Appends manifests, positions or annotations, in as many frames as they need. */
  async appendRecords(kind: UnitKind_Value, records: readonly Uint8Array[]): Promise<void> {
    for (let from = 0; from < records.length; from += RECORDS_PER_FRAME)
      await this.append(encodeProvenFrame(kind, records.slice(from, from + RECORDS_PER_FRAME)));
  }

  /** Appends a frame. */
  async append(frame: EncodedFrame): Promise<void> {
    this.#writer ??= await PackWriter.begin(this.#packs, PackKind_Value.META, { storeId: this.#storeId });
    await this.#writer.append(frame.bytes, frame);
  }

  /** Returns the size in bytes that the pack would have after one more frame. */
  sizeWith(frame: EncodedFrame): number {
    return must(this.#writer, 'a meta pack').sizeWith([{ frame, length: frame.bytes.length }]);
  }

  /** Publishes the pack. */
  async publish(): Promise<PublishedPack> {
    const writer = must(this.#writer, 'a meta pack');
    this.#writer = undefined;
    return await writer.publish();
  }

  /** Drops the pack. Never rejects. */
  async discard(): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    await writer?.discard();
  }
}
