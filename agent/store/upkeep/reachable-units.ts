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
import type { UnitLocation } from '../index/unit-locations.ts';
import type { Store } from '../store.ts';

/** Reports whether a unit in the index is available. */
export type UnitTest = (id: Buffer, location: UnitLocation) => boolean;

/** Returns the files of a graph index; none if it does not parse. */
// One that does not parse is of another version: it is made again when it is needed.
function parseGraphFiles(index: Buffer): readonly GraphFile[] {
  try {
    return fromBinary(GraphIndexSchema, index, KNOWN_FIELDS).files;
  } catch {
    return [];
  }
}

/** Returns the id of the unit of facts before this one; empty if it is the first or does not parse. */
function previousFacts(part: Buffer): Buffer {
  try {
    return Buffer.from(parseFactsUnit(part).previous);
  } catch {
    // Of another version, as above.
    return Buffer.alloc(0);
  }
}

/** The units that snapshots refer to. Visits each list piece once, however many snapshots share it. */
// Memory: one bit a unit, and an entry for each list piece below which units are missing.
export class ReachableUnits {
  readonly live = new LiveUnits();
  readonly #store: Store;
  readonly #test: UnitTest;
  /** Missing units below a visited list piece, by its id. A visited piece that is not in it lacks none. */
  readonly #missing = new Map<string, number>();

  private constructor(store: Store, test: UnitTest) {
    this.#store = store;
    this.#test = test;
  }

  /** Begins with no unit marked. Units that `test` rejects count as missing. */
  static async begin(store: Store, test: UnitTest = () => true): Promise<ReachableUnits> {
    const reachable = new ReachableUnits(store, test);
    for await (const [pack, record] of store.index.packs()) reachable.live.addPack(pack, record.units);
    return reachable;
  }

  /** Marks the units of a snapshot. Returns the number of missing ones. */
  async markSnapshot(manifest: Manifest, manifestUnitId: Uint8Array): Promise<number> {
    const { length } = toBinary(ManifestSchema, manifest);
    let missing =
      this.#mark(Buffer.from(manifestUnitId), length, UnitKind_Value.MANIFEST) === undefined ? 1 : 0;
    missing += await this.#markList(manifest.files, true);
    return missing;
  }

  /** Marks a graph index and the units of facts that it refers to. */
  // A missing one is no damage: it is made again when it is needed.
  async markGraphIndex(indexId: Uint8Array): Promise<void> {
    if (indexId.length === 0) return;
    const index = await this.#markFacts(Buffer.from(indexId));
    for (const { facts } of index === undefined ? [] : parseGraphFiles(index)) {
      for (let id: Buffer = Buffer.from(facts); id.length > 0; ) {
        const part = await this.#markFacts(id);
        if (part === undefined) break;
        id = previousFacts(part);
      }
    }
  }

  /** Marks a unit of facts. Returns its bytes; undefined if it is missing or was marked before. */
  // When it was marked before, so were the units before it.
  async #markFacts(id: Buffer): Promise<Buffer | undefined> {
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

  /** Marks a unit. Returns whether it was not marked before; undefined if it is missing. */
  #mark(id: Buffer, rawBytes: number, kind: UnitKind_Value): boolean | undefined {
    const location = this.#store.index.locateSync(id);
    if (location === undefined || location.kind !== kind || !this.#test(id, location)) return undefined;
    return this.live.mark(location.pack, location.ordinal, rawBytes);
  }

  async #markList(root: ListRoot | undefined, files: boolean): Promise<number> {
    if (root === undefined) return 0;
    return await this.#markEntries(root.entries, root.depth, files);
  }

  async #markEntries(entries: Uint8Array, depth: number, files: boolean): Promise<number> {
    let missing = 0;
    for (const { id, span } of readNodeRefs(entries)) {
      if (depth > 0) missing += await this.#markPiece(id, depth, files);
      else if (this.#mark(id, span, UnitKind_Value.BYTES) === undefined) missing += 1;
    }
    return missing;
  }

  async #markPiece(id: Buffer, depth: number, files: boolean): Promise<number> {
    const isFiles = files && depth === 1;
    const kind = isFiles ? UnitKind_Value.FILES : UnitKind_Value.LIST;
    const name = id.toString('latin1');
    let bytes: Buffer;
    const location = this.#store.index.locateSync(id);
    if (location !== undefined && this.live.has(location.pack, location.ordinal))
      return this.#missing.get(name) ?? 0;
    try {
      if (location === undefined || !this.#test(id, location))
        throw new LightkeeperError('DAMAGED', 'Cannot read a list: a piece of it is missing');
      bytes = await this.#store.readUnit(id, kind);
    } catch (error) {
      if (!(error instanceof LightkeeperError) || (error.code !== 'DAMAGED' && error.code !== 'NOT_FOUND'))
        throw error;
      return 1;
    }
    this.#mark(id, bytes.length, kind);
    const missing = isFiles ? await this.#markFiles(bytes) : await this.#markEntries(bytes, depth - 1, files);
    if (missing > 0) this.#missing.set(name, missing);
    return missing;
  }

  async #markFiles(bytes: Buffer): Promise<number> {
    let missing = 0;
    let last = '';
    for (const file of parseFileList(bytes, last)) {
      last = pathFromBytes(file.path);
      missing += await this.#markList(file.content, false);
    }
    return missing;
  }
}
