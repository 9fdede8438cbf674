import { GRAPH_FILES } from '../core/lightrag/rules.ts';
import { vectorFileOf } from '../core/lightrag/vectors.ts';
import type { NodeRef } from '../core/list.ts';
import { type ListRoot, UnitKind_Value } from '../gen/lightkeeper/v1/types_pb.ts';
import type { GraphSource } from './inspect.ts';
import type { Store } from './store/store.ts';

/**
 * Leaves out of two states of a file the records that both have in common bytes, so that only the others are compared. A
 * run of units that both have, one after another, holds whole records between the first and the last place where a
 * record begins; what is before and behind them stays, with the records around the run. So each side remains a file in
 * its layout, with fewer records, and what is left out is the same on both sides.
 */

/** Where a record begins in files of a layout, and how a file begins that has them nowhere else. */
interface RecordStarts {
  readonly head: Buffer;
  readonly marks: readonly Buffer[];
  /** So many bytes without a record at the start of a run mean that there is none in all of it. */
  readonly gapMax: number;
}

const KV: RecordStarts = {
  head: Buffer.from('{\n  "'),
  marks: [Buffer.from('\n  "')],
  gapMax: Number.POSITIVE_INFINITY,
};
/** "<" is never written as it is in a text of XML. */
const GRAPHML: RecordStarts = {
  head: Buffer.from('<'),
  marks: [Buffer.from('<node '), Buffer.from('<edge ')],
  gapMax: Number.POSITIVE_INFINITY,
};
/** The first row has another mark: it is always there to show what rows are like. Behind the last comes the matrix. */
const VECTORS: RecordStarts = {
  head: Buffer.from('{"embedding_dim": '),
  marks: [Buffer.from(', {"__id__"')],
  gapMax: 1 << 20,
};

const MARK_BYTES_MAX = 11;
/** So much is searched for the last record of a run, back from its end, before halves of the run are tried. */
const BACK_BYTES_MAX = 1 << 20;

function startsOf(path: string): RecordStarts {
  if (path === GRAPH_FILES.graph) return GRAPHML;
  return vectorFileOf(path) === undefined ? KV : VECTORS;
}

/** A run of units that two files have in common. */
interface Run {
  readonly at: number;
  readonly otherAt: number;
  length: number;
}

/** Bytes of a file that are left out. */
interface Gap {
  readonly from: number;
  readonly to: number;
}

async function unitsOf(store: Store, content: ListRoot): Promise<NodeRef[]> {
  const all: NodeRef[] = [];
  for await (const refs of store.units(content)) all.push(...refs);
  return all;
}

/** Places of units that are there once. */
function placesOf(units: readonly NodeRef[]): Map<string, number> {
  const places = new Map<string, number>();
  for (const [i, { id }] of units.entries()) {
    const name = id.toString('latin1');
    places.set(name, places.has(name) ? Number.NaN : i);
  }
  return places;
}

function runsOf(one: readonly NodeRef[], other: readonly NodeRef[]): Run[] {
  const [mine, theirs] = [placesOf(one), placesOf(other)];
  const runs: Run[] = [];
  for (const [at, { id }] of one.entries()) {
    const name = id.toString('latin1');
    const otherAt = Number.isNaN(mine.get(name)) ? Number.NaN : (theirs.get(name) ?? Number.NaN);
    if (Number.isNaN(otherAt)) continue;
    const last = runs.at(-1);
    if (last !== undefined && last.at + last.length === at && last.otherAt + last.length === otherAt)
      last.length += 1;
    else runs.push({ at, otherAt, length: 1 });
  }
  return runs;
}

/** The two files of one path without what they have in common; as they are where that cannot be told. */
export async function withoutCommon(
  store: Store,
  before: GraphSource | undefined,
  after: GraphSource | undefined,
): Promise<[GraphSource | undefined, GraphSource | undefined]> {
  const [old, now] = [before?.units, after?.units];
  if (before === undefined || after === undefined || old === undefined || now === undefined)
    return [before, after];
  const [one, other] = [await unitsOf(store, old), await unitsOf(store, now)];
  const files = [new UnitFile(store, one), new UnitFile(store, other)] as const;
  const starts = startsOf(before.path);
  for (const file of files) if (!(await file.beginsWith(starts.head))) return [before, after];
  const gaps: [Gap[], Gap[]] = [[], []];
  for (const { at, otherAt, length } of runsOf(one, other)) {
    const inner = await files[0].recordsIn(at, at + length, starts);
    if (inner === undefined) continue;
    for (const [i, place] of [at, otherAt].entries()) {
      const base = (files[i] as UnitFile).offsetOf(place);
      gaps[i as 0 | 1].push({ from: base + inner.from, to: base + inner.to });
    }
  }
  return [0, 1].map((i) => {
    const [source, file] = [[before, after][i] as GraphSource, files[i] as UnitFile];
    const left = gaps[i as 0 | 1].sort((a, b) => a.from - b.from);
    return { ...source, chunks: () => file.without(left) };
  }) as [GraphSource, GraphSource];
}

