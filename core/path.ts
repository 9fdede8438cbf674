import { LightkeeperError } from './errors.ts';
import { pathText, sequenceLength } from './path-text.ts';

export { bytesText, pathText } from './path-text.ts';

/** Longest path in a manifest, in bytes. */
export const PATH_BYTES_MAX = 4096;
/** Longest name between two slashes, in bytes. */
export const NAME_BYTES_MAX = 255;

/** Folder in a protected directory for Lightkeeper's own files. */
export const OWN_FOLDER = '.lightkeeper';

/** Name of the file that marks a directory whose restore has not ended. */
export const INCOMPLETE_MARK = '.lightkeeper-incomplete';

/** A path as a string with one character per byte (latin1). Convert with `pathBytes` and `pathFromBytes`. */
// Any file name fits, two paths compare bytewise, and they are small.
export type BytePath = string;

/** Returns the bytes of a path, for the file system and for messages. */
export function pathBytes(path: BytePath): Buffer {
  return Buffer.from(path, 'latin1');
}

/** Returns the path that consists of these bytes. */
export function pathFromBytes(bytes: Uint8Array): BytePath {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

/** Returns why a path from a manifest must not be used, or undefined if it is safe. */
export function pathProblem(path: BytePath): string | undefined {
  if (path.length === 0) return 'it is empty';
  if (path.length > PATH_BYTES_MAX) return `it is longer than ${PATH_BYTES_MAX} bytes`;
  if (path.includes('\0')) return 'it holds a NUL byte';
  for (const name of path.split('/')) {
    if (name === '') return 'it is absolute or holds an empty name';
    if (name === '.' || name === '..') return 'it leaves its folder';
    if (name.length > NAME_BYTES_MAX) return `it holds a name longer than ${NAME_BYTES_MAX} bytes`;
  }
  return undefined;
}

/** Throws DAMAGED for a path that could leave the directory that it is restored to. */
export function checkPath(path: BytePath): void {
  const problem = pathProblem(path);
  if (problem !== undefined) {
    throw new LightkeeperError('DAMAGED', `Cannot use the path "${pathText(path)}": ${problem}`);
  }
}

/** Throws DAMAGED for a path that cannot be that of a captured name. */
export function checkCapturedPath(path: BytePath): void {
  checkPath(path);
  const [first] = path.split('/', 1);
  if (first === OWN_FOLDER || first === INCOMPLETE_MARK)
    throw new LightkeeperError('DAMAGED', `Cannot use the path "${pathText(path)}": it is Lightkeeper's own`);
}

/** Reports whether the bytes of a path are UTF-8. */
export function isUtf8(path: BytePath): boolean {
  for (let i = 0; i < path.length; ) {
    const length = sequenceLength(path, i);
    if (length === 0) return false;
    i += length;
  }
  return true;
}

/** Parses a path that `pathText` or a person wrote. */
export function pathFromText(text: string): BytePath {
  const bytes = Buffer.from(text, 'utf8').toString('latin1');
  return bytes.replace(/\\x([0-9a-f]{2})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  );
}

const SEQUENCE = '[\\xc2-\\xdf][\\x80-\\xbf]|[\\xe0-\\xef][\\x80-\\xbf]{2}|[\\xf0-\\xf4][\\x80-\\xbf]{3}';
/** Matches what `?` stands for: a character of any length, or a byte that is not part of one. */
const CHARACTER = `(?:${SEQUENCE}|(?!${SEQUENCE})[^/])`;

/**
 * Compiles a pattern into a test for paths.
 *
 * `*` and `?` match within a name, `**` matches across names, every other character matches itself. A pattern
 * without a slash also matches the last name alone. A pattern that matches a folder matches everything below it.
 */
export function pathMatcher(pattern: string): (path: BytePath) => boolean {
  const source = pathFromText(pattern.replace(/^\.?\/+|\/+$/g, ''));
  let regex = '';
  for (let i = 0; i < source.length; i++) {
    const character = source[i] as string;
    if (character === '*' && source[i + 1] === '*') {
      const slash = source[i + 2] === '/';
      regex += slash ? '(?:[^]*/)?' : '[^]*';
      i += slash ? 2 : 1;
    } else if (character === '*') regex += '[^/]*';
    else if (character === '?') regex += CHARACTER;
    else regex += character.replace(/[\\^$.|+()[\]{}]/g, '\\$&');
  }
  const whole = new RegExp(`^${source.includes('/') ? '' : '(?:[^]*/)?'}${regex}(?:/[^]*)?$`);
  return (path) => whole.test(path);
}
