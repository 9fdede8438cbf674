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
import { Utf8Reader } from '../../core/lightrag/utf8-reader.ts';
import { FindingSchema, GraphStatsSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { type DecodedFrame, decodeWhole } from '../pack/frame.ts';
import { FilePatch } from './file-delta.ts';

/** Decoded frames that are kept: units of one file may alternate between some of them. */
const FRAMES_KEPT = 2;

/** Units that lie one after another in a frame, and in a file. */
export interface FrameRun {
  /** Of the pack. */
  readonly path: string;
  readonly offset: number;
  readonly length: number;
  /** MatrixOffsets in the frame: the first, and the one after the last. */
  readonly from: number;
  readonly to: number;
  readonly bytes: number;
  /** Where these bytes were in the text of the matrix, in the point before; undefined if they were not. */
  readonly was?: number | undefined;
}

/** Units that are passed over, as their records are known, but for those at either end. */
export interface Passage {
  readonly head: readonly FrameRun[];
  /** Between head and tail. */
  readonly bytes: number;
  readonly tail: readonly FrameRun[];
  /** No other one follows in the file. */
  readonly isLast: boolean;
}
export type FilePart = FrameRun | Passage;

/** One step of the grading of a snapshot. */
export type GradeStep =
  | { readonly step: 'begin' }
  /** A file is as it was when its facts were noted. */
  | { readonly step: 'know'; readonly path: string; readonly units: readonly Uint8Array[] }
  /** Facts of a file that has changed, or is gone, as they were noted in the point before. */
  | { readonly step: 'was'; readonly path: string; readonly units: readonly Uint8Array[] }
  /**
   * The next parts of a file. Utf8Reader: it is read. Less: its older state, all but what is the same in both. More: its state
   * now, likewise. Name: it is read again for names.
   */
  | {
      readonly step: 'feed' | 'less' | 'more' | 'name';
      readonly path: string;
      readonly parts: readonly FilePart[];
      readonly ends: boolean;
    }
  /** All files are known; `before` are the names of the graph's files in the parent. */
  | { readonly step: 'compare'; readonly idle: boolean; readonly before: readonly string[] | undefined }
  /** What is to be noted of a file: one at a time, as all of that together may be much. */
  | { readonly step: 'note'; readonly path: string }
  | { readonly step: 'end' };

type PartsStep = Extract<GradeStep, { parts: readonly FilePart[] }>;

/** Facts of a file: units to be stored, the last of which names the ones before it. */
export interface NotedFile {
  readonly path: string;
  readonly units: readonly Uint8Array[];
  readonly last: Uint8Array;
}

/** What a step answers. */
export interface GradeReply {
  /** Of `know` and `was`: the facts could be read. */
  readonly isKnown?: boolean;
  /** Of `feed`: no more of the file is needed, it is not in its layout. Of `less` and `more`: all of it must be read. */
  readonly isOver?: boolean;
  /** Of `compare`: files that are to be read once more, for names. */
  readonly again?: readonly string[];
  /** Of `note`, if the file could be read. */
  readonly noted?: NotedFile;
  readonly outcome?: GradeOutcome;
}

/** What was found in a graph. Messages are encoded: they are to cross from thread to thread. */
export interface GradeOutcome {
  readonly findings: readonly Uint8Array[];
  readonly stats: Uint8Array;
  readonly summary: string;
  /** Unknown where nothing was noted before. */
  readonly lost: Lost | undefined;
}

/** The checks of one snapshot, a step at a time; `readFrame` reads bytes of a pack. */
export class Grading {
  readonly #memory = new NumberPool();
  readonly #check = new GraphCheck(this.#memory);
  /** The last ones used, the newest last; their room is used again. */
  readonly #frames: { key: string; room: Buffer; frame: DecodedFrame }[] = [];
  readonly #readFrame: (path: string, offset: number, length: number) => Buffer;
  readonly #paths = new Set<string>();
  readonly #known = new Map<string, StoredFacts>();
  readonly #was = new Map<string, StoredFacts>();
  /** Files of which it is not known what they held, or hold. */
  readonly #unknown = new Set<string>();
  /** Files in whose matrix something was passed over. */
  readonly #passed = new Set<string>();
  #feed: Utf8Reader | undefined;
  #patch: FilePatch | undefined;

  /** Room for decoded frames that an earlier grading of this thread has left. */
  readonly #rooms: Buffer[];

  constructor(readFrame: (path: string, offset: number, length: number) => Buffer, rooms: Buffer[]) {
    this.#readFrame = readFrame;
    this.#rooms = rooms;
  }

  /** Leaves its room to the next one. */
  close(): void {
    this.#rooms.push(...this.#frames.splice(0).map(({ room }) => room));
  }

  run(step: GradeStep): GradeReply {
    switch (step.step) {
      case 'begin':
        return {};
      case 'know': {
        const noted = notedIn(step.units);
        if (noted === undefined) return { isKnown: false };
        this.#paths.add(step.path);
        this.#known.set(step.path, noted);
        this.#check.reuse(step.path, noted.facts);
        return { isKnown: true };
      }
      case 'was': {
        const noted = notedIn(step.units);
        if (noted === undefined) this.#unknown.add(step.path);
        else this.#was.set(step.path, noted);
        return { isKnown: noted !== undefined };
      }
      case 'feed':
        return this.#read(step);
      case 'less':
      case 'more':
        return this.#readPatch(step);
      case 'compare': {
        const before = step.before === undefined ? {} : { before: new Set(step.before) };
        return { again: this.#check.compare({ idle: step.idle ? true : undefined, ...before }) };
      }
      case 'name':
        this.#feed ??= new Utf8Reader(this.#check.nameReader(step.path));
        this.#give(this.#feed, step.parts);
        if (step.ends) this.#end();
        return {};
      case 'note':
        return this.#note(step.path);
      case 'end':
        return { outcome: this.#outcome() };
    }
  }

  #read({ path, parts, ends }: PartsStep): GradeReply {
    this.#paths.add(path);
    this.#feed ??= new Utf8Reader(this.#check.reader(path));
    try {
      if (this.#give(this.#feed, parts)) this.#passed.add(path);
      if (!ends) return {};
      this.#end();
      this.#check.finished(path);
      return {};
    } catch (error) {
      if (!(error instanceof LayoutError)) throw error;
      this.#feed = undefined;
      this.#check.failed(path, error);
      return { isOver: true };
    }
  }

  /** What cannot be told without reading all of the file is read by `feed`, also if it is not in its layout. */
  #readPatch({ step, path, parts, ends }: PartsStep): GradeReply {
    // What was left of another file was given up half way.
    const open = this.#patch?.path === path ? this.#patch : undefined;
    const patch = open ?? new FilePatch(path, must(this.#was.get(path), 'noted facts').facts, this.#memory);
    this.#patch = undefined;
    try {
      for (const part of parts) if (!this.#giveTo(patch, part)) return { isOver: true };
      if (ends && step === 'more') {
        const facts = patch.end();
        if (facts === undefined) return { isOver: true };
        this.#paths.add(path);
        this.#check.reuse(path, facts);
        return {};
      }
      if (ends) patch.turn();
    } catch (error) {
      if (!(error instanceof LayoutError)) throw error;
      return { isOver: true };
    }
    this.#patch = patch;
    return {};
  }

  #giveTo(patch: FilePatch, part: FilePart): boolean {
    if (!('head' in part)) {
      this.#give(patch.feed, [part]);
      return true;
    }
    const bytesOf = (runs: readonly FrameRun[]) =>
      Buffer.concat(runs.map((run) => Buffer.from(this.#bytes(run))));
    return patch.pass(bytesOf(part.head), part.bytes, bytesOf(part.tail), part.isLast);
  }

  #end(): void {
    must(this.#feed, 'a file that is read').end();
    this.#feed = undefined;
  }

  /** Answers whether some of it was passed over. */
  #give(feed: Utf8Reader, parts: readonly FilePart[]): boolean {
    let isPassed = false;
    for (const part of parts) {
      if ('head' in part) throw new LightkeeperError('INTERNAL', 'Cannot pass over what must be read');
      if (part.was !== undefined && feed.skip(part.was, part.bytes)) isPassed = true;
      else feed.feed(this.#bytes(part));
    }
    return isPassed;
  }

  /** A view that holds until the next frame is read. */
  #bytes({ path, offset, length, from, to }: FrameRun): Buffer {
    const { bytes, starts } = this.#frame(path, offset, length);
    const [start, end] = [starts[from], starts[to]];
    if (start === undefined || end === undefined)
      throw new LightkeeperError('DAMAGED', `Cannot read pack "${path}": a unit is not where it should be`);
    return bytes.subarray(start, end);
  }

  #frame(path: string, offset: number, length: number): DecodedFrame {
    const key = `${path} ${offset}`;
    const at = this.#frames.findIndex((one) => one.key === key);
    const [known] = at < 0 ? [] : this.#frames.splice(at, 1);
    if (known !== undefined) {
      this.#frames.push(known);
      return known.frame;
    }
    let room = this.#frames.length < FRAMES_KEPT ? this.#rooms.pop() : this.#frames.shift()?.room;
    const frame = decodeWhole(this.#readFrame(path, offset, length), (bytes) => {
      if (room === undefined || room.length < bytes) room = Buffer.allocUnsafeSlow(Math.ceil(bytes * 1.25));
      return room.subarray(0, bytes);
    });
    this.#frames.push({ key, room: must(room, 'a room'), frame });
    return frame;
  }

  #note(path: string): GradeReply {
    const found = this.#check.facts(path);
    if (found === undefined) return {};
    const incrementalChecks = this.#passed.has(path)
      ? (this.#was.get(path)?.facts.incrementalChecks ?? 0) + 1
      : found.incrementalChecks;
    const facts = { ...found, incrementalChecks };
    const known = this.#known.get(path);
    if (known !== undefined && known.facts.names.length === facts.names.length)
      return { noted: { path, units: [], last: known.lastId } };
    const { units, stored: noted } = encodeFacts(facts, known ?? this.#was.get(path));
    return { noted: { path, units, last: noted.lastId } };
  }

  #outcome(): GradeOutcome {
    const now: FileFacts[] = [];
    for (const path of this.#paths) {
      const facts = this.#check.facts(path);
      if (facts === undefined) this.#unknown.add(path);
      else now.push(facts);
    }
    const noted = [...this.#was.values(), ...this.#known.values()].map(({ facts }) => facts);
    const [before, after] = [tablesOf(noted), tablesOf(now)];
    const unknown = new Set([...this.#unknown].flatMap((path) => TABLES_OF.get(path) ?? []));
    for (const table of unknown) before.delete(table);
    return {
      findings: this.#check.findings().map((finding) => toBinary(FindingSchema, finding)),
      stats: toBinary(GraphStatsSchema, this.#check.stats),
      summary: noted.length === 0 ? '' : changeLine(before, after, unknown),
      lost: noted.length === 0 ? undefined : lostBetween(before, after),
    };
  }
}

/** Facts that cannot be read are made anew: they are known nowhere else. */
function notedIn(units: readonly Uint8Array[]): StoredFacts | undefined {
  try {
    return decodeFacts(units);
  } catch (error) {
    if (error instanceof LightkeeperError && error.code === 'DAMAGED') return undefined;
    throw error;
  }
}
