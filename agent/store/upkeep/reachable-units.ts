import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../../core/errors.ts';
import { parseFactsUnit } from '../../../core/lightrag/facts-codec.ts';
import { readNodeRefs } from '../../../core/list.ts';
import { parseFileList } from '../../../core/manifest.ts';
import { pathFromBytes } from '../../../core/path.ts';
import { KNOWN_FIELDS } from '../../../core/proto-limits.ts';
import { LiveUnits } from '../../../core/reachability.ts';
import { type GraphFile, GraphIndexSchema } from '../../../gen/lightkeeper/store/v1/graph_pb.ts';
import {
  type ListRoot,
  type Manifest,
  ManifestSchema,
} from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import type { UnitLocation } from '../index/store-index.ts';
import type { Store } from '../store.ts';

/** A unit that a snapshot needs and that cannot be had. */
export interface MissingUnit {
  readonly id: Buffer;
  readonly kind: UnitKind_Value;
}

/** Decides whether a unit that the index knows can be had. */
export type UnitTest = (id: Buffer, location: UnitLocation) => boolean;

/** What does not parse is of another version, and leads nowhere: it is made again. */
function filesNoted(index: Buffer): readonly GraphFile[] {
  try {
    return fromBinary(GraphIndexSchema, index, KNOWN_FIELDS).files;
  } catch {
    return [];
  }
}

function beforeIt(part: Buffer): Buffer {
  try {
    return Buffer.from(parseFactsUnit(part).previous);
  } catch {
    return Buffer.alloc(0);
  }
}

/**
 * Walks what snapshots refer to, each part once however many snapshots share it: one bit a unit, and for the
 * parts in which something is missing a note of it.
 */
export class Walker {
  readonly live = new LiveUnits();
  readonly #store: Store;
  readonly #test: UnitTest;
  /** Pieces below which something is missing; all other visited ones are whole. */
  readonly #broken = new Map<string, number>();

  private constructor(store: Store, test: UnitTest) {
    this.#store = store;
    this.#test = test;
  }

  static async begin(store: Store, test: UnitTest = () => true): Promise<Walker> {
    const walker = new Walker(store, test);
    for await (const [pack, record] of store.index.packs()) walker.live.addPack(pack, record.units);
    return walker;
  }

  /** Marks all that a snapshot refers to; answers how many units it lacks. */
  async walk(manifest: Manifest, manifestUnitId: Uint8Array): Promise<number> {
    const { length } = toBinary(ManifestSchema, manifest);
    let missing =
      this.#mark(Buffer.from(manifestUnitId), length, UnitKind_Value.MANIFEST) === undefined ? 1 : 0;
    missing += await this.#list(manifest.files, true);
    return missing;
  }

  /**
   * Marks what was noted of the graph in a snapshot, from the id of its index on. What is missing of it is no damage: it
   * is made again when it is needed.
   */
  async walkFacts(indexId: Uint8Array): Promise<void> {
    if (indexId.length === 0) return;
    const index = await this.#fact(Buffer.from(indexId));
    for (const { facts } of index === undefined ? [] : filesNoted(index)) {
      for (let id: Buffer = Buffer.from(facts); id.length > 0; ) {
        const part = await this.#fact(id);
        if (part === undefined) break;
        id = beforeIt(part);
      }
    }
  }

  /** Marks a unit of facts; its bytes if it is there and was not met before: what is before it has been met too, then. */
  async #fact(id: Buffer): Promise<Buffer | undefined> {
    const location = this.#store.index.locateSync(id);
    if (location === undefined || this.live.has(location.pack, location.ordinal)) return undefined;
    try {
      const bytes = await this.#store.readUnit(id, UnitKind_Value.GRAPH);
      return this.#mark(id, bytes.length, UnitKind_Value.GRAPH) === true ? bytes : undefined;
    } catch (error) {
      if (error instanceof LightkeeperError && ['DAMAGED', 'NOT_FOUND'].includes(error.code))
        return undefined;
      throw error;
    }
  }

  /** Marks a unit; undefined if it cannot be had, else whether it is met for the first time. */
  #mark(id: Buffer, rawBytes: number, kind: UnitKind_Value): boolean | undefined {
    const location = this.#store.index.locateSync(id);
    if (location === undefined || location.kind !== kind || !this.#test(id, location)) return undefined;
    return this.live.mark(location.pack, location.ordinal, rawBytes);
  }

  async #list(root: ListRoot | undefined, files: boolean): Promise<number> {
    if (root === undefined) return 0;
    return await this.#entries(root.entries, root.depth, files);
  }

  async #entries(entries: Uint8Array, depth: number, files: boolean): Promise<number> {
    let missing = 0;
    for (const { id, span } of readNodeRefs(entries)) {
      if (depth > 0) missing += await this.#piece(id, depth, files);
      else if (this.#mark(id, span, UnitKind_Value.BYTES) === undefined) missing += 1;
    }
    return missing;
  }

  async #piece(id: Buffer, depth: number, files: boolean): Promise<number> {
    const isFiles = files && depth === 1;
    const kind = isFiles ? UnitKind_Value.FILES : UnitKind_Value.LIST;
    const name = id.toString('latin1');
    let bytes: Buffer;
    const location = this.#store.index.locateSync(id);
    if (location !== undefined && this.live.has(location.pack, location.ordinal))
      return this.#broken.get(name) ?? 0;
    try {
      if (location === undefined || !this.#test(id, location))
        throw new LightkeeperError('DAMAGED', 'a piece is missing');
      bytes = await this.#store.readUnit(id, kind);
    } catch (error) {
      if (!(error instanceof LightkeeperError) || (error.code !== 'DAMAGED' && error.code !== 'NOT_FOUND'))
        throw error;
      return 1;
    }
    this.#mark(id, bytes.length, kind);
    const missing = isFiles ? await this.#files(bytes) : await this.#entries(bytes, depth - 1, files);
    if (missing > 0) this.#broken.set(name, missing);
    return missing;
  }

  async #files(bytes: Buffer): Promise<number> {
    let missing = 0;
    let last = '';
    for (const file of parseFileList(bytes, last)) {
      last = pathFromBytes(file.path);
      missing += await this.#list(file.content, false);
    }
    return missing;
  }
}
