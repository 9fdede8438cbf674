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
import { listUnits } from '../snapshots/graph-files.ts';
import type { Store } from '../store/store.ts';
import type { FilePair } from './file-pair.ts';

/** Most bytes of a row. Longer bytes without the start of a row are the matrix. */
const ROW_BYTES_MAX = 1 << 20;

/** Most bytes searched backwards for the last record of a run, before the run is bisected. */
const BACK_BYTES_MAX = 1 << 20;

/** A range of bytes that is skipped. */
interface Gap {
  readonly from: number;
  /** End, exclusive. */
  readonly to: number;
}

/**
 * Returns two states of a file without the records in units that both share. A pair that cannot be reduced is
 * returned as it is.
 *
 * A run of units in both states contains whole records between the first and the last place where a record begins.
 * Those are skipped; the bytes around them stay, so that each side remains well-formed.
 */
export async function withoutCommonRecords(store: Store, pair: FilePair): Promise<FilePair> {
  const { before, after } = pair;
  const [old, now] = [before?.units, after?.units];
  if (before === undefined || after === undefined || old === undefined || now === undefined) return pair;
  const [one, other] = [await listUnits(store, old), await listUnits(store, now)];
  const files = [new UnitFile(store, one), new UnitFile(store, other)] as const;
  const records = recordMarks(before.path);
  for (const file of files) if (!(await file.beginsWith(records.head))) return pair;
  const gapMax = vectorFileOf(before.path) === undefined ? Number.POSITIVE_INFINITY : ROW_BYTES_MAX;
  const gaps: [Gap[], Gap[]] = [[], []];
  for (const { at, otherAt, length } of commonRuns(one, other)) {
    const inner = await files[0].recordsBetween(at, at + length, { marks: records, bytesMax: gapMax });
    if (inner === undefined) continue;
    for (const [i, place] of [at, otherAt].entries()) {
      const base = (files[i] as UnitFile).offsetOf(place);
      gaps[i as 0 | 1].push({ from: base + inner.from, to: base + inner.to });
    }
  }
  for (const list of gaps) list.sort((a, b) => a.from - b.from);
  return {
    before: { ...before, chunks: () => files[0].chunksWithout(gaps[0]) },
    after: { ...after, chunks: () => files[1].chunksWithout(gaps[1]) },
  };
}

/** Marks to search for, and the most bytes to search. */
interface Search {
  readonly marks: RecordMarks;
  readonly bytesMax: number;
}

/** A stored file, read unit by unit. */
class UnitFile {
  readonly #store: Store;
  readonly #units: readonly NodeRef[];
  /** Offset of each unit, and the end of the last one. */
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

  /**
   * Returns where the first and the last record begin in a range of units, relative to the range; undefined if it has
   * fewer than two.
   */
  async recordsBetween(from: number, to: number, { marks, bytesMax }: Search): Promise<Gap | undefined> {
    const first = await this.#firstIn(from, to, { marks, bytesMax });
    if (first < 0) return undefined;
    let last = await this.#lastIn(from, to, marks);
    // Records may end before the run does. The place is found by bisection.
    for (let [some, none] = [from, to]; last < 0 && none - some > 1; ) {
      const middle = (some + none) >> 1;
      const here = await this.#firstIn(middle, none, { marks, bytesMax: BACK_BYTES_MAX });
      if (here >= 0) some = middle;
      else {
        none = middle;
        last = await this.#lastIn(from, none, marks);
      }
    }
    const base = this.offsetOf(from);
    return last > first ? { from: first - base, to: last - base } : undefined;
  }

  /** Returns the offset in the file of the first record in a range of units; -1 if `bytesMax` bytes have none. */
  async #firstIn(from: number, to: number, { marks, bytesMax }: Search): Promise<number> {
    let bytes: Buffer = Buffer.alloc(0);
    for (let unit = from; unit < to && this.offsetOf(unit) - this.offsetOf(from) < bytesMax; unit++) {
      // A mark may lie across two units.
      bytes = Buffer.concat([bytes.subarray(-MARK_BYTES_MAX), await this.#read(unit)]);
      const at = firstRecord(marks, bytes);
      if (at >= 0) return this.offsetOf(unit + 1) - bytes.length + at;
    }
    return -1;
  }

  /** Returns the offset in the file of the last record in a range of units; -1 if its last bytes have none. */
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

  /** Yields all bytes outside of `gaps`, which are sorted. */
  async *chunksWithout(gaps: readonly Gap[]): AsyncIterable<Buffer> {
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
