import { LayoutError, longNameError } from './chunk-reader.ts';
import { LayoutReader, unescaped } from './json.ts';

const NONE: Buffer = Buffer.alloc(0);

/** Receives the records of a map. Byte views are UTF-8, unescaped, and valid during the call only. */
export interface RecordEvents {
  /** Names of the fields whose values are reported. */
  readonly fields: ReadonlySet<string>;
  /** Names of the fields whose presence is reported, whatever their value. */
  readonly marks: ReadonlySet<string>;
  begin(id: Buffer): void;
  /** Receives the presence of a field. */
  mark(field: string): void;
  /** Receives a text or number directly in the record. */
  value(field: string, bytes: Buffer): void;
  /** Receives a text in a list directly in the record. */
  item(field: string, bytes: Buffer): void;
  /** Receives a list of texts within such a list: its length and the first two texts. */
  pair(field: string, length: number, a: Buffer, b: Buffer): void;
  end(): void;
}

/** What the records of a file may be. */
export type RecordKinds = 'maps' | 'optional' | 'any';

/** Texts and numbers that are false in Python. */
const FALSE = /^(?:null|false|-?0(?:\.0+)?(?:[eE][-+]?[0-9]+)?)$/;

/**
 * Reads a file of `{id: {field: value}}` with any fields, and skips deeper values. With `records` "any" the records may
 * be any JSON, with "optional" also null. With `any` the file may be any JSON. A byte-order mark may precede it.
 */
// LightRAG reads `load_json(file) or {}`: what is false in Python counts as an absent file.
export class RecordReader extends LayoutReader {
  readonly #events: RecordEvents;
  readonly #any: boolean;
  readonly #records: RecordKinds;
  #depth = 0;
  /** Whether the value at each depth is a list. */
  readonly #lists: boolean[] = [];
  #field = '';
  #isWanted = false;
  #pair: Buffer[] = [];
  #pairLength = 0;
  /** The file's only value where that is not a map and false in Python. */
  #nothing: string | undefined;

  constructor(
    events: RecordEvents,
    {
      any = false,
      records = any ? 'any' : 'maps',
    }: { readonly any?: boolean; readonly records?: RecordKinds } = {},
  ) {
    super({ byteOrderMark: true });
    this.#events = events;
    this.#any = any;
    this.#records = records;
  }

  skipRecords(bytes: number): boolean {
    return this.skipEntries(1, bytes);
  }

  override end(): void {
    super.end();
    if (this.#nothing === undefined || this.#any) return;
    throw new LayoutError('empty', 0, `it is ${this.#nothing}, which the instance treats as a missing file`);
  }

  open(isList: boolean): void {
    if (this.#depth === 0 && isList) this.#nothing = '[]';
    else if (this.#depth === 1 && (isList || this.#lists[0] === true)) this.#other();
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
    else if (this.#depth === 2) this.#begin(unescaped(bytes, escaped).toString('latin1'));
  }

  string(bytes: Buffer, escaped: boolean): void {
    this.#value(bytes, escaped);
  }

  bare(text: string): void {
    if (this.#depth === 0 && FALSE.test(text)) this.#nothing = text;
    else if (this.#depth < 2) this.#other(text);
    else if (this.#depth === 2 && this.#isWanted) this.#value(Buffer.from(text, 'latin1'), false);
  }

  /** Ignores a string that is too long to be a name. */
  piece(): void {}

  long(_: number, isKey: boolean): void {
    if (this.#depth < 2 && !isKey) this.#other();
    else if (this.#depth === 1 && !this.#any) throw longNameError();
    if (this.#depth === 2 && isKey) this.#begin('');
  }

  #begin(field: string): void {
    this.#field = field;
    this.#isWanted = this.#events.fields.has(field);
    if (this.#events.marks.has(field)) this.#events.mark(field);
  }

  #value(bytes: Buffer, escaped: boolean): void {
    if (this.#depth === 0 && bytes.length === 0) this.#nothing = '""';
    else if (this.#depth < 2) this.#other();
    else if (!this.#isWanted) return;
    else if (this.#depth === 2) this.#events.value(this.#field, unescaped(bytes, escaped));
    else if (this.#depth === 3 && this.#lists[2] === true)
      this.#events.item(this.#field, unescaped(bytes, escaped));
    else if (this.#depth === 4 && this.#lists[3] === true) {
      this.#pairLength += 1;
      // A view's chunk may be gone before the pair ends.
      if (this.#pair.length < 2) this.#pair.push(Buffer.from(unescaped(bytes, escaped)));
    }
  }

  #other(text = ''): void {
    // The file itself must be a map even where its records need not be.
    const isRecord = this.#depth > 0 && this.#lists[0] !== true;
    const isOptional = this.#records === 'optional' && text === 'null';
    const isAccepted = isRecord ? this.#records === 'any' || isOptional : this.#any;
    if (!isAccepted) throw new LayoutError('malformed', 0, 'it is not a map of records');
  }
}
