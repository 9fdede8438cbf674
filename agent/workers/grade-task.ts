import { toBinary } from '@bufbuild/protobuf';
import { must } from '../../core/assert.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { GraphCheck } from '../../core/lightrag/check.ts';
import { LayoutError } from '../../core/lightrag/chunk-reader.ts';
import {
  decodeFacts,
  encodeFacts,
  type FileFacts,
  type StoredFacts,
} from '../../core/lightrag/facts-codec.ts';
import { changeLine, type Lost, lostBetween, tablesOf } from '../../core/lightrag/loss.ts';
import { NumberPool } from '../../core/lightrag/name-table.ts';
import { TABLES_OF } from '../../core/lightrag/rules.ts';
import type { StandingKeys } from '../../core/lightrag/standing.ts';
import { Utf8Reader } from '../../core/lightrag/utf8-reader.ts';
import { FindingSchema, GraphStatsSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { FileDelta } from './file-delta.ts';
import { FrameReader, type FrameRun } from './frame-reader.ts';
import type { WorkBuffers } from './work-buffers.ts';

/** Consecutive units of a frame that are consecutive in a file, too. */
export interface FileRun extends FrameRun {
  readonly bytes: number;
  /** Offset of these bytes in the matrix text of the previous snapshot; undefined if they were not in it. */
  readonly previousOffset?: number | undefined;
}

/** Consecutive units that are skipped because their records are known, except for both ends. */
export interface SkippedRun {
  readonly head: readonly FileRun[];
  /** Bytes between head and tail. */
  readonly bytes: number;
  readonly tail: readonly FileRun[];
  /** Whether no other skipped run follows in the file. */
  readonly isLast: boolean;
}

export type FilePart = FileRun | SkippedRun;

/** A step that reads the next parts of a file. */
export interface ReadStep {
  /**
   * `read`: the whole file. `read-removed`: its previous state without what both states share. `read-added`: its new
   * state, likewise. `read-again`: the whole file again, for what the findings need of it.
   */
  readonly step: 'read' | 'read-removed' | 'read-added' | 'read-again';
  readonly path: string;
  readonly parts: readonly FilePart[];
  /** Whether these are the last parts. */
  readonly ends: boolean;
}

/** A step that gives the stored facts of a file. */
export interface FactsStep {
  /** `reuse-facts`: the file has not changed since. `previous-facts`: it has changed, or is gone. */
  readonly step: 'reuse-facts' | 'previous-facts';
  readonly path: string;
  /** Units of the facts, the first one first. */
  readonly units: readonly Uint8Array[];
}

/** One step of the grading of a snapshot. */
export type GradeStep =
  | { readonly step: 'begin' }
  | FactsStep
  | ReadStep
  /** Compares all files. It is repeated after files were read again, until none must be. */
  | {
      readonly step: 'compare';
      /** Paths of the graph's files in the newest usable snapshot; undefined without one. */
      readonly before: readonly string[] | undefined;
      readonly standing: StandingKeys;
    }
  /** Encodes the facts of one file: those of all files together may be large. */
  | { readonly step: 'encode-facts'; readonly path: string }
  | { readonly step: 'finish' };

/** Facts of a file to be stored. */
export interface EncodedFacts {
  readonly path: string;
  /** New units, the first one first; none if the stored facts still hold. */
  readonly units: readonly Uint8Array[];
  /** Id of the last unit, which names the ones before it. */
  readonly lastId: Uint8Array;
}

/** A finding with the numbers of all its names: see `CheckFinding`. */
export interface EncodedFinding {
  readonly finding: Uint8Array;
  readonly numbers: Float64Array;
  readonly stands: boolean;
}

/** The result of one grading. Messages are encoded, because they cross threads. */
export interface GradeOutcome {
  readonly findings: readonly EncodedFinding[];
  readonly stats: Uint8Array;
  /** One line on what changed since the previous facts; empty if there are none. */
  readonly summary: string;
  /** What was lost since the previous facts; undefined if there are none. */
  readonly lost: Lost | undefined;
}

/** The reply to one step. */
export type GradeReply =
  | { readonly step: 'begin' }
  /** Facts: whether they could be decoded. Parts: false if reading more of them is of no use. */
  // A malformed file needs no more parts; after a part of a delta was not accepted, all of the file must be read.
  | { readonly step: FactsStep['step'] | ReadStep['step']; readonly accepted: boolean }
  /** Paths of the files that `read-again` must read. */
  | { readonly step: 'compare'; readonly readAgain: readonly string[] }
  /** Facts of the file; undefined if it is malformed. */
  | { readonly step: 'encode-facts'; readonly facts: EncodedFacts | undefined }
  | { readonly step: 'finish'; readonly outcome: GradeOutcome };

/** The kind of reply to a kind of step. */
export type ReplyTo<S extends GradeStep> = S extends FactsStep | ReadStep
  ? Extract<GradeReply, { accepted: boolean }>
  : Extract<GradeReply, { step: S['step'] }>;

/** Runs one step of the current grading; `begin` begins a new one. */
export interface GradeTask {
  readonly op: 'grade';
  readonly step: GradeStep;
}

export interface GradeTaskResults {
  grade: GradeReply;
}

/** Runs one step on a worker. Returns the reply to that step. */
export async function runGradeStep<S extends GradeStep>(worker: GradeWorker, step: S): Promise<ReplyTo<S>> {
  const reply = await worker.run({ op: 'grade', step });
  if (!isReplyTo(reply, step))
    throw new LightkeeperError('INTERNAL', `Cannot grade: the reply to "${step.step}" is "${reply.step}"`);
  return reply;
}

/** A worker, or one of its slots. */
interface GradeWorker {
  run(task: GradeTask): Promise<GradeReply>;
}

function isReplyTo<S extends GradeStep>(reply: GradeReply, { step }: S): reply is ReplyTo<S> {
  return reply.step === step;
}

/** Runs grade tasks, one grading at a time. */
export class GradeRunner {
  readonly #buffers: WorkBuffers;
  #session: GradeSession | undefined;

  constructor(buffers: WorkBuffers) {
    this.#buffers = buffers;
  }

  /** Drops a grading that did not finish. */
  reset(): void {
    this.#session?.close();
    this.#session = undefined;
  }

  run(step: GradeStep): GradeReply {
    if (step.step === 'begin') {
      this.reset();
      this.#session = new GradeSession(new FrameReader(this.#buffers));
      return { step: 'begin' };
    }
    const reply = must(this.#session, 'a grading').run(step);
    if (step.step === 'finish') this.reset();
    return reply;
  }
}

/** The checks of one snapshot. */
class GradeSession {
  readonly #numbers = new NumberPool();
  readonly #check = new GraphCheck(this.#numbers);
  readonly #frames: FrameReader;
  /** Paths of the files that were read, or whose facts are reused. */
  readonly #paths = new Set<string>();
  /** Facts of unchanged files. */
  readonly #reused = new Map<string, StoredFacts>();
  /** Previous facts of changed files. */
  readonly #previous = new Map<string, StoredFacts>();
  /** Paths of the files whose facts are missing, previous or new. */
  readonly #unknown = new Set<string>();
  /** Paths of the files in whose matrix something was skipped. */
  readonly #skipped = new Set<string>();
  /** Reader of the file that is being read. */
  #reader: Utf8Reader | undefined;
  #delta: FileDelta | undefined;

  constructor(frames: FrameReader) {
    this.#frames = frames;
  }

  close(): void {
    this.#frames.close();
  }

  run(step: Exclude<GradeStep, { step: 'begin' }>): GradeReply {
    switch (step.step) {
      case 'reuse-facts':
      case 'previous-facts':
        return { step: step.step, accepted: this.#addFacts(step) };
      case 'read':
        return { step: step.step, accepted: this.#read(step) };
      case 'read-removed':
      case 'read-added':
        return { step: step.step, accepted: this.#readDelta(step) };
      case 'read-again':
        this.#reader ??= new Utf8Reader(this.#check.rereader(step.path));
        this.#feed(this.#reader, step.parts);
        if (step.ends) this.#endFile();
        return { step: step.step, accepted: true };
      case 'compare': {
        const before = step.before === undefined ? undefined : new Set(step.before);
        return { step: step.step, readAgain: this.#check.compare({ before, standing: step.standing }) };
      }
      case 'encode-facts':
        return { step: step.step, facts: this.#encodeFacts(step.path) };
      case 'finish':
        return { step: step.step, outcome: this.#outcome() };
    }
  }

  #addFacts({ step, path, units }: FactsStep): boolean {
    const stored = decodeOrUndefined(units);
    if (step === 'previous-facts') {
      if (stored === undefined) this.#unknown.add(path);
      else this.#previous.set(path, stored);
    } else if (stored !== undefined) {
      this.#paths.add(path);
      this.#reused.set(path, stored);
      this.#check.reuse(path, stored.facts);
    }
    return stored !== undefined;
  }

  #read({ path, parts, ends }: ReadStep): boolean {
    this.#paths.add(path);
    this.#reader ??= new Utf8Reader(this.#check.reader(path));
    try {
      if (this.#feed(this.#reader, parts)) this.#skipped.add(path);
      if (!ends) return true;
      this.#endFile();
      this.#check.finished(path);
      return true;
    } catch (error) {
      if (!(error instanceof LayoutError)) throw error;
      this.#reader = undefined;
      this.#check.failed(path, error);
      return false;
    }
  }

  /** Reads parts of a delta. Returns false if the whole file must be read, also if it is malformed. */
  #readDelta({ step, path, parts, ends }: ReadStep): boolean {
    // A delta of another path was given up.
    const open = this.#delta?.path === path ? this.#delta : undefined;
    const delta =
      open ?? new FileDelta(path, must(this.#previous.get(path), 'previous facts').facts, this.#numbers);
    this.#delta = undefined;
    try {
      for (const part of parts) if (!this.#feedDelta(delta, part)) return false;
      if (ends && step === 'read-added') {
        const facts = delta.finish();
        if (facts === undefined) return false;
        this.#paths.add(path);
        this.#check.reuse(path, facts);
        return true;
      }
      if (ends) delta.beginNewState();
    } catch (error) {
      if (!(error instanceof LayoutError)) throw error;
      return false;
    }
    this.#delta = delta;
    return true;
  }

  #feedDelta(delta: FileDelta, part: FilePart): boolean {
    if (!('head' in part)) {
      this.#feed(delta.reader, [part]);
      return true;
    }
    const bytesOf = (runs: readonly FileRun[]) =>
      Buffer.concat(runs.map((run) => Buffer.from(this.#frames.read(run))));
    const { head, bytes, tail, isLast } = part;
    return delta.skip({ head: bytesOf(head), bytes, tail: bytesOf(tail), isLast });
  }

  /** Reads parts of a file. Returns whether some bytes were skipped. */
  #feed(reader: Utf8Reader, parts: readonly FilePart[]): boolean {
    let isSkipped = false;
    for (const part of parts) {
      if ('head' in part) throw new LightkeeperError('INTERNAL', 'Cannot pass over what must be read');
      if (part.previousOffset !== undefined && reader.skip(part.previousOffset, part.bytes)) isSkipped = true;
      else reader.feed(this.#frames.read(part));
    }
    return isSkipped;
  }

  #endFile(): void {
    must(this.#reader, 'a file that is read').end();
    this.#reader = undefined;
  }

  #encodeFacts(path: string): EncodedFacts | undefined {
    const found = this.#check.facts(path);
    if (found === undefined) return undefined;
    const incrementalChecks = this.#skipped.has(path)
      ? (this.#previous.get(path)?.facts.incrementalChecks ?? 0) + 1
      : found.incrementalChecks;
    const facts = { ...found, incrementalChecks };
    const reused = this.#reused.get(path);
    if (reused !== undefined && reused.facts.names.length === facts.names.length)
      return { path, units: [], lastId: reused.lastId };
    const { units, stored } = encodeFacts(facts, reused ?? this.#previous.get(path));
    return { path, units, lastId: stored.lastId };
  }

  #outcome(): GradeOutcome {
    const now: FileFacts[] = [];
    for (const path of this.#paths) {
      const facts = this.#check.facts(path);
      if (facts === undefined) this.#unknown.add(path);
      else now.push(facts);
    }
    const stored = [...this.#previous.values(), ...this.#reused.values()].map(({ facts }) => facts);
    const [before, after] = [tablesOf(stored), tablesOf(now)];
    const unknown = new Set([...this.#unknown].flatMap((path) => TABLES_OF.get(path) ?? []));
    for (const table of unknown) before.delete(table);
    return {
      findings: this.#check.findings().map(({ finding, numbers, stands }) => ({
        finding: toBinary(FindingSchema, finding),
        // A view would carry all of its memory to the other thread.
        numbers: numbers.slice(),
        stands,
      })),
      stats: toBinary(GraphStatsSchema, this.#check.stats),
      summary: stored.length === 0 ? '' : changeLine(before, after, unknown),
      lost: stored.length === 0 ? undefined : lostBetween(before, after),
    };
  }
}

/** Decodes stored facts. Returns undefined if they are damaged: then they are made again from the file. */
function decodeOrUndefined(units: readonly Uint8Array[]): StoredFacts | undefined {
  try {
    return decodeFacts(units);
  } catch (error) {
    if (error instanceof LightkeeperError && error.code === 'DAMAGED') return undefined;
    throw error;
  }
}
