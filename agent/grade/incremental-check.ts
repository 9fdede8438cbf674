import { fromBinary } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { FACTS_VERSION, parseFactsUnit } from '../../core/lightrag/facts-codec.ts';
import {
  type MatrixOffsets,
  matrixOffsets,
  planSegments,
  type Segment,
  splitSegment,
} from '../../core/lightrag/reuse-plan.ts';
import type { StandingKeys } from '../../core/lightrag/standing.ts';
import { type NodeRef, spanOf } from '../../core/list.ts';
import type { StoredSnapshot } from '../../core/snapshot.ts';
import { hex, sameBytes, sha256 } from '../../core/unit.ts';
import { commonRuns } from '../../core/unit-runs.ts';
import type { Graded } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import {
  type GraphFacts,
  type GraphFile,
  GraphIndexSchema,
} from '../../gen/lightkeeper/store/v1/graph_pb.ts';
import type { ListRoot } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import type { PackReference } from '../pack/pack-store.ts';
import { type GraphContent, graphContents, listUnits } from '../snapshots/graph-files.ts';
import { missingUnit, type Store } from '../store/store.ts';
import {
  type EncodedFacts,
  type FilePart,
  type FileRun,
  type GradeOutcome,
  type GradeStep,
  type ReadStep,
  type ReplyTo,
  runGradeStep,
} from '../workers/grade-task.ts';

/** Most incremental checks of one file in a row. */
// After them the file is read in full, so that an error in stored facts cannot last.
const INCREMENTAL_CHECKS_MAX = 63;

/** Bytes of a file after which a step is sent to the worker. */
const STEP_BYTES_MIN = 8 << 20;

/** Most bytes of facts in the cache, for all graphs together. */
const CACHE_BYTES_MAX = 4 << 20;
/** Milliseconds after the last check for which the cache is held. */
const CACHE_MS = 10_000;

/** Stored facts of one file: a full set and the deltas on it. */
interface FactsChain {
  /** Oldest first. */
  readonly units: readonly Uint8Array[];
  /** The content of the last unit. */
  readonly last: GraphFacts;
}

/** Caches the chains of facts that were used last, by the id of their last unit. */
export class FactsCache {
  readonly #chains = new Map<string, FactsChain>();
  #bytes = 0;
  #timer: NodeJS.Timeout | undefined;

  get(last: Uint8Array): FactsChain | undefined {
    const name = hex(last);
    const chain = this.#chains.get(name);
    if (chain === undefined) return undefined;
    this.#chains.delete(name);
    this.#chains.set(name, chain);
    return chain;
  }

