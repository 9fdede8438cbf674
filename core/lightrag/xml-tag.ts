import type { LayoutError } from './chunk-reader.ts';
import {
  AMPERSAND,
  APOSTROPHE,
  EQUALS,
  GREATER,
  isAt,
  LESS,
  nameEnd,
  QUOTE,
  referenceAt,
  SLASH,
  spaceEnd,
  valueStop,
  XmlText,
} from './xml-characters.ts';
import { nameParts } from './xml-namespaces.ts';

/** Attributes after which a set finds a repeated name. */
const FEW_ATTRIBUTES = 32;
const DECLARATION = 'xmlns';

/** Names that need no string of their own. */
const KNOWN: readonly (readonly [bytes: Buffer, name: string])[] = [
  'data',
  'key',
  'node',
  'edge',
  'id',
  'source',
  'target',
  'graph',
  'graphml',
  'default',
  'for',
  'attr.name',
  'attr.type',
  'edgedefault',
].map((name) => [Buffer.from(name), name] as const);

/** Makes the error for what is wrong at an offset in the buffer. */
export type Fail = (at: number, state: string) => LayoutError;

/** An opening tag. It is valid while its element is announced. */
export class XmlTag {
  /** Name as written, with its prefix. */
  qualifiedName = '';
  /** Name without its prefix. */
  name = '';
  /** Namespace; empty for none. */
  uri = '';
  /** Whether it is the whole element. */
  isEmpty = false;
  /** Number of attributes, declarations of namespaces included. */
  count = 0;
  /** Whether it is written without attributes and white space. */
  isBare = false;
  /** Whether a name in it has a prefix, or it declares a namespace. */
  hasPrefixes = false;
  /** Whether an unknown entity in a value is nothing, as after a DOCTYPE that refers to another file. */
  skipsEntities = false;
  #buffer: Buffer = Buffer.alloc(0);
  readonly #names: string[] = [];
  readonly #from: number[] = [];
  readonly #to: number[] = [];
  readonly #isRaw: boolean[] = [];
  readonly #text = new XmlText();

  /** Reads the tag at `at`. Returns its end, or -1 if the buffer ends first. */
  read(buffer: Buffer, at: number, fail: Fail): number {
    this.#buffer = buffer;
    this.count = 0;
    this.hasPrefixes = false;
    let end = nameEnd(buffer, at + 1);
    if (end === buffer.length) return -1;
    this.qualifiedName = this.#nameAt(at + 1, end, fail);
    this.name = this.qualifiedName;
    this.isBare = buffer[end] === GREATER;
    for (;;) {
      const from = spaceEnd(buffer, end);
      const byte = buffer[from];
      if (byte === undefined) return -1;
      this.isEmpty = byte === SLASH;
      if (byte === GREATER) return from + 1;
      if (byte === SLASH) {
        if (from + 1 === buffer.length) return -1;
        if (buffer[from + 1] !== GREATER) throw fail(from, 'a tag is not well-formed');
        return from + 2;
      }
      if (from === end) throw fail(from, 'a tag is not well-formed');
      end = this.#attributeAt(from, fail);
      if (end < 0) return -1;
    }
  }

  /** Returns the value of an attribute without a prefix; undefined without one. */
  attribute(name: string): Buffer | undefined {
    for (let i = 0; i < this.count; i++) if (this.#names[i] === name) return this.#value(i);
    return undefined;
  }

  /** Reports whether an attribute has a value, or is absent if that is undefined. */
  hasValue(name: string, value: Buffer | undefined): boolean {
    const i = this.#names.indexOf(name);
    if (i < 0 || i >= this.count || value === undefined)
      return (i < 0 || i >= this.count) === (value === undefined);
    if (this.#isRaw[i] !== true) return this.#value(i).equals(value);
    const from = this.#from[i] as number;
    return (this.#to[i] as number) - from === value.length && isAt(this.#buffer, from, value);
  }

  /** Returns the value of an attribute as a string; undefined without one. */
  text(name: string): string | undefined {
    return this.attribute(name)?.toString('utf8');
  }

  /** Names of all attributes, as written. */
  get names(): readonly string[] {
    return this.#names.slice(0, this.count);
  }

  #value(i: number): Buffer {
    const bytes = this.#buffer.subarray(this.#from[i], this.#to[i]);
    return this.#isRaw[i] === true ? bytes : Buffer.from(this.#text.decode(bytes, true));
  }

  #nameAt(from: number, to: number, fail: Fail): string {
    for (const [bytes, name] of KNOWN)
      if (to - from === bytes.length && isAt(this.#buffer, from, bytes)) return name;
    const name = this.#buffer.toString('utf8', from, to);
    const parts = nameParts(name);
    if (parts === undefined) throw fail(from, 'a name is not well-formed');
    if (parts[0] !== '' || name === DECLARATION) this.hasPrefixes = true;
    return name;
  }

  /** Reads the attribute at `from`. Returns its end, or -1 if the buffer ends first. */
  #attributeAt(from: number, fail: Fail): number {
    const buffer = this.#buffer;
    const to = nameEnd(buffer, from);
    if (to === buffer.length) return -1;
    const name = this.#nameAt(from, to, fail);
    const equals = spaceEnd(buffer, to);
    if (equals === buffer.length) return -1;
    if (buffer[equals] !== EQUALS) throw fail(equals, 'an attribute has no value');
    const quoted = spaceEnd(buffer, equals + 1);
    const quote = buffer[quoted];
    if (quote === undefined) return -1;
    if (quote !== QUOTE && quote !== APOSTROPHE)
      throw fail(quoted, 'the value of an attribute has no quotes');
    const end = this.#valueEnd(quoted + 1, quote, fail);
    if (end < 0) return -1;
    if (this.#isRepeated(name)) throw fail(from, `the attribute "${name.slice(0, 40)}" is repeated`);
    const i = this.count++;
    this.#names[i] = name;
    this.#from[i] = quoted + 1;
    this.#to[i] = end;
    return end + 1;
  }

  /** Returns the place of the quote that ends a value, or -1 if the buffer ends first. */
  #valueEnd(from: number, quote: number, fail: Fail): number {
    const buffer = this.#buffer;
    let isRaw = true;
    for (let at = from; ; ) {
      at = valueStop(buffer, at);
      const byte = buffer[at];
      if (byte === undefined) return -1;
      if (byte === quote) {
        this.#isRaw[this.count] = isRaw;
        return at;
      }
      if (byte === LESS) throw fail(at, 'the value of an attribute contains "<"');
      if (byte === AMPERSAND) {
        const found = referenceAt(buffer, at);
        if (found === undefined) return -1;
        if (found === 'wrong' || (found.code < 0 && !this.skipsEntities))
          throw fail(at, 'the value of an attribute contains an unknown entity');
        at = found.end;
      } else at += 1;
      if (byte !== QUOTE && byte !== APOSTROPHE) isRaw = false;
    }
  }

  #isRepeated(name: string): boolean {
    if (this.count > FEW_ATTRIBUTES) return this.#isRepeatedAmongMany(name);
    for (let i = 0; i < this.count; i++) if (this.#names[i] === name) return true;
    return false;
  }

  #seen = new Set<string>();

  #isRepeatedAmongMany(name: string): boolean {
    if (this.count === FEW_ATTRIBUTES + 1) this.#seen = new Set(this.names);
    if (this.#seen.has(name)) return true;
    this.#seen.add(name);
    return false;
  }
}
