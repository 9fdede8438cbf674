import { APOSTROPHE, GREATER, QUOTE } from './xml-characters.ts';
import { nameParts } from './xml-namespaces.ts';

const OPEN_BRACKET = 0x5b;

/** The encodings of a document that are read: `ascii` stands for every one whose lower half is ASCII. */
export type Encoding = 'utf-8' | 'ascii';

const XML_DECLARATION =
  /^<\?xml[ \t\r\n]+version[ \t\r\n]*=[ \t\r\n]*(?:"[\w.-]*"|'[\w.-]*')(?:[ \t\r\n]+encoding[ \t\r\n]*=[ \t\r\n]*(?:"([A-Za-z][\w.-]*)"|'([A-Za-z][\w.-]*)'))?(?:[ \t\r\n]+standalone[ \t\r\n]*=[ \t\r\n]*(?:"(?:yes|no)"|'(?:yes|no)'))?[ \t\r\n]*\?>$/;
/** Encodings of one byte a character, without punctuation at the ends, whose lower half is ASCII. */
const ASCII_ENCODING =
  /^(?:(?:us_)?ascii|646|u8|utf(?:_?8)?|l1|latin_?1?|iso_?8859_?1|iso_8859_\d{1,2}|(?:windows_|cp)125[0-8]|koi8_[ru])$/;
const DOCTYPE =
  /^<!DOCTYPE[ \t\r\n]+([^ \t\r\n>"'[]+)(?:[ \t\r\n]+(?:(SYSTEM)[ \t\r\n]+(?:"[^"]*"|'[^']*')|(PUBLIC)[ \t\r\n]+(?:"[-\w \r\n'()+,./:=?;!*#@$%]*"|'[-\w \r\n()+,./:=?;!*#@$%]*')[ \t\r\n]+(?:"[^"]*"|'[^']*')))?[ \t\r\n]*>$/;

/** Returns the encoding that an XML declaration names, or what is wrong with it. */
export function declaredEncoding(declaration: string): Encoding | { readonly flaw: string } {
  const found = XML_DECLARATION.exec(declaration);
  if (found === null) return { flaw: 'the XML declaration is not well-formed' };
  const name = found[1] ?? found[2] ?? 'utf-8';
  if (name.toLowerCase() === 'utf-8') return 'utf-8';
  // Python finds an encoding by its letters and digits.
  const alias = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '_')
    .replace(/_$/, '');
  return ASCII_ENCODING.test(alias)
    ? 'ascii'
    : { flaw: `the encoding "${name.slice(0, 40)}" is not supported` };
}

/** A DOCTYPE without declarations of its own. */
export interface Doctype {
  /** Whether it refers to a file, which no reader opens. */
  readonly isExternal: boolean;
}

/** Returns the end of the DOCTYPE at `at`, or of the part before its declarations; -1 if the buffer ends first. */
export function doctypeEnd(buffer: Buffer, at: number): number {
  let quote = 0;
  for (let i = at; i < buffer.length; i++) {
    const byte = buffer[i] as number;
    if (quote !== 0) {
      if (byte === quote) quote = 0;
    } else if (byte === QUOTE || byte === APOSTROPHE) quote = byte;
    else if (byte === GREATER || byte === OPEN_BRACKET) return i + 1;
  }
  return -1;
}

/** Parses a DOCTYPE. Returns what is wrong with it as a string. */
// Declarations could define entities, and no version of LightRAG writes any.
export function doctypeOf(bytes: Buffer): Doctype | string {
  if (bytes.at(-1) === OPEN_BRACKET) return 'a DOCTYPE with declarations of its own is not supported';
  const [, name = '', system, published] = DOCTYPE.exec(bytes.toString('utf8')) ?? [];
  if (nameParts(name) === undefined) return 'the DOCTYPE is not well-formed';
  return { isExternal: system !== undefined || published !== undefined };
}
