import { type ChunkReader, LayoutError, Remainder } from './chunk-reader.ts';

/** Most bytes of an attribute's text; a longer one is skipped, as no check needs it. */
const TEXT_BYTES_MAX = 16 << 20;
/** Most bytes of a tag. */
const TAG_BYTES_MAX = 1 << 20;
const DEPTH_MAX = 64;

const [LESS, GREATER, QUOTE, APOSTROPHE, SLASH, AMPERSAND] = [0x3c, 0x3e, 0x22, 0x27, 0x2f, 0x26];
const [EXCLAMATION, QUESTION] = [0x21, 0x3f];
const DATA = 'data key="';
const KEY_BYTES_MAX = 64;
const PLAIN = /^\w+$/;
const ENTITIES: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };
const ATTRIBUTE = /\s+([\w.:-]+)\s*=\s*(?:"([^"<]*)"|'([^'<]*)')/y;
const TAG_NAME = /^[A-Za-z_][\w.:-]*/;

/**
 * Receives the nodes and edges of a graph in the order of the file.
 *
 * Texts are UTF-8, unescaped, and valid during the call only.
 */
export interface GraphEvents {
  node(id: Buffer): void;
  edge(source: Buffer, target: Buffer): void;
  /** Receives a requested attribute of the last node or edge, by its `attr.name`. */
  data(name: string, text: Buffer): void;
}

/**
 * Reads GraphML of any size, as networkx writes it, in chunks.
 *
 * Checks that tags nest and that attributes and requested texts can be read, but no more of well-formedness.
 */
// Keys are matched by `attr.name`, because their ids are not stable. A DOCTYPE is refused: it could define
// entities.
export class GraphReader implements ChunkReader {
  readonly #events: GraphEvents;
  /** Names of the requested attributes; undefined for all. */
  readonly #wanted: ReadonlySet<string> | undefined;
  /** `attr.name` by key id. */
  readonly #names = new Map<string, string>();
  readonly #open: string[] = [];
  readonly #rest = new Remainder();
  /** Offset of `#rest`, or of the chunk after it, in the file. */
  #base = 0;
  #waiting = false;
  #ended = false;
  /** The attribute whose text is being read; undefined outside of a requested one. */
  #attribute: string | undefined;
  #text: Buffer[] = [];
  #textBytes = 0;

  constructor(events: GraphEvents, wanted: readonly string[] | 'all') {
    this.#events = events;
    this.#wanted = wanted === 'all' ? undefined : new Set(wanted);
  }

