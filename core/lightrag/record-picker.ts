import { LayoutError } from './chunk-reader.ts';
import { LayoutReader, unescaped } from './json.ts';

/** Any JSON value. */
export type JsonValue = null | boolean | number | string | JsonValue[] | { [name: string]: JsonValue };

/** Most bytes of one text. */
const TEXT_BYTES_MAX = 256 << 20;

interface Level {
  readonly value: JsonValue[] | { [name: string]: JsonValue };
  key: string;
}

/** Extracts the records of a file of `{id: record}` whose id satisfies `mayWant`, and passes each to `take`. */
export class RecordPicker extends LayoutReader {
  readonly #mayWant: (id: string) => boolean;
  readonly #take: (id: string, record: JsonValue) => void;
  #depth = 0;
  #id = '';
  #wanted = false;
  #levels: Level[] = [];
  #pieces: Buffer[] = [];
  #pieceBytes = 0;

  constructor(mayWant: (id: string) => boolean, take: (id: string, record: JsonValue) => void) {
    super({ byteOrderMark: true });
    this.#mayWant = mayWant;
    this.#take = take;
  }

  open(isList: boolean): void {
    if (this.#depth++ === 0 || !this.#wanted) return;
    this.#levels.push({ value: isList ? [] : {}, key: '' });
  }

  close(): void {
    this.#depth -= 1;
    if (this.#depth === 0 || !this.#wanted) return;
    const level = this.#levels.pop();
    if (level !== undefined) this.#put(level.value);
  }

  key(bytes: Buffer, escaped: boolean): void {
    const text = () => unescaped(bytes, escaped).toString('utf8');
    const level = this.#levels.at(-1);
    if (this.#depth === 1) {
      this.#id = text();
      this.#wanted = this.#mayWant(this.#id);
    } else if (this.#wanted && level !== undefined) level.key = text();
  }

  string(bytes: Buffer, escaped: boolean): void {
    if (this.#wanted) this.#put(unescaped(bytes, escaped).toString('utf8'));
  }

  piece(bytes: Buffer): void {
    if (!this.#wanted) return;
    this.#pieceBytes += bytes.length;
    if (this.#pieceBytes > TEXT_BYTES_MAX) throw new LayoutError('malformed', 0, 'a text in it is too long');
    this.#pieces.push(Buffer.from(bytes));
  }

  long(_: number, isKey: boolean): void {
    const text = unescaped(Buffer.concat(this.#pieces), true).toString('utf8');
    this.#pieces = [];
    this.#pieceBytes = 0;
    const level = this.#levels.at(-1);
    if (!isKey) {
      if (this.#wanted) this.#put(text);
    } else if (this.#depth === 1) this.#wanted = false;
    else if (level !== undefined) level.key = text;
  }

  bare(text: string): void {
    // JSON has no NaN: where Python wrote one there is no value.
    if (this.#wanted) this.#put(/^(?:NaN|-?Infinity)$/.test(text) ? null : (JSON.parse(text) as JsonValue));
  }

  #put(value: JsonValue): void {
    const level = this.#levels.at(-1);
    if (level === undefined) {
      if (this.#depth === 1) this.#take(this.#id, value);
    } else if (Array.isArray(level.value)) level.value.push(value);
    else
      Object.defineProperty(level.value, level.key, {
        value,
        enumerable: true,
        configurable: true,
        writable: true,
      });
  }
}
