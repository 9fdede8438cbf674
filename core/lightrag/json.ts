import { type ChunkReader, LayoutError, Remainder, SHORT_STRING_BYTES_MAX } from './chunk-reader.ts';

/** Most nested lists and maps. */
// No writer of these files nests deeper; Python gives up at about a thousand.
const DEPTH_MAX = 500;
/** Most bytes of a number or word. */
const BARE_BYTES_MAX = 400;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const [OPEN_MAP, CLOSE_MAP, OPEN_LIST, CLOSE_LIST] = [0x7b, 0x7d, 0x5b, 0x5d];
const [COLON, COMMA] = [0x3a, 0x2c];
/** Numbers and words of JSON, and NaN and Infinity, which Python writes. */
const BARE = /^(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null|NaN|-?Infinity)$/;

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
  if (!escaped) return bytes;
  try {
    return Buffer.from(JSON.parse(`"${bytes.toString('utf8')}"`) as string, 'utf8');
  } catch {
    // The escape is invalid: the text as written is as good a name as any.
    return bytes;
  }
}

/**
 * Reads a JSON text of any size in chunks, in the memory of one short string.
 *
 * Follows RFC 8259, but accepts NaN and Infinity, and does not validate UTF-8 and escapes.
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
  /** Whether the next byte is escaped. */
  #escapeOpen = false;

  constructor(events: JsonEvents) {
    this.#events = events;
  }

  feed(chunk: Buffer): void {
    const buffer = this.#rest.join(chunk);
    let at = 0;
    this.#waiting = false;
    while (at < buffer.length && !this.#waiting)
      at = this.#longBytes < 0 ? this.#token(buffer, at) : this.#longString(buffer, at);
    this.#base += at;
    this.#rest.save(buffer, Math.min(at, buffer.length));
  }

  /** Offset in the file of the unbuffered string under way; undefined outside of one. */
  get longAt(): number | undefined {
    return this.#longBytes < 0 ? undefined : this.#longAt;
  }

  /** Skips bytes of such a string that contain neither its end nor an escape. */
  skipInString(bytes: number): void {
    this.#longBytes += bytes;
    this.#base += bytes;
    this.#escapeOpen = false;
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
    throw at === 0
      ? new LayoutError('empty', 0, 'it is empty')
      : new LayoutError('cut', at, 'it ends in the middle');
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
    if (this.#depth === DEPTH_MAX)
      throw new LayoutError('malformed', this.#base + at, 'it is nested too deeply');
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
    const end = closingQuote(buffer, start);
    if (end >= 0 && end - start <= SHORT_STRING_BYTES_MAX) {
      const bytes = buffer.subarray(start, end);
      this.#stringEnded(isKey);
      if (isKey) this.#events.key(bytes, bytes.includes(BACKSLASH));
      else this.#events.string(bytes, bytes.includes(BACKSLASH));
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
    this.#escapeOpen = false;
    return start;
  }

  #stringEnded(isKey: boolean): void {
    if (isKey) this.#next = NEXT.colon;
    else this.#ended();
  }

  #longString(buffer: Buffer, from: number): number {
    const start = this.#escapeOpen ? from + 1 : from;
    const end = closingQuote(buffer, start);
    const until = end < 0 ? buffer.length : end;
    this.#longBytes += until - from;
    this.#events.piece(buffer.subarray(from, until));
    if (end < 0) {
      this.#escapeOpen = backslashesBefore(buffer, until, start) % 2 === 1;
      return until;
    }
    const length = this.#longBytes;
    this.#longBytes = -1;
    this.#stringEnded(this.#longIsKey);
    this.#events.long(length, this.#longIsKey);
    return end + 1;
  }

  #bare(buffer: Buffer, at: number): number {
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
    this.#ended();
    this.#events.bare(text);
    return end;
  }

  #wrong(at: number, what: string): LayoutError {
    return new LayoutError('malformed', this.#base + at, `${what} does not belong there`);
  }
}

/** Base of the readers of one JSON layout, which receives the tokens of its own text. */
export abstract class LayoutReader implements ChunkReader, JsonEvents {
  readonly #json = new JsonReader(this);

  feed(chunk: Buffer): void {
    this.#json.feed(chunk);
  }

  end(): void {
    this.#json.end();
  }

  protected get longAt(): number | undefined {
    return this.#json.longAt;
  }

  protected skipEntries(depth: number, bytes: number): boolean {
    return this.#json.skipEntries(depth, bytes);
  }

  protected skipInString(bytes: number): void {
    this.#json.skipInString(bytes);
  }

  abstract open(isList: boolean): void;
  abstract close(isList: boolean): void;
  abstract key(bytes: Buffer, escaped: boolean): void;
  abstract string(bytes: Buffer, escaped: boolean): void;
  abstract piece(bytes: Buffer): void;
  abstract long(length: number, isKey: boolean): void;
  abstract bare(text: string): void;
}

/** Returns the place of the next unescaped quote, or -1. Bytes before `start` escape nothing. */
function closingQuote(buffer: Buffer, start: number): number {
  for (let at = buffer.indexOf(QUOTE, start); at >= 0; at = buffer.indexOf(QUOTE, at + 1)) {
    if (buffer[at - 1] !== BACKSLASH || backslashesBefore(buffer, at, start) % 2 === 0) return at;
  }
  return -1;
}

function backslashesBefore(buffer: Buffer, end: number, floor: number): number {
  let at = end;
  while (at > floor && buffer[at - 1] === BACKSLASH) at -= 1;
  return end - at;
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