  feed(chunk: Buffer): void {
    const buffer = this.#rest.join(chunk);
    let at = 0;
    this.#waiting = false;
    while (at < buffer.length && !this.#waiting)
      at = buffer[at] === LESS ? this.#markup(buffer, at) : this.#characters(buffer, at);
    this.#base += at;
    this.#rest.save(buffer, Math.min(at, buffer.length));
  }

  /** The attribute of each key id, as JSON. */
  get declarations(): string {
    return JSON.stringify([...this.#names]);
  }

  /** Skips whole nodes and edges. Returns false if the reader is within one. */
  skipRecords(bytes: number): boolean {
    if (this.#rest.length > 0 || this.#open.length !== 2 || this.#open[1] !== 'graph') return false;
    this.#base += bytes;
    return true;
  }

  end(): void {
    if (this.#ended && this.#rest.length === 0) return;
    const at = this.#base + this.#rest.length;
    throw at === 0
      ? new LayoutError('empty', 0, 'it is empty')
      : new LayoutError('cut', at, 'it ends in the middle');
  }

  #wrong(at: number, state: string): LayoutError {
    return new LayoutError('malformed', this.#base + at, state);
  }

  /** Reads text up to the next tag or the end of the chunk. */
  #characters(buffer: Buffer, at: number): number {
    const found = buffer.indexOf(LESS, at);
    const end = found < 0 ? buffer.length : found;
    const text = buffer.subarray(at, end);
    if (this.#open.length === 0 && !isBlank(text))
      throw this.#wrong(at, 'there is text outside of the graph');
    if (this.#attribute !== undefined) this.#addText(text);
    return end;
  }

  #addText(text: Buffer): void {
    this.#textBytes += text.length;
    if (this.#textBytes <= TEXT_BYTES_MAX) this.#text.push(Buffer.from(text));
    else this.#text = [];
  }

  #wait(at: number): number {
    this.#waiting = true;
    return at;
  }

  #markup(buffer: Buffer, at: number): number {
    const second = buffer[at + 1];
    if (second === undefined) return this.#wait(at);
    if (second === EXCLAMATION || second === QUESTION) return this.#special(buffer, at);
    const end = tagEnd(buffer, at + 1);
    if (end < 0) {
      if (buffer.length - at > TAG_BYTES_MAX) throw this.#wrong(at, 'a tag does not end');
      return this.#wait(at);
    }
    if (second === SLASH) this.#closeTag(this.#nameToClose(buffer, at + 2, end), at);
    else if (!this.#openData(buffer, at, end)) this.#openTag(buffer.toString('utf8', at + 1, end), at);
    return end + 1;
  }

  /** Returns the name in a closing tag. */
  // The usual name is compared bytewise, without making a string.
  #nameToClose(buffer: Buffer, from: number, end: number): string {
    const open = this.#open.at(-1) ?? '';
    return end - from === open.length && isText(buffer, from, open)
      ? open
      : buffer.toString('utf8', from, end).trim();
  }

  /** Reads a tag of the form `<data key="d0">` quickly. Returns false for any other tag. */
  // Most tags have this form.
  #openData(buffer: Buffer, at: number, end: number): boolean {
    const from = at + 1 + DATA.length;
    if (!isText(buffer, at + 1, DATA) || buffer[end - 1] !== QUOTE || end - from > KEY_BYTES_MAX)
      return false;
    const key = buffer.toString('latin1', from, end - 1);
    if (!PLAIN.test(key) || this.#open.length === 0 || this.#open.length === DEPTH_MAX) return false;
    this.#open.push('data');
    this.#beginData(key, at);
    return true;
  }

  #special(buffer: Buffer, at: number): number {
    const head = buffer.toString('latin1', at, at + 9);
    for (const [begin, end] of [
      ['<!--', '-->'],
      ['<?', '?>'],
      ['<![CDATA[', ']]>'],
    ] as const) {
      if (begin.startsWith(head) && head.length < begin.length) return this.#wait(at);
      if (head.startsWith(begin)) return this.#passOver(buffer, at, begin, end);
    }
    throw this.#wrong(at, 'a DOCTYPE is not supported');
  }

  #passOver(buffer: Buffer, at: number, begin: string, end: string): number {
    const found = buffer.indexOf(end, at + begin.length, 'latin1');
    if (found < 0) {
      if (buffer.length - at > TEXT_BYTES_MAX) throw this.#wrong(at, `"${begin}" does not end`);
      return this.#wait(at);
    }
    if (begin === '<![CDATA[' && this.#attribute !== undefined) {
      const text = buffer.toString('utf8', at + begin.length, found);
      this.#addText(Buffer.from(text.replaceAll('&', '&amp;')));
    }
    return found + end.length;
  }

  #openTag(tag: string, at: number): void {
    if (this.#ended) throw this.#wrong(at, 'there is a second root');
    const alone = tag.endsWith('/');
    const inner = alone ? tag.slice(0, -1) : tag;
    const name = TAG_NAME.exec(inner)?.[0];
    if (name === undefined) throw this.#wrong(at, 'there is a tag without a name');
    const attributes = this.#attributesOf(inner, name.length, at);
    if (this.#open.length === DEPTH_MAX) throw this.#wrong(at, 'it is nested too deeply');
    if (this.#open.length === 0 && name !== 'graphml') throw this.#wrong(at, 'it is not GraphML');
    this.#open.push(name);
    this.#begin(name, attributes, at);
    if (alone) this.#closeTag(name, at);
  }

  #begin(name: string, attributes: ReadonlyMap<string, string>, at: number): void {
    const get = (key: string) => {
      const value = attributes.get(key);
      if (value === undefined) throw this.#wrong(at, `a ${name} has no ${key}`);
      return value;
    };
    if (name === 'key') this.#names.set(get('id'), attributes.get('attr.name') ?? get('id'));
    else if (name === 'node') this.#events.node(Buffer.from(get('id')));
    else if (name === 'edge') this.#events.edge(Buffer.from(get('source')), Buffer.from(get('target')));
    else if (name === 'data') this.#beginData(get('key'), at);
  }

  #beginData(key: string, at: number): void {
    const attribute = this.#names.get(key);
    if (attribute === undefined) throw this.#wrong(at, `the key "${key}" is not declared`);
    if (this.#wanted?.has(attribute) !== false) this.#attribute = attribute;
  }

  #attributesOf(tag: string, from: number, at: number): Map<string, string> {
    const attributes = new Map<string, string>();
    ATTRIBUTE.lastIndex = from;
    let end = from;
    for (let match = ATTRIBUTE.exec(tag); match !== null; match = ATTRIBUTE.exec(tag)) {
      const [, name = '', double, single] = match;
      attributes.set(name, this.#decoded(double ?? single ?? '', at));
      end = ATTRIBUTE.lastIndex;
    }
    if (tag.slice(end).trim() !== '') throw this.#wrong(at, 'a tag is not well-formed');
    return attributes;
  }

  #decoded(text: string, at: number): string {
    if (!text.includes('&')) return text;
    return text.replaceAll(/&([^;&]*);?/g, (whole, name: string) => {
      const character = whole.endsWith(';') ? characterOf(name) : undefined;
      if (character === undefined) throw this.#wrong(at, `"${whole.slice(0, 20)}" is not a known entity`);
      return character;
    });
  }

  #closeTag(name: string, at: number): void {
    if (this.#open.pop() !== name) throw this.#wrong(at, `"</${name.slice(0, 40)}>" closes nothing`);
    if (name === 'data' && this.#attribute !== undefined) {
      if (this.#textBytes <= TEXT_BYTES_MAX) {
        const raw = Buffer.concat(this.#text);
        const text = raw.includes(AMPERSAND) ? Buffer.from(this.#decoded(raw.toString('utf8'), at)) : raw;
        this.#events.data(this.#attribute, text);
      }
      this.#attribute = undefined;
      this.#text = [];
      this.#textBytes = 0;
    }
    this.#ended = this.#open.length === 0;
  }
}

/** Returns the place of the ">" that ends a tag, outside of quotes; -1 if the chunk ends first. */
function tagEnd(buffer: Buffer, from: number): number {
  let quote = 0;
  for (let at = from; at < buffer.length; at++) {
    const byte = buffer[at];
    if (quote !== 0) {
      if (byte === quote) quote = 0;
    } else if (byte === QUOTE || byte === APOSTROPHE) quote = byte;
    else if (byte === GREATER) return at;
  }
  return -1;
}

/** Reports whether an ASCII text is at `at`. */
function isText(buffer: Buffer, at: number, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (buffer[at + i] !== text.charCodeAt(i)) return false;
  return true;
}

function characterOf(name: string): string | undefined {
  const [, hex, decimal] = /^#(?:x([0-9a-fA-F]{1,6})|([0-9]{1,7}))$/.exec(name) ?? [];
  const code = hex === undefined ? (decimal === undefined ? -1 : Number(decimal)) : Number.parseInt(hex, 16);
  if (code >= 0)
    return code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? String.fromCodePoint(code) : undefined;
  return Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : undefined;
}

function isBlank(text: Buffer): boolean {
  // Some editors write a byte-order mark first.
  return text.toString('utf8').replaceAll('\ufeff', '').trim() === '';
}