/** A file as its units. */
class UnitFile {
  readonly #store: Store;
  readonly #units: readonly NodeRef[];
  /** Where each unit begins, and where the last one ends. */
  readonly #offsets: number[] = [0];

  constructor(store: Store, units: readonly NodeRef[]) {
    this.#store = store;
    this.#units = units;
    for (const { span } of units) this.#offsets.push((this.#offsets.at(-1) ?? 0) + span);
  }

  offsetOf(unit: number): number {
    return this.#offsets[unit] ?? 0;
  }

  async #read(unit: number): Promise<Buffer> {
    const ref = this.#units[unit];
    return ref === undefined ? Buffer.alloc(0) : await this.#store.readUnit(ref.id, UnitKind_Value.BYTES);
  }

  async beginsWith(head: Buffer): Promise<boolean> {
    return (await this.#read(0)).subarray(0, head.length).equals(head);
  }

  /** Where the first and the last record begin in some units, from the start of them; undefined without two of them. */
  async recordsIn(from: number, to: number, starts: RecordStarts): Promise<Gap | undefined> {
    const first = await this.#firstIn(from, to, starts.marks, starts.gapMax);
    if (first < 0) return undefined;
    let last = await this.#lastIn(from, to, starts.marks);
    // Somewhere records end, and something else goes on: a part that has some, and one behind it that has none.
    for (let [some, none] = [from, to]; last < 0 && none - some > 1; ) {
      const middle = (some + none) >> 1;
      const here = await this.#firstIn(middle, none, starts.marks, BACK_BYTES_MAX);
      if (here >= 0) some = middle;
      else {
        none = middle;
        last = await this.#lastIn(from, none, starts.marks);
      }
    }
    const base = this.offsetOf(from);
    return last > first ? { from: first - base, to: last - base } : undefined;
  }

  /** Where in the file the first record begins in some units; -1 if there is none in so many bytes. */
  async #firstIn(from: number, to: number, marks: readonly Buffer[], bytesMax: number): Promise<number> {
    let bytes: Buffer = Buffer.alloc(0);
    for (let unit = from; unit < to && this.offsetOf(unit) - this.offsetOf(from) < bytesMax; unit++) {
      // A mark may lie across two units.
      bytes = Buffer.concat([bytes.subarray(-MARK_BYTES_MAX), await this.#read(unit)]);
      const at = firstOf(bytes, marks);
      if (at >= 0) return this.offsetOf(unit + 1) - bytes.length + at;
    }
    return -1;
  }

  /** Where the last one begins; -1 if there is none in the last of them. */
  async #lastIn(from: number, to: number, marks: readonly Buffer[]): Promise<number> {
    let bytes: Buffer = Buffer.alloc(0);
    const end = this.offsetOf(to);
    for (let unit = to - 1; unit >= from && end - this.offsetOf(unit + 1) < BACK_BYTES_MAX; unit--) {
      bytes = Buffer.concat([await this.#read(unit), bytes.subarray(0, MARK_BYTES_MAX)]);
      const at = lastOf(bytes, marks);
      if (at >= 0) return this.offsetOf(unit) + at;
    }
    return -1;
  }

  /** All bytes but those in gaps, which come in order. */
  async *without(gaps: readonly Gap[]): AsyncIterable<Buffer> {
    let next = 0;
    for (const [unit, { span }] of this.#units.entries()) {
      const [start, end] = [this.offsetOf(unit), this.offsetOf(unit) + span];
      while ((gaps[next]?.to ?? Number.POSITIVE_INFINITY) <= start) next += 1;
      if ((gaps[next]?.from ?? end) <= start && (gaps[next]?.to ?? start) >= end) continue;
      const bytes = await this.#read(unit);
      let at = start;
      for (let i = next; at < end; i++) {
        const { from, to } = gaps[i] ?? { from: end, to: end };
        if (from > at) yield bytes.subarray(at - start, Math.min(from, end) - start);
        at = Math.max(at, Math.min(to, end));
        if (from >= end) break;
      }
    }
  }
}

function firstOf(bytes: Buffer, marks: readonly Buffer[]): number {
  const found = marks.map((mark) => bytes.indexOf(mark)).filter((at) => at >= 0);
  return found.length === 0 ? -1 : Math.min(...found);
}

function lastOf(bytes: Buffer, marks: readonly Buffer[]): number {
  return Math.max(...marks.map((mark) => bytes.lastIndexOf(mark)));
}