  /** Adds a chain and drops the least recently used ones to stay within the limit. */
  put(chain: FactsChain, id: Uint8Array): void {
    const name = hex(id);
    if (this.#chains.has(name)) return;
    this.#chains.set(name, chain);
    this.#bytes += sizeOf(chain);
    for (const [old, one] of this.#chains) {
      if (this.#bytes <= CACHE_BYTES_MAX) break;
      this.#chains.delete(old);
      this.#bytes -= sizeOf(one);
    }
    clearTimeout(this.#timer);
    // An idle agent holds nothing that it can read again.
    this.#timer = setTimeout(() => this.#clear(), CACHE_MS).unref();
  }

  #clear(): void {
    this.#chains.clear();
    this.#bytes = 0;
  }
}

function sizeOf({ units }: FactsChain): number {
  return units.reduce((sum, { length }) => sum + length, 0);
}

/** A snapshot to check, and the older ones that it is compared with. */
export interface CheckRequest {
  readonly snapshot: StoredSnapshot;
  /** The files of its graph. */
  readonly files: readonly GraphContent[];
  /** The newest usable snapshot before it. */
  readonly usable: StoredSnapshot | undefined;
  readonly standing: StandingKeys;
  /** The graded snapshot whose stored facts are used. */
  readonly base: StoredSnapshot | undefined;
  readonly cache: FactsCache;
}

/** The outcome of the checks, and the facts to store for each file. */
export type CheckResult = GradeOutcome & { readonly files: readonly EncodedFacts[] };

/** Checks the graph in a snapshot, reading only the files and parts of files that changed since `base`. */
export async function checkIncrementally(
  store: Store,
  request: CheckRequest,
  signal: AbortSignal | undefined,
): Promise<CheckResult> {
  const index = new Map((await readGraphIndex(store, request.base?.graded)).map((file) => [file.path, file]));
  const changed = request.files.filter(({ path, content }) => !hasContent(index.get(path), content));
  const bytes = changed.reduce((sum, { content }) => sum + spanOf(content), 0);
  const workers = store.workers.open(bytes, { gentle: true, sequential: true });
  const slot = await workers.takeSlot();
  const run: RunStep = async (step) => {
    signal?.throwIfAborted();
    return await runGradeStep(slot, step);
  };
  try {
    return await new IncrementalCheck({ store, request, index, run }).run();
  } finally {
    slot.release();
    await workers.close();
  }
}

/** Runs a step in the worker. */
type RunStep = <S extends GradeStep>(step: S) => Promise<ReplyTo<S>>;

/** An older state of a file whose stored facts can be built on. */
interface BaseFile {
  readonly facts: GraphFacts;
  readonly content: ListRoot | undefined;
}

class IncrementalCheck {
  readonly #store: Store;
  readonly #request: CheckRequest;
  readonly #index: ReadonlyMap<string, GraphFile>;
  readonly #run: RunStep;
  readonly #references = new Map<number, PackReference>();

  constructor(parts: {
    store: Store;
    request: CheckRequest;
    /** Files of the base, by path. */
    index: ReadonlyMap<string, GraphFile>;
    run: RunStep;
  }) {
    this.#store = parts.store;
    this.#request = parts.request;
    this.#index = parts.index;
    this.#run = parts.run;
  }

  async run(): Promise<CheckResult> {
    const { files, usable, standing } = this.#request;
    await this.#run({ step: 'begin' });
    const { base } = this.#request;
    const baseFiles = base === undefined ? [] : await this.#baseFiles(base);
    await this.#checkFiles(baseFiles);
    // The facts of the newest usable snapshot are the ones that are usually built on.
    const usableFiles = usable === base ? baseFiles : usable && (await this.#baseFiles(usable));
    const before = usable && usableFiles?.map(({ path }) => path);
    for (;;) {
      const { readAgain } = await this.#run({ step: 'compare', before, standing });
      if (readAgain.length === 0) break;
      for (const { path, content } of files)
        if (readAgain.includes(path))
          await this.#readSegments('read-again', path, [
            { refs: await listUnits(this.#store, content), from: 0 },
          ]);
    }
    const results: EncodedFacts[] = [];
    for (const { path } of files) {
      const { facts } = await this.#run({ step: 'encode-facts', path });
      if (facts === undefined) continue;
      results.push(facts);
      await this.#cacheFacts(facts);
    }
    const { outcome } = await this.#run({ step: 'finish' });
    return { ...outcome, files: results };
  }

  /** Loads the facts of unchanged files and reads the others. */
  async #checkFiles(baseFiles: readonly GraphContent[]): Promise<void> {
    const { files } = this.#request;
    for (const { path, content } of files) {
      const file = this.#index.get(path);
      const loaded = file === undefined ? undefined : await this.#loadFacts(file, content);
      if (loaded === 'same') continue;
      const older = isUsableBase(loaded)
        ? { facts: loaded, content: baseFiles.find((one) => one.path === path)?.content }
        : undefined;
      await this.#readChanged(path, content, older);
    }
    const paths = new Set(files.map(({ path }) => path));
    for (const file of this.#index.values())
      if (!paths.has(file.path)) await this.#loadFacts(file, undefined);
  }

  async #baseFiles({ manifest }: StoredSnapshot): Promise<GraphContent[]> {
    try {
      return await graphContents(this.#store, manifest);
    } catch (error) {
      if (!isDamage(error)) throw error;
      return [];
    }
  }

  /** Caches the facts of a file for the next check. */
  async #cacheFacts({ path, units, lastId: id }: EncodedFacts): Promise<void> {
    const end = units.at(-1);
    if (end === undefined) return;
    const last = parseFactsUnit(end);
    const older = this.#index.get(path)?.facts;
    const isDelta = last.parts - units.length + 1 > 0 && older !== undefined;
    const base = isDelta ? await this.#readChain(older) : undefined;
    if (isDelta && base === undefined) return;
    this.#request.cache.put({ units: [...(base?.units ?? []), ...units], last }, id);
  }

  /** Sends the stored facts of a file to the worker. Returns the newest of them, or `same` if the file is unchanged. */
  async #loadFacts(file: GraphFile, content: ListRoot | undefined): Promise<GraphFacts | 'same' | undefined> {
    const chain = await this.#readChain(file.facts);
    if (chain === undefined) return undefined;
    const step = hasContent(file, content) ? 'reuse-facts' : 'previous-facts';
    const { accepted } = await this.#run({ step, path: file.path, units: chain.units });
    if (!accepted) return undefined;
    return step === 'reuse-facts' ? 'same' : chain.last;
  }

  /** Reads a changed file: only its differences from an older state where possible. */
  async #readChanged(
    path: string,
    content: ListRoot | undefined,
    older: BaseFile | undefined,
  ): Promise<void> {
    const units = await listUnits(this.#store, content);
    let offsets: MatrixOffsets | undefined;
    try {
      const before = older === undefined ? [] : await listUnits(this.#store, older.content);
      offsets = older && matrixOffsets(units, before, older.facts);
      if (older !== undefined) {
        const end = older.facts.matrixAt > 0n ? Number(older.facts.matrixAt) : Number.POSITIVE_INFINITY;
        const segments = planSegments(before, units, { runs: commonRuns(before, units), end });
        if (segments !== undefined && (await this.#readDelta(path, segments, offsets))) return;
      }
    } catch (error) {
      // Damage of the older state does not matter; damage of this one is met again below.
      if (!isDamage(error)) throw error;
    }
    await this.#readSegments('read', path, [{ refs: units, from: 0 }], offsets);
  }

  /** Reads only the records that were removed and added. Returns false if the whole file must be read. */
  async #readDelta(
    path: string,
    segments: { readonly before: readonly Segment[]; readonly after: readonly Segment[] },
    offsets: MatrixOffsets | undefined,
  ): Promise<boolean> {
    if (!(await this.#readSegments('read-removed', path, segments.before))) return false;
    return await this.#readSegments('read-added', path, segments.after, offsets);
  }

  /** Sends segments of a file to the worker, some at a time. Returns whether all of them were read. */
  async #readSegments(
    step: ReadStep['step'],
    path: string,
    segments: readonly Segment[],
    offsets?: MatrixOffsets,
  ): Promise<boolean> {
    let parts: FilePart[] = [];
    let bytes = 0;
    // The next parts are located while the worker reads these.
    let reading: Promise<{ accepted: boolean }> = Promise.resolve({ accepted: true });
    try {
      for (const segment of segments.flatMap(splitSegment)) {
        bytes += await this.#addSegment(parts, segment, offsets);
        if (bytes < STEP_BYTES_MIN) continue;
        if (!(await reading).accepted) return false;
        reading = this.#run({ step, path, parts, ends: false });
        // The awaits of `reading` report its failure.
        reading.catch(() => {});
        parts = [];
        bytes = 0;
      }
    } finally {
      await reading;
    }
    if (!(await reading).accepted) return false;
    return (await this.#run({ step, path, parts, ends: true })).accepted;
  }

  /** Appends a segment to the parts of a step. Returns how many bytes of it are to be read. */
  async #addSegment(
    parts: FilePart[],
    segment: Segment,
    offsets: MatrixOffsets | undefined,
  ): Promise<number> {
    if ('refs' in segment)
      return await this.#addRuns(
        parts,
        segment.refs,
        offsets?.slice(segment.from, segment.from + segment.refs.length),
      );
    const [head, tail]: [FileRun[], FileRun[]] = [[], []];
    const read = (await this.#addRuns(head, segment.head)) + (await this.#addRuns(tail, segment.tail));
    parts.push({ head, bytes: segment.bytes, tail, isLast: segment.isLast });
    return read;
  }

  /** Appends units to the parts of a step, joining neighbours in a frame. Returns the bytes of the units. */
  async #addRuns(
    parts: (FilePart | FileRun)[],
    refs: readonly NodeRef[],
    offsets?: MatrixOffsets,
  ): Promise<number> {
    const locations = await this.#store.index.locate(refs.map(({ id }) => id));
    let bytes = 0;
    for (const [i, { id, span }] of refs.entries()) {
      const location = locations[i];
      if (location === undefined) throw missingUnit(id);
      const { frameOffset: offset, frameLength: length, place } = location;
      const { pack } = location;
      const reference = this.#references.get(pack) ?? (await this.#store.packReference(pack));
      this.#references.set(pack, reference);
      const previousOffset = offsets?.[i];
      const end = parts.at(-1);
      const last = end === undefined || 'head' in end ? undefined : end;
      const goesOn = last?.pack === pack && last.offset === offset && last.to === place;
      const nextOffset = last?.previousOffset === undefined ? undefined : last.previousOffset + last.bytes;
      if (last !== undefined && goesOn && previousOffset === nextOffset)
        parts[parts.length - 1] = { ...last, to: place + 1, bytes: last.bytes + span };
      else
        parts.push({
          pack,
          reference,
          offset,
          length,
          from: place,
          to: place + 1,
          bytes: span,
          previousOffset,
        });
      bytes += span;
    }
    return bytes;
  }

  /** Reads the facts that end with a unit; undefined if some are missing. */
  // Missing facts are no error: they can be made again from the files.
  async #readChain(id: Uint8Array): Promise<FactsChain | undefined> {
    const cached = this.#request.cache.get(id);
    if (cached !== undefined) return cached;
    const units: Uint8Array[] = [];
    let last: GraphFacts | undefined;
    try {
      for (let next = id; next.length > 0; ) {
        const unit = Buffer.from(await this.#store.readUnit(next, UnitKind_Value.GRAPH));
        units.unshift(unit);
        const part = parseFactsUnit(unit);
        last ??= part;
        next = part.previous;
      }
      if (last === undefined) return undefined;
      this.#request.cache.put({ units, last }, id);
      return { units, last };
    } catch (error) {
      if (isDamage(error)) return undefined;
      throw error;
    }
  }
}

/** Reports whether facts are free of flaws and not too many checks away from a full read. */
function isUsableBase(facts: GraphFacts | undefined): facts is GraphFacts {
  return facts !== undefined && facts.flaws.length === 0 && facts.incrementalChecks < INCREMENTAL_CHECKS_MAX;
}

/** Reads the list of stored facts of a graded snapshot; empty if it has none that can be used. */
async function readGraphIndex(store: Store, graded: Graded | undefined): Promise<GraphFile[]> {
  if (graded === undefined || graded.index.length === 0) return [];
  try {
    const unit = await store.readUnit(graded.index, UnitKind_Value.GRAPH);
    const index = fromBinary(GraphIndexSchema, unit);
    return index.version === FACTS_VERSION ? index.files : [];
  } catch (error) {
    if (isDamage(error)) return [];
    throw error;
  }
}

function isDamage(error: unknown): boolean {
  return error instanceof LightkeeperError && error.code === 'DAMAGED';
}

/** Returns a digest that is equal for files with the same bytes. */
export function contentDigest(content: ListRoot | undefined): Buffer {
  return sha256(content?.entries ?? new Uint8Array());
}

/** Reports whether stored facts are of a file with this content. */
function hasContent(file: GraphFile | undefined, content: ListRoot | undefined): boolean {
  return file !== undefined && sameBytes(file.content, contentDigest(content));
}
