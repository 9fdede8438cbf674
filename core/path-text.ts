// Apart from path.ts, as errors.ts needs it too.
/** Returns the length of the UTF-8 sequence at `i`, or 0 if there is none (RFC 3629). */
export function sequenceLength(path: string, i: number): number {
  const first = path.charCodeAt(i);
  if (first < 0x80) return 1;
  const length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (length === 0 || i + length > path.length) return 0;
  for (let k = 1; k < length; k++) if ((path.charCodeAt(i + k) & 0xc0) !== 0x80) return 0;
  const second = path.charCodeAt(i + 1);
  const overlong = (first === 0xe0 && second < 0xa0) || (first === 0xf0 && second < 0x90);
  const surrogate = first === 0xed && second >= 0xa0;
  const beyond = first === 0xf4 && second >= 0x90;
  return overlong || surrogate || beyond ? 0 : length;
}

/** Returns a path as shown to people and in JSON: UTF-8 as it is, other bytes and the backslash as `\xNN`. */
export function pathText(path: string): string {
  let text = '';
  for (let i = 0; i < path.length; ) {
    const length = path[i] === '\\' ? 0 : sequenceLength(path, i);
    if (length === 0) {
      text += `\\x${path.charCodeAt(i).toString(16).padStart(2, '0')}`;
      i += 1;
    } else {
      text += Buffer.from(path.slice(i, i + length), 'latin1').toString('utf8');
      i += length;
    }
  }
  return text;
}

/** Returns `pathText` of raw bytes. */
export function bytesText(bytes: Uint8Array): string {
  return pathText(Buffer.from(bytes).toString('latin1'));
}
