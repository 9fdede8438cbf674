import { LayoutError, longNameError } from './chunk-reader.ts';
import { LayoutReader, unescaped } from './json.ts';

const NONE: Buffer = Buffer.alloc(0);

/** What is told of a map of records. Bytes are UTF-8, unescaped, and hold only during the call. */
export interface RecordEvents {
  /** Fields whose values are told. */
  readonly fields: ReadonlySet<string>;
  begin(id: Buffer): void;
  /** A text or number right in the record. */
  value(field: string, bytes: Buffer): void;
  /** A text in a list right in the record. */
  item(field: string, bytes: Buffer): void;
  /** A list of texts in such a list: their number and the first two. */
  pair(field: string, length: number, a: Buffer, b: Buffer): void;
  end(): void;
}

/**
 * Reads a file of `{id: {field: value}}`, whatever fields there are; what lies deeper is passed over. With `any` it may
 * be any other JSON too.
 */
export class RecordReader extends LayoutReader {
  readonly #events: RecordEvents;
  readonly #any: boolean;
  #depth = 0;
  /** A value at each depth is a list. */
  readonly #lists: boolean[] = [];
  #field = '';
  #isWanted = false;
  #pair: Buffer[] = [];
  #pairLength = 0;

  constructor(events: RecordEvents, { any = false } = {}) {
    super();
    this.#events = events;
    this.#any = any;
  }

  skipRecords(bytes: number): boolean {
    return this.skipEntries(1, bytes);
  }

  open(isList: boolean): void {
    if (this.#depth < 2 && isList) this.#other();
    this.#lists[this.#depth++] = isList;
    if (this.#depth === 4) {
      this.#pair = [];
      this.#pairLength = 0;
    }
  }

  close(): void {
    this.#depth -= 1;
    if (this.#isWanted && this.#depth === 3 && this.#lists[2] === true && this.#lists[3] === true) {
      const [a = NONE, b = NONE] = this.#pair;
      this.#events.pair(this.#field, this.#pairLength, a, b);
    }
    if (this.#depth === 1) this.#events.end();
  }

  key(bytes: Buffer, escaped: boolean): void {
    if (this.#depth === 1) this.#events.begin(unescaped(bytes, escaped));
    else if (this.#depth === 2) this.#begin(bytes.toString('latin1'));
  }

  string(bytes: Buffer, escaped: boolean): void {
    this.#value(bytes, escaped);
  }

  bare(text: string): void {
    if (this.#depth < 2) this.#other();
    else if (this.#depth === 2 && this.#isWanted) this.#value(Buffer.from(text, 'latin1'), false);
  }

  /** A text that long is no name. */
  piece(): void {}

  long(_: number, isKey: boolean): void {
    if (this.#depth < 2 && !isKey) this.#other();
    else if (this.#depth === 1) throw longNameError();
    if (this.#depth === 2 && isKey) this.#begin('');
  }

  #begin(field: string): void {
    this.#field = field;
    this.#isWanted = this.#events.fields.has(field);
  }

  #value(bytes: Buffer, escaped: boolean): void {
    if (this.#depth < 2) this.#other();
    else if (!this.#isWanted) return;
    else if (this.#depth === 2) this.#events.value(this.#field, unescaped(bytes, escaped));
    else if (this.#depth === 3 && this.#lists[2] === true)
      this.#events.item(this.#field, unescaped(bytes, escaped));
    else if (this.#depth === 4 && this.#lists[3] === true) {
      this.#pairLength += 1;
      // Views: their chunk may be gone before the pair has ended.
      if (this.#pair.length < 2) this.#pair.push(Buffer.from(unescaped(bytes, escaped)));
    }
  }

  #other(): void {
    if (!this.#any) throw new LayoutError('malformed', 0, 'it is no map of records');
  }
}
