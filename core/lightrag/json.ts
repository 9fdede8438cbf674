import { ControlBytes, nextByte } from './byte-search.ts';
import { type ChunkReader, LayoutError, Remainder, SHORT_STRING_BYTES_MAX } from './chunk-reader.ts';

/** Most nested lists and maps. */
// No writer of these files nests deeper; Python gives up at about a thousand.
const DEPTH_MAX = 500;
/** Most bytes of a number or word. */
const BARE_BYTES_MAX = SHORT_STRING_BYTES_MAX;
/** Most digits of an integer that Python converts. */
const INTEGER_DIGITS_MAX = 4300;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const [OPEN_MAP, CLOSE_MAP, OPEN_LIST, CLOSE_LIST] = [0x7b, 0x7d, 0x5b, 0x5d];
const [COLON, COMMA] = [0x3a, 0x2c];
/** Numbers and words of JSON, and NaN and Infinity, which Python writes. */
const BARE = /^(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null|NaN|-?Infinity)$/;
const INTEGER = /^-?[0-9]+$/;
/** Bytes of a string that are tested one by one, before searches that cost a call. */
const NEAR_BYTES = 48;
/** Bytes of a string that are not plain text: 1 for quotes, backslashes and control characters. */
const STOPS = new Uint8Array(256).fill(1, 0, 0x20);
STOPS[QUOTE] = 1;
STOPS[BACKSLASH] = 1;
const HEX_DIGITS = 4;
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

/** Length of the escape that each byte after a backslash begins; 0 for a byte that begins none. */
const ESCAPE_BYTES = new Uint8Array(256);
for (const byte of Buffer.from('"\\/bfnrt')) ESCAPE_BYTES[byte] = 2;
ESCAPE_BYTES[0x75] = 2 + HEX_DIGITS;

/** Receives the tokens of a JSON text in order. Byte views are valid during the call only. */
export interface JsonEvents {
  open(isList: boolean): void;
  close(isList: boolean): void;
  /** Receives a key as written, without quotes. `escaped` tells whether it contains escapes. */
  key(bytes: Buffer, escaped: boolean): void;
  /** Receives a string value as written, without quotes. */
  string(bytes: Buffer, escaped: boolean): void;
  /** Receives the next bytes of a string or key that is too long to be buffered. */
  piece(bytes: Buffer): void;
  /** Ends such a string or key of `length` bytes. */
  long(length: number, isKey: boolean): void;
  /** Receives a number or word. */
  bare(text: string): void;
}

/** The token that may come next. */
const NEXT = {
  value: 0,
  /** The first value of a list, or its end. */
  valueOrClose: 1,
  /** The first key of a map, or its end. */
  keyOrClose: 2,
  key: 3,
  colon: 4,
  commaOrClose: 5,
  nothing: 6,
} as const;
type Next = (typeof NEXT)[keyof typeof NEXT];

/** Returns the decoded bytes of a string. A lone surrogate becomes U+FFFD. */
export function unescaped(bytes: Buffer, escaped: boolean): Buffer {
  return escaped ? Buffer.from(JSON.parse(`"${bytes.toString('utf8')}"`) as string, 'utf8') : bytes;
}

/** Differences between the files of JSON. */
export interface JsonOptions {
  /** Whether a byte-order mark may precede the text. */
  readonly byteOrderMark?: boolean;
}

/**
 * Reads a JSON text of any size in chunks, in the memory of one short string.
 *
 * Accepts what Python's `json.load` accepts: RFC 8259 with NaN, Infinity, lone surrogates and repeated keys. UTF-8 is
 * validated by `Utf8Reader`.
 */
export class JsonReader implements ChunkReader {
  readonly #events: JsonEvents;
  readonly #lists = new Uint8Array(DEPTH_MAX);
  #depth = 0;
  #next: Next = NEXT.value;
  /** Bytes of an unfinished token. */
  readonly #rest = new Remainder();
  /** Offset of `#rest`, or of the chunk after it, in the file. */
  #base = 0;
  /** Bytes so far of a string that is not buffered; -1 outside of one. */
  #longBytes = -1;
  #longIsKey = false;
  #longAt = 0;
  /** Whether the last token of the chunk is unfinished. */
  #waiting = false;
  /** Whether the last string contains escapes. */
  #isEscaped = false;
  readonly #mayHaveMark: boolean;
  readonly #controls = new ControlBytes();
  /** Offsets in the buffer of the next control character and backslash; before the current place if unknown. */
  #control = -1;
  #backslash = -1;

