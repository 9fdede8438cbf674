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

/** Units that both states of a file contain. Their records are skipped, except for those at both ends. */
export interface SharedRun {
  readonly head: Buffer;
  /** Bytes between head and tail. */
  readonly bytes: number;
  readonly tail: Buffer;
  /** Whether no other shared run follows in the file. */
  readonly isLast: boolean;
}

/**
 * Derives the facts of a changed file from its previous facts and the records in which both states differ.
 *
 * The previous state is read first, then the new one, both without what they share. A LayoutError leaves the delta
 * unusable.
 */
export class FileDelta {
  readonly path: string;
  readonly #previous: FileFacts;
  readonly #marks: RecordMarks;
  readonly #numbers: NumberPool;
  #check: GraphCheck;
  /** Facts of the records that only the previous state has; undefined until it has been read. */
  #removed: FileFacts | undefined;
  #previousDeclarations: string | undefined;
  #reader: Utf8Reader;

  constructor(path: string, previous: FileFacts, numbers = new NumberPool()) {
    this.#numbers = numbers;
    this.#check = new GraphCheck(numbers);
    this.path = path;
    this.#previous = previous;
    this.#marks = recordMarks(path);
    this.#reader = new Utf8Reader(this.#check.reader(path, { rowsOnly: true }));
  }

  /** Reader of the current state. */
  get reader(): Utf8Reader {
    return this.#reader;
  }

  /** Skips the records that begin in a shared run, except for the last one. Returns false if the file must be read. */
  skip({ head, bytes, tail, isLast }: SharedRun): boolean {
    const [first, last] = [firstRecord(this.#marks, head), lastRecord(this.#marks, tail)];
    if (first < 0 || last < 0) return false;
    this.#reader.feed(head.subarray(0, first));
    const isSkipped = this.#reader.skipRecords(head.length - first + bytes + last, this.#skippedRows(isLast));
    if (isSkipped) this.#reader.feed(tail.subarray(last));
    return isSkipped;
  }

  /** Returns the rows skipped in this run and those before it; undefined if only the last run shows their number. */
  #skippedRows(isLast: boolean): number | undefined {
    if (this.#removed === undefined) return 0;
    return isLast ? this.#previous.vectors - this.#removed.vectors : undefined;
  }

  /** Ends the previous state; what is read next belongs to the new one. */
  beginNewState(): void {
    this.#removed = this.#finishState();
    this.#previousDeclarations = this.#reader.declarations;
    this.#check = new GraphCheck(this.#numbers);
    this.#reader = new Utf8Reader(this.#check.reader(this.path));
  }

  /** Returns the facts of the new state; undefined if the whole file must be read. */
  finish(): FileFacts | undefined {
    // With other declarations the skipped records have another meaning.
    if (this.#reader.declarations !== this.#previousDeclarations) return undefined;
    const removed = must(this.#removed, 'a previous state');
    return patchFacts(this.path, this.#previous, { removed, added: this.#finishState() });
  }

  #finishState(): FileFacts {
    this.#reader.end();
    this.#check.finished(this.path);
    return must(this.#check.facts(this.path), 'facts');
  }
}
