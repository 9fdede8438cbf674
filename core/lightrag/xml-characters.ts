export const [LESS, GREATER, QUOTE, APOSTROPHE, SLASH] = [0x3c, 0x3e, 0x22, 0x27, 0x2f] as const;
export const [EXCLAMATION, QUESTION, EQUALS, AMPERSAND, BRACKET] = [0x21, 0x3f, 0x3d, 0x26, 0x5d] as const;
export const [TAB, LINE_FEED, RETURN, SPACE] = [0x09, 0x0a, 0x0d, 0x20] as const;
const [HASH, SEMICOLON, COLON] = [0x23, 0x3b, 0x3a] as const;
const FIRST_OF_MANY = 0x80;
const CODE_MAX = 0x10ffff;

const PREDEFINED: readonly (readonly [name: Buffer, character: number])[] = [
  ['lt;', '<'],
  ['gt;', '>'],
  ['amp;', '&'],
  ['quot;', '"'],
  ['apos;', "'"],
].map(([name = '', character = '']) => [Buffer.from(name), character.charCodeAt(0)] as const);

/** The kinds of byte in markup. */
const BYTES = new Uint8Array(256);
const [NAME, STOPS_VALUE] = [1, 2];
for (const byte of Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-:'))
  BYTES[byte] = NAME;
// Which of them are letters is decided once the name is known.
BYTES.fill(NAME, FIRST_OF_MANY);
for (const byte of [QUOTE, APOSTROPHE, LESS, AMPERSAND, TAB, LINE_FEED, RETURN]) BYTES[byte] = STOPS_VALUE;

export function isSpace(byte: number | undefined): boolean {
  return byte === SPACE || byte === LINE_FEED || byte === TAB || byte === RETURN;
}

/** Returns the end of a run of bytes that may be in a name. */
export function nameEnd(buffer: Buffer, from: number): number {
  let at = from;
  while (at < buffer.length && BYTES[buffer[at] as number] === NAME) at += 1;
  return at;
}

/** Returns the place of the next byte that may end an attribute's value or must be decoded in it. */
export function valueStop(buffer: Buffer, from: number): number {
  let at = from;
  while (at < buffer.length && BYTES[buffer[at] as number] !== STOPS_VALUE) at += 1;
  return at;
}

export function spaceEnd(buffer: Buffer, from: number): number {
  let at = from;
  while (at < buffer.length && isSpace(buffer[at])) at += 1;
  return at;
}

/** Reports whether bytes are at `at`. */
export function isAt(buffer: Buffer, at: number, bytes: Buffer): boolean {
  if (at + bytes.length > buffer.length) return false;
  for (let i = 0; i < bytes.length; i++) if (buffer[at + i] !== bytes[i]) return false;
  return true;
}

/** A reference to a character, or to an entity that is not predefined. */
export interface Reference {
  /** Offset of its end, exclusive. */
  readonly end: number;
  /** The character; -1 for an entity. */
  readonly code: number;
}

/** Parses the reference at `at`. Returns undefined if the buffer ends first, and `wrong` if it is no reference. */
export function referenceAt(buffer: Buffer, at: number): Reference | 'wrong' | undefined {
  for (const [name, code] of PREDEFINED)
    if (isAt(buffer, at + 1, name)) return { end: at + 1 + name.length, code };
  const first = buffer[at + 1];
  if (first === undefined) return undefined;
  if (first === HASH) return characterReferenceAt(buffer, at);
  const end = nameEnd(buffer, at + 1);
  if (end === at + 1 || buffer.subarray(at + 1, end).includes(COLON)) return 'wrong';
  if (end === buffer.length) return undefined;
  return buffer[end] === SEMICOLON ? { end: end + 1, code: -1 } : 'wrong';
}

function characterReferenceAt(buffer: Buffer, at: number): Reference | 'wrong' | undefined {
  const isHex = buffer[at + 2] === 0x78;
  const base = isHex ? 16 : 10;
  const from = at + (isHex ? 3 : 2);
  let code = 0;
  for (let i = from; i < buffer.length; i++) {
    const byte = buffer[i] as number;
    if (byte === SEMICOLON) return i > from && isCharacter(code) ? { end: i + 1, code } : 'wrong';
    const digit = digitOf(byte);
    if (digit >= base) return 'wrong';
    code = Math.min(code * base + digit, CODE_MAX + 1);
  }
  return undefined;
}

function digitOf(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x61 + 10 : Number.POSITIVE_INFINITY;
}

/** Reports whether XML allows a character. */
function isCharacter(code: number): boolean {
  if (code < SPACE) return code === TAB || code === LINE_FEED || code === RETURN;
  return code <= CODE_MAX && (code < 0xd800 || code > 0xdfff) && code !== 0xfffe && code !== 0xffff;
}

/** Most bytes of memory that are kept for the next text. */
const MEMORY_MAX = 1 << 20;
const MEMORY_MIN = 4096;

/** Decodes valid text, one piece after another, in the same memory. */
export class XmlText {
  #memory = Buffer.allocUnsafeSlow(MEMORY_MIN);

  /**
   * Decodes references and line ends, as a view that is valid until the next call.
   *
   * White space in an attribute becomes spaces, and an unknown entity nothing.
   */
  decode(bytes: Buffer, isAttribute: boolean): Buffer {
    if (bytes.length > this.#memory.length) this.#memory = Buffer.allocUnsafeSlow(bytes.length * 2);
    const out = this.#memory;
    let length = 0;
    for (let at = 0; at < bytes.length; ) {
      const byte = bytes[at] as number;
      if (byte === AMPERSAND) {
        const found = referenceAt(bytes, at);
        if (found === undefined || found === 'wrong') return bytes;
        if (found.code >= 0) length = putCharacter(out, length, found.code);
        at = found.end;
      } else if (byte === RETURN) {
        out[length++] = isAttribute ? SPACE : LINE_FEED;
        at += bytes[at + 1] === LINE_FEED ? 2 : 1;
      } else {
        out[length++] = isAttribute && (byte === LINE_FEED || byte === TAB) ? SPACE : byte;
        at += 1;
      }
    }
    if (out.length > MEMORY_MAX) this.#memory = Buffer.allocUnsafeSlow(MEMORY_MIN);
    return out.subarray(0, length);
  }
}

function putCharacter(out: Buffer, at: number, code: number): number {
  if (code < FIRST_OF_MANY) {
    out[at] = code;
    return at + 1;
  }
  return at + out.write(String.fromCodePoint(code), at, 'utf8');
}

/** Returns text with line ends as XML reads them. */
export function withLineFeeds(bytes: Buffer): Buffer {
  return bytes.includes(RETURN)
    ? Buffer.from(bytes.toString('latin1').replaceAll(/\r\n?/g, '\n'), 'latin1')
    : bytes;
}
