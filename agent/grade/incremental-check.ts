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
import { CutMethod_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { type Content, graphContents, unitsOf } from '../snapshots/graph-files.ts';
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

/** States of a file of which only what has changed is read, one after another. */
const UNREAD_MAX = 63;

/** Bytes of a file that one step is given. */
const STEP_BYTES = 8 << 20;

/** Chains in memory, of all graphs together, and for so long after the last look; others are read from the store. */
const CHAINS_BYTES_MAX = 4 << 20;
const CHAINS_MS = 10_000;

/** Units of facts, the first one first, and what the last one says. */
interface Chain {
  readonly units: readonly Uint8Array[];
  readonly last: GraphFacts;
}

/** Chains of noted facts that were used last, by their last unit: most of them are wanted again. */
export class KnownChains {
  readonly #chains = new Map<string, Chain>();
  #bytes = 0;
  #forgetting: NodeJS.Timeout | undefined;

  get(last: Uint8Array): Chain | undefined {
    const name = hex(last);
    const chain = this.#chains.get(name);
    if (chain === undefined) return undefined;
    this.#chains.delete(name);
    this.#chains.set(name, chain);
    return chain;
  }

  /** Remembers a chain; those that were used longest ago are forgotten for it. */
  put(chain: Chain, id: Uint8Array): void {
    const name = hex(id);
    if (this.#chains.has(name)) return;
    this.#chains.set(name, chain);
    this.#bytes += sizeOf(chain);
    for (const [old, one] of this.#chains) {
      if (this.#bytes <= CHAINS_BYTES_MAX) break;
      this.#chains.delete(old);
      this.#bytes -= sizeOf(one);
    }
    clearTimeout(this.#forgetting);
    this.#forgetting = setTimeout(() => this.#forget(), CHAINS_MS).unref();
  }

  /** An agent that rests holds nothing that it can read again. */
  #forget(): void {
    this.#chains.clear();
    this.#bytes = 0;
  }
}

function sizeOf({ units }: Chain): number {
  return units.reduce((sum, { length }) => sum + length, 0);
}

/** What is looked into, and what it is compared with. */
export interface LookOrder {
  readonly record: StoredSnapshot;
  /** The files of the graph in it. */
  readonly contents: readonly Content[];
  readonly parent: StoredSnapshot | undefined;
  /** A point whose noted facts are used. */
  readonly before: StoredSnapshot | undefined;
  readonly chains: KnownChains;
}

/** What was found, and what is to be noted of each file. */
export type Looked = GradeOutcome & { readonly files: readonly EncodedFacts[] };

/** Runs the checks on the units of a snapshot; files, and parts of them, that have not changed are not read again. */
export async function look(store: Store, order: LookOrder, signal: AbortSignal | undefined): Promise<Looked> {
  const noted = new Map((await indexOf(store, order.before?.graded)).map((file) => [file.path, file]));
  const changed = order.contents.filter(({ path, content }) => !isNoted(noted.get(path), content));
  const bytes = changed.reduce((sum, { content }) => sum + spanOf(content), 0);
  const workers = store.workers.open(bytes, { gentle: true, sequential: true });
  const slot = await workers.takeSlot();
  const run: RunStep = async (step) => {
    signal?.throwIfAborted();
    return await runGradeStep(slot, step);
  };
  try {
    return await new Look(store, order, noted, run).run();
  } finally {
    slot.release();
    await workers.close();
  }
}

type RunStep = <S extends GradeStep>(step: S) => Promise<ReplyTo<S>>;

class Look {
  readonly #store: Store;
  readonly #order: LookOrder;
  readonly #noted: Map<string, GraphFile>;
  readonly #run: RunStep;
  readonly #packs = new Map<number, string>();
  /** Last units of what was noted before, by the paths of the files. */
  readonly #before: ReadonlyMap<string, Uint8Array>;

  constructor(store: Store, order: LookOrder, noted: Map<string, GraphFile>, run: RunStep) {
    this.#store = store;
    this.#order = order;
    this.#noted = noted;
    this.#before = new Map([...noted].map(([path, { facts }]) => [path, facts]));
    this.#run = run;
  }

  async run(): Promise<Looked> {
    const { record, contents, parent, before } = this.#order;
    await this.#run({ step: 'begin' });
    const old = before === undefined ? [] : await this.#olderContents(before);
    for (const { path, content } of contents) {
      const file = this.#noted.get(path);
      this.#noted.delete(path);
      const known = file === undefined ? undefined : await this.#tell(file, content);
      if (known === 'same') continue;
      const was = isTrusted(known)
        ? { known, content: old.find((one) => one.path === path)?.content }
        : undefined;
      await this.#read(path, content, was);
    }
    for (const file of this.#noted.values()) await this.#tell(file, undefined);
    const names =
      parent === undefined
        ? undefined
        : (await graphContents(this.#store, parent.manifest)).map(({ path }) => path);
    const idle = record.manifest.cutMethod === CutMethod_Value.IDLE;
    const { readAgain } = await this.#run({ step: 'compare', idle, before: names });
    for (const { path, content } of contents)
      if (readAgain.includes(path))
        await this.#send('read-names', path, [{ refs: await unitsOf(this.#store, content), from: 0 }]);
    const files: EncodedFacts[] = [];
    for (const { path } of contents) {
      const { facts } = await this.#run({ step: 'encode-facts', path });
      if (facts === undefined) continue;
      files.push(facts);
      await this.#remember(facts);
    }
    const { outcome } = await this.#run({ step: 'finish' });
    return { ...outcome, files };
  }

  async #olderContents({ manifest }: StoredSnapshot): Promise<Content[]> {
    try {
      return await graphContents(this.#store, manifest);
    } catch (error) {
      if (!isLost(error)) throw error;
      return [];
    }
  }

  /** What is noted now will be wanted by the next look. */
  async #remember({ path, units, lastId: id }: EncodedFacts): Promise<void> {
    const end = units.at(-1);
    if (end === undefined) return;
    const last = parseFactsUnit(end);
    const older = this.#before.get(path);
    const grown = last.parts - units.length + 1 > 0 && older !== undefined;
    const base = grown ? await this.#chain(older) : undefined;
    if (grown && base === undefined) return;
    this.#order.chains.put({ units: [...(base?.units ?? []), ...units], last }, id);
  }

  /** Tells what was noted of a file; answers the last part of that, or that the file is still the same. */
  async #tell(file: GraphFile, content: ListRoot | undefined): Promise<GraphFacts | 'same' | undefined> {
    const chain = await this.#chain(file.facts);
    if (chain === undefined) return undefined;
    const step = isNoted(file, content) ? 'reuse-facts' : 'previous-facts';
    const { accepted } = await this.#run({ step, path: file.path, units: chain.units });
    if (!accepted) return undefined;
    return step === 'reuse-facts' ? 'same' : chain.last;
  }

  /** Reads a file that has changed: as little of it as will do, if what was noted of its older state can be trusted. */
  async #read(
    path: string,
    content: ListRoot | undefined,
    was: { known: GraphFacts; content: ListRoot | undefined } | undefined,
  ): Promise<void> {
    const units = await unitsOf(this.#store, content);
    let places: MatrixOffsets | undefined;
    try {
      const before = was === undefined ? [] : await unitsOf(this.#store, was.content);
      places = was && matrixOffsets(units, before, was.known);
      if (was !== undefined && (await this.#patch(path, was.known, before, units, places))) return;
    } catch (error) {
      // Damage of the older state is nothing to this one; its own is met below.
      if (!isLost(error)) throw error;
    }
    await this.#send('read', path, [{ refs: units, from: 0 }], places);
  }

  /**
   * Reads only the records of a file that came, and those that went, and has the facts of the others taken from what was
   * noted; answers whether that could be done.
   */
  async #patch(
    path: string,
    was: GraphFacts,
    before: readonly NodeRef[],
    units: readonly NodeRef[],
    places: MatrixOffsets | undefined,
  ): Promise<boolean> {
    const end = was.matrixAt > 0n ? Number(was.matrixAt) : Number.POSITIVE_INFINITY;
    const stretches = planSegments(before, units, { runs: commonRuns(before, units), end });
    if (stretches === undefined || !(await this.#send('read-removed', path, stretches.before))) return false;
    return await this.#send('read-added', path, stretches.after, places);
  }

  /** Has stretches of a file read, some at a time; answers whether that went to their end. */
  async #send(
    step: ReadStep['step'],
    path: string,
    stretches: readonly Segment[],
    places?: MatrixOffsets,
  ): Promise<boolean> {
    let parts: FilePart[] = [];
    let bytes = 0;
    // While some are read the next ones are looked up.
    let reading: Promise<{ accepted: boolean }> = Promise.resolve({ accepted: true });
    try {
      for (const piece of stretches.flatMap(splitSegment)) {
        bytes += await this.#add(parts, piece, places);
        if (bytes < STEP_BYTES) continue;
        if (!(await reading).accepted) return false;
        reading = this.#run({ step, path, parts, ends: false });
        // Whoever waits for it hears of its failure.
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

  async #add(parts: FilePart[], piece: Segment, places: MatrixOffsets | undefined): Promise<number> {
    if ('refs' in piece)
      return await this.#addRuns(
        parts,
        piece.refs,
        places?.slice(piece.from, piece.from + piece.refs.length),
      );
    const [head, tail]: [FileRun[], FileRun[]] = [[], []];
    const read = (await this.#addRuns(head, piece.head)) + (await this.#addRuns(tail, piece.tail));
    parts.push({ head, bytes: piece.bytes, tail, isLast: piece.isLast });
    return read;
  }

  async #addRuns(
    parts: (FilePart | FileRun)[],
    refs: readonly NodeRef[],
    known?: MatrixOffsets,
  ): Promise<number> {
    const locations = await this.#store.index.locate(refs.map(({ id }) => id));
    let bytes = 0;
    for (const [i, { id, span }] of refs.entries()) {
      const location = locations[i];
      if (location === undefined) throw missingUnit(id);
      const { frameOffset: offset, frameLength: length, place } = location;
      const path = this.#packs.get(location.pack) ?? (await this.#store.packPath(location.pack));
      this.#packs.set(location.pack, path);
      const previousOffset = known?.[i];
      const end = parts.at(-1);
      const last = end === undefined || 'head' in end ? undefined : end;
      const goesOn = last?.path === path && last.offset === offset && last.to === place;
      const nextOffset = last?.previousOffset === undefined ? undefined : last.previousOffset + last.bytes;
      if (last !== undefined && goesOn && previousOffset === nextOffset)
        parts[parts.length - 1] = { ...last, to: place + 1, bytes: last.bytes + span };
      else parts.push({ path, offset, length, from: place, to: place + 1, bytes: span, previousOffset });
      bytes += span;
    }
    return bytes;
  }

  /** The units of a chain, the first one first; undefined if some are lost: facts can be made again. */
  async #chain(id: Uint8Array): Promise<Chain | undefined> {
    const known = this.#order.chains.get(id);
    if (known !== undefined) return known;
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
      this.#order.chains.put({ units, last }, id);
      return { units, last };
    } catch (error) {
      if (isLost(error)) return undefined;
      throw error;
    }
  }
}

/** Whether facts say nothing wrong of their file, and all of that was read not long ago. */
function isTrusted(last: GraphFacts | undefined): last is GraphFacts {
  return last !== undefined && last.flaws.length === 0 && last.incrementalChecks < UNREAD_MAX;
}

async function indexOf(store: Store, graded: Graded | undefined): Promise<GraphFile[]> {
  if (graded === undefined || graded.index.length === 0) return [];
  try {
    const unit = await store.readUnit(graded.index, UnitKind_Value.GRAPH);
    const index = fromBinary(GraphIndexSchema, unit);
    return index.version === FACTS_VERSION ? index.files : [];
  } catch (error) {
    if (isLost(error)) return [];
    throw error;
  }
}

function isLost(error: unknown): boolean {
  return error instanceof LightkeeperError && error.code === 'DAMAGED';
}

/** By which the bytes of a file are known again. */
export function contentDigest(content: ListRoot | undefined): Buffer {
  return sha256(content?.entries ?? new Uint8Array());
}

function isNoted(file: GraphFile | undefined, content: ListRoot | undefined): boolean {
  return file !== undefined && sameBytes(file.content, contentDigest(content));
}
