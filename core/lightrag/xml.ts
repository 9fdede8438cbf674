import { ControlBytes, nextByte } from './byte-search.ts';
import { type ChunkReader, LayoutError, Remainder } from './chunk-reader.ts';
import {
  AMPERSAND,
  BRACKET,
  EXCLAMATION,
  GREATER,
  isAt,
  isSpace,
  LESS,
  LINE_FEED,
  nameEnd,
  QUESTION,
  RETURN,
  referenceAt,
  SLASH,
  spaceEnd,
  TAB,
  withLineFeeds,
  XmlText,
} from './xml-characters.ts';
import { Namespaces, nameParts } from './xml-namespaces.ts';
import { declaredEncoding, doctypeEnd, doctypeOf, type Encoding } from './xml-prolog.ts';
import { XmlTag } from './xml-tag.ts';

/** Most bytes of a tag or another piece of markup that is read whole. */
const MARKUP_BYTES_MAX = 1 << 20;
const DEPTH_MAX = 10_000;

const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);
const FIRST_OF_MANY = 0x80;
/** The ends of U+FFFE and U+FFFF, which XML does not allow, and the byte before them. */
const NO_CHARACTERS: readonly Buffer[] = [Buffer.from([0xbf, 0xbe]), Buffer.from([0xbf, 0xbf])];
const NO_CHARACTER_BYTE = 0xef;
const SECTION_END = Buffer.from(']]>');
const DOCTYPE = Buffer.from('<!DOCTYPE');

/** Markup that is passed over: how it begins, and the bytes that may not be in it but at its end. */
const SPANS = {
  comment: { begin: Buffer.from('<!--'), stop: Buffer.from('--'), end: Buffer.from('-->') },
  section: { begin: Buffer.from('<![CDATA['), stop: SECTION_END, end: SECTION_END },
  instruction: { begin: Buffer.from('<?'), stop: Buffer.from('?>'), end: Buffer.from('?>') },
} as const;
type Span = keyof typeof SPANS;

/** Receives the elements of an XML document in order. Views of bytes are valid during the call only. */
export interface XmlEvents {
  /** Whether the next text is received. */
  readonly wantsText: boolean;
  open(tag: XmlTag): void;
  close(): void;
  /** Receives the next piece of text, decoded. */
  text(bytes: Buffer): void;
}

/**
 * Reads an XML document of any size in chunks, in the memory of one tag.
 *
 * Accepts what expat accepts in Python's ElementTree, but for declarations within a DOCTYPE and encodings other than
 * UTF-8 and ASCII. UTF-8 is validated by `Utf8Reader`.
 */
export class XmlReader implements ChunkReader {
  readonly #events: XmlEvents;
  readonly #tag = new XmlTag();
  readonly #namespaces = new Namespaces();
  #defaultUri = '';
  /** Names of the open elements, as written. */
  readonly #open: string[] = [];
  readonly #rest = new Remainder();
  /** Offset of `#rest`, or of the chunk after it, in the file. */
  #base = 0;
  #waiting = false;
  #ended = false;
  /** Markup that is being passed over. */
  #span: Span | undefined;
  #hasDoctype = false;
  #encoding: Encoding = 'utf-8';
  readonly #controls = new ControlBytes();
  readonly #text = new XmlText();
  /** The last two bytes of the chunk before. */
  #before: Buffer = Buffer.alloc(0);
  /** Offsets in the buffer of the next ampersand and section end; before the current place if unknown. */
  #ampersand = -1;
  #sectionEnd = -1;
  #documentAt = 0;
  #tagAt = 0;

  constructor(events: XmlEvents) {
    this.#events = events;
  }

