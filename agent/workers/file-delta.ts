import { must } from '../../core/assert.ts';
import { GraphCheck } from '../../core/lightrag/check.ts';
import type { FileFacts } from '../../core/lightrag/facts-codec.ts';
import { patchFacts } from '../../core/lightrag/facts-delta.ts';
import { NumberPool } from '../../core/lightrag/name-table.ts';
import {
  firstRecord,
  lastRecord,
  type RecordMarks,
  recordMarks,
} from '../../core/lightrag/record-boundaries.ts';
import { Utf8Reader } from '../../core/lightrag/utf8-reader.ts';

/**
 * The facts of a file by the records that came and went: first the older state is given, then the one of now, both without
 * what they have in common. Throws `LayoutError`, and is then of no more use.
 */
export class FilePatch {
  readonly path: string;
  readonly #was: FileFacts;
  readonly #marks: RecordMarks;
  readonly #memory: NumberPool;
  #check: GraphCheck;
  #less: FileFacts | undefined;
  #terms: string | undefined;
  #feed: Utf8Reader;

  constructor(path: string, was: FileFacts, memory = new NumberPool()) {
    this.#memory = memory;
    this.#check = new GraphCheck(memory);
    this.path = path;
    this.#was = was;
    this.#marks = recordMarks(path);
    this.#feed = new Utf8Reader(this.#check.reader(path, { rowsOnly: true }));
  }

  /** To which bytes of the state are given. */
  get feed(): Utf8Reader {
    return this.#feed;
  }

  /** Passes over the records that begin in these bytes, but for the last one; false if that cannot be told. */
  pass(head: Buffer, between: number, tail: Buffer, isLast: boolean): boolean {
    const [first, last] = [firstRecord(this.#marks, head), lastRecord(this.#marks, tail)];
    if (first < 0 || last < 0) return false;
    this.#feed.feed(head.subarray(0, first));
    const isPassed = this.#feed.skipRecords(
      head.length - first + between + last,
      this.#recordsPassed(isLast),
    );
    if (isPassed) this.#feed.feed(tail.subarray(last));
    return isPassed;
  }

  /** Rows that were passed over, here and before: how many there were between two stretches is not known. */
  #recordsPassed(isLast: boolean): number | undefined {
    if (this.#less === undefined) return 0;
    return isLast ? this.#was.vectors - this.#less.vectors : undefined;
  }

  /** The older state has ended; the one of now comes. */
  turn(): void {
    this.#less = this.#end();
    this.#terms = this.#feed.declarations;
    this.#check = new GraphCheck(this.#memory);
    this.#feed = new Utf8Reader(this.#check.reader(this.path));
  }

  /** The facts of the state of now; undefined if all of it must be read for them. */
  end(): FileFacts | undefined {
    // Records that are passed over mean something else then.
    if (this.#feed.declarations !== this.#terms) return undefined;
    const removed = must(this.#less, 'an older state');
    return patchFacts(this.path, this.#was, { removed, added: this.#end() });
  }

  #end(): FileFacts {
    this.#feed.end();
    this.#check.finished(this.path);
    return must(this.#check.facts(this.path), 'facts');
  }
}