  constructor(events: JsonEvents, { byteOrderMark = false }: JsonOptions = {}) {
    this.#events = events;
    this.#mayHaveMark = byteOrderMark;
  }

  feed(chunk: Buffer): void {
    const buffer = this.#rest.join(chunk);
    let at = 0;
    this.#waiting = false;
    this.#controls.reset(buffer);
    this.#control = -1;
    this.#backslash = -1;
    while (at < buffer.length && !this.#waiting)
      at = this.#longBytes < 0 ? this.#token(buffer, at) : this.#longString(buffer, at);
    this.#base += at;
    this.#rest.save(buffer, Math.min(at, buffer.length));
  }

  /** Whether the receiver of the pieces of a string refuses control characters itself. */
  // A scan for them costs more than everything else that is done with a long string.
  trustsPieces = false;

  /** Offset in the file of the unbuffered string under way; undefined outside of one. */
  get longAt(): number | undefined {
    return this.#longBytes < 0 ? undefined : this.#longAt;
  }

  /** Skips bytes of such a string that contain neither its end nor an escape. Returns false within an escape. */
  skipInString(bytes: number): boolean {
    if (this.#longBytes < 0 || this.#rest.length > 0) return false;
    this.#longBytes += bytes;
    this.#base += bytes;
    return true;
  }

  /** Skips whole entries of the map or list at a depth, each with the comma before it. Returns false elsewhere. */
  skipEntries(depth: number, bytes: number): boolean {
    const isBetween = this.#longBytes < 0 && this.#rest.length === 0 && this.#next === NEXT.commaOrClose;
    if (!isBetween || this.#depth !== depth) return false;
    this.#base += bytes;
    return true;
  }

  end(): void {
    // Only the end of the text ends a number there.
    if (this.#longBytes < 0 && BARE.test(this.#rest.bytes.toString('latin1'))) this.feed(Buffer.from(' '));
    if (this.#next === NEXT.nothing && this.#rest.length === 0) return;
    const at = this.#base + this.#rest.length;
    if (at === 0) throw new LayoutError('empty', 0, 'it is empty');
    const isBlank = this.#depth === 0 && this.#next === NEXT.value && this.#longBytes < 0;
    if (isBlank && this.#rest.length === 0)
      throw new LayoutError('empty', at, 'it contains nothing but white space');
    throw new LayoutError('cut', at, 'it ends in the middle');
  }

  /**
   * Reads one token with the white space before it. Returns the start of the next, or of this one if it is
   * unfinished.
   */
  #token(buffer: Buffer, from: number): number {
    let at = from;
    let byte = buffer[at];
    while (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) byte = buffer[++at];
    switch (byte) {
      case undefined:
        return at;
      case QUOTE:
        return this.#string(buffer, at);
      case COMMA:
        this.#expect(NEXT.commaOrClose, at, 'a comma');
        this.#next = this.#lists[this.#depth - 1] === 1 ? NEXT.value : NEXT.key;
        return at + 1;
      case COLON:
        this.#expect(NEXT.colon, at, 'a colon');
        this.#next = NEXT.value;
        return at + 1;
      case OPEN_MAP:
      case OPEN_LIST:
        this.#open(byte === OPEN_LIST, at);
        return at + 1;
      case CLOSE_MAP:
      case CLOSE_LIST:
        this.#close(byte === CLOSE_LIST, at);
        return at + 1;
      default:
        return this.#bare(buffer, at);
    }
  }

  #expect(next: Next, at: number, what: string): void {
    if (this.#next !== next) throw this.#wrong(at, what);
  }

  #open(isList: boolean, at: number): void {
    if (this.#next !== NEXT.value && this.#next !== NEXT.valueOrClose) throw this.#wrong(at, 'a bracket');
    if (this.#depth === DEPTH_MAX) throw this.#malformed(at, 'it is nested too deeply');
    this.#lists[this.#depth++] = isList ? 1 : 0;
    this.#next = isList ? NEXT.valueOrClose : NEXT.keyOrClose;
    this.#events.open(isList);
  }

  #close(isList: boolean, at: number): void {
    const first = isList ? NEXT.valueOrClose : NEXT.keyOrClose;
    const fits = this.#depth > 0 && (this.#lists[this.#depth - 1] === 1) === isList;
    if (!fits || (this.#next !== NEXT.commaOrClose && this.#next !== first))
      throw this.#wrong(at, 'a bracket');
    this.#depth -= 1;
    this.#events.close(isList);
    this.#ended();
  }

  #ended(): void {
    this.#next = this.#depth === 0 ? NEXT.nothing : NEXT.commaOrClose;
  }

  /** Reports whether the string at `at` is a key. Throws if no string may begin there. */
  #isKey(at: number): boolean {
    switch (this.#next) {
      case NEXT.key:
      case NEXT.keyOrClose:
        return true;
      case NEXT.value:
      case NEXT.valueOrClose:
        return false;
      default:
        throw this.#wrong(at, 'a string');
    }
  }

  #string(buffer: Buffer, at: number): number {
    const isKey = this.#isKey(at);
    const start = at + 1;
    const stop = stopIn(buffer, start);
    this.#isEscaped = false;
    const end = buffer[stop] === QUOTE ? stop : this.#stringEnd(buffer, stop);
    if (end >= 0 && end - start <= SHORT_STRING_BYTES_MAX) {
      const bytes = buffer.subarray(start, end);
      this.#stringEnded(isKey);
      if (isKey) this.#events.key(bytes, this.#isEscaped);
      else this.#events.string(bytes, this.#isEscaped);
      return end + 1;
    }
    if (end < 0 && buffer.length - start <= SHORT_STRING_BYTES_MAX) {
      this.#waiting = true;
      return at;
    }
    // A string is reported in pieces by its own length, never because of where chunks end.
    this.#longBytes = 0;
    this.#longAt = this.#base + start;
    this.#longIsKey = isKey;
    // It is read from its start again.
    this.#control = -1;
    this.#backslash = -1;
    return start;
  }

  /**
   * Validates a string from `from` on. Returns the place of its closing quote, or the complement of the place up to
   * which the string is known.
   */
  #stringEnd(buffer: Buffer, from: number): number {
    let quote = buffer.indexOf(QUOTE, from);
    if (quote < 0) quote = buffer.length;
    let known = quote;
    for (let at = from; ; ) {
      if (this.#backslash < at) this.#backslash = nextByte(buffer, at, BACKSLASH);
      if (quote < this.#backslash || this.#backslash === buffer.length) break;
      this.#isEscaped = true;
      known = this.#backslash;
      at = this.#escapeEnd(buffer, known);
      if (at < 0) break;
      if (quote < at) quote = nextByte(buffer, at, QUOTE);
      known = quote;
    }
    if (this.#control < from && !(this.trustsPieces && this.#longBytes >= 0))
      this.#control = this.#controls.next(from);
    if (this.#control >= from && this.#control < known) {
      const code = (buffer[this.#control] as number).toString(16).padStart(4, '0');
      throw this.#malformed(this.#control, `a text contains the control character U+${code}`);
    }
    return known === quote && quote < buffer.length ? quote : ~known;
  }

  /** Validates the escape at `at`. Returns its end, or -1 if it is unfinished. */
  #escapeEnd(buffer: Buffer, at: number): number {
    const letter = buffer[at + 1];
    if (letter === undefined) return -1;
    const length = ESCAPE_BYTES[letter] as number;
    if (length === 0) throw this.#malformed(at, 'a text contains an escape that is not valid');
    for (let i = at + 2; i < at + length; i++) {
      const digit = buffer[i];
      if (digit === undefined) return -1;
      if (!isHexDigit(digit)) throw this.#malformed(at, 'a text contains an escape that is not valid');
    }
    return at + length;
  }

  #stringEnded(isKey: boolean): void {
    if (isKey) this.#next = NEXT.colon;
    else this.#ended();
  }

  #longString(buffer: Buffer, from: number): number {
    const end = this.#stringEnd(buffer, from);
    const until = end < 0 ? ~end : end;
    this.#longBytes += until - from;
    if (until > from) this.#events.piece(buffer.subarray(from, until));
    if (end < 0) {
      // The rest is the beginning of an escape.
      this.#waiting = true;
      return until;
    }
    const length = this.#longBytes;
    this.#longBytes = -1;
    this.#stringEnded(this.#longIsKey);
    this.#events.long(length, this.#longIsKey);
    return end + 1;
  }

  #bare(buffer: Buffer, at: number): number {
    if (this.#base + at === 0 && buffer[at] === BYTE_ORDER_MARK[0]) return this.#byteOrderMark(buffer);
    if (this.#next !== NEXT.value && this.#next !== NEXT.valueOrClose) throw this.#wrong(at, 'a word');
    let end = at;
    while (end < buffer.length && isBare(buffer[end] as number)) end += 1;
    if (end - at > BARE_BYTES_MAX || end === at) throw this.#wrong(at, 'something that is no value');
    if (end === buffer.length) {
      this.#waiting = true;
      return at;
    }
    const text = buffer.toString('latin1', at, end);
    if (!BARE.test(text)) throw this.#wrong(at, `"${text.slice(0, 40)}"`);
    if (
      text.length > INTEGER_DIGITS_MAX &&
      INTEGER.test(text) &&
      text.replace('-', '').length > INTEGER_DIGITS_MAX
    )
      throw this.#malformed(at, `an integer has more than ${INTEGER_DIGITS_MAX} digits`);
    this.#ended();
    this.#events.bare(text);
    return end;
  }

  #byteOrderMark(buffer: Buffer): number {
    const first = buffer.subarray(0, BYTE_ORDER_MARK.length);
    if (!BYTE_ORDER_MARK.subarray(0, first.length).equals(first))
      throw this.#wrong(0, 'something that is no value');
    if (!this.#mayHaveMark)
      throw this.#malformed(0, 'it begins with a byte-order mark, which its reader refuses');
    if (first.length === BYTE_ORDER_MARK.length) return first.length;
    this.#waiting = true;
    return 0;
  }

  #wrong(at: number, what: string): LayoutError {
    return this.#malformed(at, `${what} does not belong there`);
  }

  #malformed(at: number, state: string): LayoutError {
    return new LayoutError('malformed', this.#base + at, state);
  }
}

/** Base of the readers of one JSON layout, which receives the tokens of its own text. */
export abstract class LayoutReader implements ChunkReader, JsonEvents {
  readonly #json: JsonReader;

  constructor(options: JsonOptions = {}) {
    this.#json = new JsonReader(this, options);
  }

  feed(chunk: Buffer): void {
    this.#json.feed(chunk);
  }

  end(): void {
    this.#json.end();
  }

  protected get longAt(): number | undefined {
    return this.#json.longAt;
  }

  /** States whether this reader refuses control characters in the pieces of a string itself. */
  protected set trustsPieces(isTrusted: boolean) {
    this.#json.trustsPieces = isTrusted;
  }

  protected skipEntries(depth: number, bytes: number): boolean {
    return this.#json.skipEntries(depth, bytes);
  }

  protected skipInString(bytes: number): boolean {
    return this.#json.skipInString(bytes);
  }

  abstract open(isList: boolean): void;
  abstract close(isList: boolean): void;
  abstract key(bytes: Buffer, escaped: boolean): void;
  abstract string(bytes: Buffer, escaped: boolean): void;
  abstract piece(bytes: Buffer): void;
  abstract long(length: number, isKey: boolean): void;
  abstract bare(text: string): void;
}

/** Returns the place of the first byte from `from` on that is not plain text, or of a byte behind the next few. */
function stopIn(buffer: Buffer, from: number): number {
  const near = Math.min(from + NEAR_BYTES, buffer.length);
  let at = from;
  while (at < near && STOPS[buffer[at] as number] === 0) at += 1;
  return at;
}

function isHexDigit(byte: number): boolean {
  return (byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x46) || (byte >= 0x61 && byte <= 0x66);
}

/** Reports whether a byte is a letter, digit, sign or dot. */
function isBare(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    (byte >= 0x41 && byte <= 0x5a) ||
    byte === 0x2d ||
    byte === 0x2b ||
    byte === 0x2e
  );
}