  feed(chunk: Buffer): void {
    this.#checkCharacters(chunk);
    const buffer = this.#rest.join(chunk);
    let at = 0;
    this.#waiting = false;
    this.#ampersand = -1;
    this.#sectionEnd = -1;
    while (at < buffer.length && !this.#waiting) {
      if (this.#span !== undefined) at = this.#passOver(buffer, at, this.#span);
      else if (buffer[at] === LESS) at = this.#markup(buffer, at);
      else at = this.#characters(buffer, at);
    }
    this.#base += at;
    this.#rest.save(buffer, Math.min(at, buffer.length));
  }

  /** Number of open elements. */
  get depth(): number {
    return this.#open.length;
  }

  /** Skips whole elements. Returns false within markup. */
  skip(bytes: number): boolean {
    if (this.#rest.length > 0 || this.#span !== undefined) return false;
    this.#base += bytes;
    this.#before = Buffer.alloc(0);
    return true;
  }

  end(): void {
    if (this.#ended && this.#rest.length === 0 && this.#span === undefined) return;
    const at = this.#base + this.#rest.length;
    throw at === 0
      ? new LayoutError('empty', 0, 'it is empty')
      : new LayoutError('cut', at, 'it ends in the middle');
  }

  /** Makes the error for what is wrong with the last tag. */
  wrongTag(state: string): LayoutError {
    return new LayoutError('malformed', this.#tagAt, state);
  }

  readonly #wrong = (at: number, state: string): LayoutError =>
    new LayoutError('malformed', this.#base + at, state);

  #wait(at: number): number {
    this.#waiting = true;
    return at;
  }

  /** Validates the characters that XML allows nowhere. */
  #checkCharacters(chunk: Buffer): void {
    const start = this.#rest.length;
    this.#controls.reset(chunk);
    for (let at = this.#controls.next(0); at < chunk.length; at = this.#controls.next(at + 1)) {
      const byte = chunk[at];
      if (byte !== LINE_FEED && byte !== RETURN && byte !== TAB) {
        const code = (byte as number).toString(16).padStart(4, '0');
        throw this.#wrong(start + at, `it contains the control character U+${code}`);
      }
    }
    const edge = Buffer.concat([this.#before, chunk.subarray(0, 2)]);
    if (hasNoCharacter(edge) || hasNoCharacter(chunk))
      throw this.#wrong(start, 'it contains U+FFFE or U+FFFF after this place');
    this.#before = Buffer.from(edge.length < 2 || chunk.length < 2 ? edge.subarray(-2) : chunk.subarray(-2));
    if (this.#encoding === 'ascii') this.#checkAscii(chunk, start);
  }

  #checkAscii(bytes: Buffer, start: number): void {
    const at = bytes.findIndex((byte) => byte >= FIRST_OF_MANY);
    if (at >= 0) throw this.#wrong(start + at, 'it is not in the encoding that it declares');
  }

  /** Reads text up to the next tag or the end of the chunk. */
  #characters(buffer: Buffer, at: number): number {
    if (this.#open.length > 0) return this.#content(buffer, at);
    if (this.#base + at === 0 && buffer[0] === BYTE_ORDER_MARK[0]) {
      const mark = buffer.subarray(0, BYTE_ORDER_MARK.length);
      if (mark.equals(BYTE_ORDER_MARK)) {
        this.#documentAt = mark.length;
        return mark.length;
      }
      if (mark.length < BYTE_ORDER_MARK.length && mark.equals(BYTE_ORDER_MARK.subarray(0, mark.length)))
        return this.#wait(0);
    }
    const end = spaceEnd(buffer, at);
    if (end < buffer.length && buffer[end] !== LESS)
      throw this.#wrong(end, 'there is text outside of the root');
    return end;
  }

  #content(buffer: Buffer, at: number): number {
    const end = nextByte(buffer, at, LESS);
    if (this.#sectionEnd < at) {
      const found = buffer.indexOf(SECTION_END, at);
      this.#sectionEnd = found < 0 ? buffer.length : found;
    }
    if (this.#sectionEnd < end) throw this.#wrong(this.#sectionEnd, 'a text contains "]]>"');
    let until = end;
    let hasReferences = false;
    for (let from = at; ; ) {
      if (this.#ampersand < from) this.#ampersand = nextByte(buffer, from, AMPERSAND);
      if (this.#ampersand >= end) break;
      hasReferences = true;
      const found = referenceAt(buffer, this.#ampersand);
      if (found === 'wrong' || (found !== undefined && found.code < 0))
        throw this.#wrong(this.#ampersand, 'a text contains an unknown entity');
      if (found === undefined) {
        until = this.#ampersand;
        break;
      }
      from = found.end;
    }
    if (until === buffer.length) until -= openBytes(buffer, at);
    if (this.#events.wantsText && until > at) {
      const bytes = buffer.subarray(at, until);
      const isPlain = !hasReferences && !bytes.includes(RETURN);
      this.#events.text(isPlain ? bytes : this.#text.decode(bytes, false));
    }
    if (until < end && buffer.length - until > MARKUP_BYTES_MAX)
      throw this.#wrong(until, 'an entity does not end');
    return until < end ? this.#wait(until) : until;
  }

  #markup(buffer: Buffer, at: number): number {
    const second = buffer[at + 1];
    if (second === undefined) return this.#wait(at);
    const end =
      second === EXCLAMATION
        ? this.#declaration(buffer, at)
        : second === QUESTION
          ? this.#instruction(buffer, at)
          : second === SLASH
            ? this.#closingTag(buffer, at)
            : this.#openingTag(buffer, at);
    if (end >= 0) return end;
    if (buffer.length - at > MARKUP_BYTES_MAX) throw this.#wrong(at, 'a tag does not end');
    return this.#wait(at);
  }

  #openingTag(buffer: Buffer, at: number): number {
    if (this.#ended) throw this.#wrong(at, 'there is a second root');
    const tag = this.#tag;
    const end = tag.read(buffer, at, this.#wrong);
    if (end < 0) return end;
    if (this.#open.length === DEPTH_MAX) throw this.#wrong(at, 'it is nested too deeply');
    this.#open.push(tag.qualifiedName);
    this.#tagAt = this.#base + at;
    if (tag.hasPrefixes) this.#resolve(tag);
    else tag.uri = this.#defaultUri;
    this.#events.open(tag);
    if (tag.isEmpty) this.#close();
    return end;
  }

  /** Enters the namespaces that a tag declares and finds those of its names. */
  #resolve(tag: XmlTag): void {
    const declared = new Map<string, string>();
    for (const name of tag.names) {
      if (name === 'xmlns') declared.set('', tag.text(name) ?? '');
      else if (name.startsWith('xmlns:')) declared.set(name.slice('xmlns:'.length), tag.text(name) ?? '');
    }
    const flaw = this.#namespaces.enter(this.#open.length, declared);
    if (flaw !== undefined) throw this.wrongTag(flaw);
    this.#defaultUri = this.#namespaces.default;
    const resolved = (name: string, isElement: boolean) => {
      const [prefix, local] = nameParts(name) ?? ['', name];
      const uri = prefix === '' && !isElement ? '' : this.#namespaces.uriOf(prefix);
      if (uri === undefined) throw this.wrongTag(`the prefix "${prefix.slice(0, 40)}" is not declared`);
      return { uri, local };
    };
    const { uri, local } = resolved(tag.qualifiedName, true);
    tag.uri = uri;
    tag.name = local;
    const seen = new Set<string>();
    for (const name of tag.names) {
      if (!name.includes(':') || name.startsWith('xmlns:')) continue;
      const attribute = resolved(name, false);
      const expanded = `${attribute.uri}}${attribute.local}`;
      if (seen.has(expanded)) throw this.wrongTag(`the attribute "${name.slice(0, 40)}" is repeated`);
      seen.add(expanded);
    }
  }

  #closingTag(buffer: Buffer, at: number): number {
    const open = this.#open.at(-1) ?? '';
    const from = at + 2;
    const to = nameEnd(buffer, from);
    const end = spaceEnd(buffer, to);
    if (end === buffer.length) return -1;
    if (buffer[end] !== GREATER || open === '' || !isName(buffer, from, to, open))
      throw this.#wrong(at, `"${buffer.toString('utf8', at, Math.min(end, at + 40))}" closes nothing`);
    this.#close();
    return end + 1;
  }

  #close(): void {
    this.#events.close();
    if (this.#namespaces.depth === this.#open.length) {
      this.#namespaces.leave();
      this.#defaultUri = this.#namespaces.default;
    }
    this.#open.pop();
    this.#ended = this.#open.length === 0;
  }

  /** Reads a comment, a section or a DOCTYPE. */
  #declaration(buffer: Buffer, at: number): number {
    const isIn = this.#open.length > 0;
    for (const span of isIn ? (['comment', 'section'] as const) : (['comment'] as const)) {
      const { begin } = SPANS[span];
      if (isAt(buffer, at, begin)) {
        this.#span = span;
        return at + begin.length;
      }
      if (isStart(buffer, at, begin)) return -1;
    }
    if (isIn || this.#hasDoctype || this.#ended) throw this.#wrong(at, 'markup does not belong there');
    if (isStart(buffer, at, DOCTYPE)) return -1;
    if (!isAt(buffer, at, DOCTYPE)) throw this.#wrong(at, 'markup is not well-formed');
    const end = doctypeEnd(buffer, at);
    if (end < 0) return -1;
    const doctype = doctypeOf(buffer.subarray(at, end));
    if (typeof doctype === 'string') throw this.#wrong(at, doctype);
    this.#hasDoctype = true;
    this.#tag.skipsEntities = doctype.isExternal;
    return end;
  }

  /** Reads the XML declaration, or the start of a processing instruction. */
  #instruction(buffer: Buffer, at: number): number {
    const to = nameEnd(buffer, at + 2);
    if (to === buffer.length) return -1;
    const target = buffer.toString('utf8', at + 2, to);
    if (target === 'xml' && this.#base + at === this.#documentAt) return this.#xmlDeclaration(buffer, at);
    const isTarget = nameParts(target)?.[0] === '' && target.toLowerCase() !== 'xml';
    const next = buffer[to + 1];
    if (buffer[to] === QUESTION && next === undefined) return -1;
    if (!isTarget || !(isSpace(buffer[to]) || (buffer[to] === QUESTION && next === GREATER)))
      throw this.#wrong(at, 'a processing instruction is not well-formed');
    this.#span = 'instruction';
    return to;
  }

  #xmlDeclaration(buffer: Buffer, at: number): number {
    const found = buffer.indexOf(SPANS.instruction.end, at);
    if (found < 0) return -1;
    const end = found + SPANS.instruction.end.length;
    const encoding = declaredEncoding(buffer.toString('latin1', at, end));
    if (typeof encoding === 'object') throw this.#wrong(at, encoding.flaw);
    this.#encoding = encoding;
    if (encoding === 'ascii') this.#checkAscii(buffer.subarray(end), end);
    return end;
  }

  #passOver(buffer: Buffer, at: number, span: Span): number {
    const { stop, end } = SPANS[span];
    const found = buffer.indexOf(stop, at);
    if (found < 0) {
      const held = span === 'section' ? openBytes(buffer, at) : stop[0] === buffer.at(-1) ? 1 : 0;
      const until = Math.max(at, buffer.length - held);
      this.#section(buffer.subarray(at, until), span);
      return until < buffer.length ? this.#wait(until) : until;
    }
    if (found + end.length > buffer.length) return this.#wait(at);
    if (!isAt(buffer, found, end)) throw this.#wrong(found, 'a comment contains "--"');
    this.#section(buffer.subarray(at, found), span);
    this.#span = undefined;
    return found + end.length;
  }

  #section(bytes: Buffer, span: Span): void {
    if (span === 'section' && bytes.length > 0 && this.#events.wantsText)
      this.#events.text(withLineFeeds(bytes));
  }
}

/** Returns the number of bytes at the end of a text whose meaning depends on what follows. */
function openBytes(buffer: Buffer, from: number): number {
  const end = buffer.length;
  if (end > from && buffer[end - 1] === RETURN) return 1;
  let held = 0;
  while (held < 2 && end - held > from && buffer[end - held - 1] === BRACKET) held += 1;
  return held;
}

function isName(buffer: Buffer, from: number, to: number, name: string): boolean {
  let at = 0;
  if (to - from === name.length)
    while (at < name.length && buffer[from + at] === name.charCodeAt(at)) at += 1;
  // A name beyond ASCII has another length in bytes.
  return at === name.length || buffer.toString('utf8', from, to) === name;
}

/** Reports whether the buffer ends within bytes that begin at `at`. */
function isStart(buffer: Buffer, at: number, bytes: Buffer): boolean {
  const length = buffer.length - at;
  return length < bytes.length && isAt(buffer, at, bytes.subarray(0, length));
}

function hasNoCharacter(bytes: Buffer): boolean {
  return NO_CHARACTERS.some((end) => {
    for (let at = bytes.indexOf(end); at >= 0; at = bytes.indexOf(end, at + 1))
      if (bytes[at - 1] === NO_CHARACTER_BYTE) return true;
    return false;
  });
}
