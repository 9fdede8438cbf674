import {
  firstRecord,
  lastRecord,
  MARK_BYTES_MAX,
  type RecordMarks,
  recordMarks,
} from '../../core/lightrag/record-boundaries.ts';
import { vectorFileOf } from '../../core/lightrag/vector-reader.ts';
import type { NodeRef } from '../../core/list.ts';
import { commonRuns } from '../../core/unit-runs.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { type GraphSource, unitsOf } from '../snapshots/graph-files.ts';
import type { Store } from '../store/store.ts';

/** So many bytes of rows without the start of one are no rows, but their matrix. */
const ROW_BYTES_MAX = 1 << 20;

/** So much is searched for the last record of a run, back from its end, before halves of the run are tried. */
const BACK_BYTES_MAX = 1 << 20;

/** Bytes of a file that are left out. */
interface Gap {
  readonly from: number;
  readonly to: number;
}

/**
 * Leaves out of two states of a file the records that both have in common bytes, so that only the others are compared. A
 * run of units that both have, one after another, holds whole records between the first and the last place where a
 * record begins; what is before and behind them stays, with the records around the run. So each side remains a file in
 * its layout, with fewer records, and what is left out is the same on both sides.
 * Both are answered as they are where that cannot be told.
 */
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
  const records = recordMarks(before.path);
  for (const file of files) if (!(await file.beginsWith(records.head))) return [before, after];
  const gapMax = vectorFileOf(before.path) === undefined ? Number.POSITIVE_INFINITY : ROW_BYTES_MAX;
  const gaps: [Gap[], Gap[]] = [[], []];
  for (const { at, otherAt, length } of commonRuns(one, other)) {
    const inner = await files[0].recordsIn(at, at + length, records, gapMax);
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
  async recordsIn(from: number, to: number, marks: RecordMarks, bytesMax: number): Promise<Gap | undefined> {
    const first = await this.#firstIn(from, to, marks, bytesMax);
    if (first < 0) return undefined;
    let last = await this.#lastIn(from, to, marks);
    // Somewhere records end, and something else goes on: a part that has some, and one behind it that has none.
    for (let [some, none] = [from, to]; last < 0 && none - some > 1; ) {
      const middle = (some + none) >> 1;
      const here = await this.#firstIn(middle, none, marks, BACK_BYTES_MAX);
      if (here >= 0) some = middle;
      else {
        none = middle;
        last = await this.#lastIn(from, none, marks);
      }
    }
    const base = this.offsetOf(from);
    return last > first ? { from: first - base, to: last - base } : undefined;
  }

  /** Where in the file the first record begins in some units; -1 if there is none in so many bytes. */
  async #firstIn(from: number, to: number, marks: RecordMarks, bytesMax: number): Promise<number> {
    let bytes: Buffer = Buffer.alloc(0);
    for (let unit = from; unit < to && this.offsetOf(unit) - this.offsetOf(from) < bytesMax; unit++) {
      // A mark may lie across two units.
      bytes = Buffer.concat([bytes.subarray(-MARK_BYTES_MAX), await this.#read(unit)]);
      const at = firstRecord(marks, bytes);
      if (at >= 0) return this.offsetOf(unit + 1) - bytes.length + at;
    }
    return -1;
  }

  /** Where the last one begins; -1 if there is none in the last of them. */
  async #lastIn(from: number, to: number, marks: RecordMarks): Promise<number> {
    let bytes: Buffer = Buffer.alloc(0);
    const end = this.offsetOf(to);
    for (let unit = to - 1; unit >= from && end - this.offsetOf(unit + 1) < BACK_BYTES_MAX; unit--) {
      bytes = Buffer.concat([await this.#read(unit), bytes.subarray(0, MARK_BYTES_MAX)]);
      const at = lastRecord(marks, bytes);
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
