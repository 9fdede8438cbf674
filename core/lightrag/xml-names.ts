/** Gaps and lengths of the ranges of characters, from U+0080 on, that may begin a name: numbers of base 36. */
// The fifth edition of XML allows more, and expat, which Python reads with, follows the fourth one (appendix B).
const START_RANGES =
  '1s n 1 v 1 1m 2 b 2 8 1 1h 1 1w 9 10 3 2 4 u 1k 2h i 7 5g 1 1 3 1 1 1 k 1 18 1 7 3 1 1 1 1 1 1 1 1 i' +
  ' d c 1 1u 1 c 1 10 e 1h 2 2 2 2 3 s 2 8 2 2 1j 12 2 1 7 12 21 r 5 3 1a q 6 a 12 1z 2 5 1 f 1 4 1 1 f' +
  ' 2 f2 1h 3 1 q a z 8 2 2 2 m 1 7 1 1 3 4 y 2 1 3 e 2 j 6 4 2 2 m 1 7 1 2 1 2 1 2 v 4 1 1 j 3 g 7 1 1' +
  ' 1 3 1 m 1 7 1 2 1 5 3 1 y 1 10 8 2 2 2 m 1 7 1 2 2 4 3 1 u 2 1 3 z 6 3 3 1 4 3 2 1 1 1 2 3 2 3 3 3' +
  ' 8 1 3 23 8 1 3 1 n 1 a 1 5 12 2 z 8 1 3 1 n 1 a 1 5 10 1 1 2 z 8 1 3 1 n 1 g 12 2 4f 1a 1 1 1 2 c 6' +
  ' 1n 2 1 1 2 2 1 1 2 1 6 4 1 7 1 3 1 1 1 1 2 2 1 2 1 1 1 2 9 1 2 5 3f 8 1 x 8m 12 a 13 9 1 1 2 1 3 1' +
  ' 1 1 2 1 5 15 1 1 1 1 1 b 1 1 1 1 1 3 2 3 1 5 3 1 1 1 1 1 1 1 1 3 2 3 2 1 1 14 1 9 1 2 1 2 2 7 2 1 1' +
  ' 1 7 14 1 4 1 8 1 2di 4c 4 2i 6 m 2 6 2 12 2 6 2 8 1 1 1 1 1 1 1 v 2 1h 1 7 1 1 3 3 1 7 3 4 2 6 4 d' +
  ' 5 3 1 7 89 1 3 2 2 1 29 3 2v8 1 p 9 n 2c c 2i a 14 5oz g4m 2fu 8mc';
/** The same of the characters that a name may contain. */
const NAME_RANGES =
  '1j 1 8 n 1 v 1 1m 2 b 2 8 1 1h 1 1w 9 10 3 2 4 u 1k 2h i 7 e 2 1a 1y q 2 10 5 1 1 1 k 1 18 1 7 3 1 1' +
  ' 1 1 1 1 1 1 i d c 1 1u 1 c 1 10 1 4 9 1h 2 2 2 2 3 s 2 8 2 2 1j 12 2 1 7 12 a h 1 n 1 3 1 1 1 2 1 1' +
  ' b r 5 3 1a q 5 j d a 6 20 2 5 1 f 1 4 1 k 1 4 2 a ef 3 1 1h 2 i 3 4 3 c 2 a h 3 1 8 2 2 2 m 1 7 1 1' +
  ' 3 4 2 1 1 7 2 2 2 3 9 1 4 2 1 5 2 c g 1 2 6 4 2 2 m 1 7 1 2 1 2 1 2 2 1 1 5 4 2 2 3 b 4 1 1 7 f c 3' +
  ' 1 7 1 1 1 3 1 m 1 7 1 2 1 5 2 a 1 3 1 3 i 1 5 a h 3 1 8 2 2 2 m 1 7 1 2 2 4 2 8 3 2 2 3 8 2 4 2 1 3' +
  ' 4 a i 2 1 6 3 3 1 4 3 2 1 1 1 2 3 2 3 3 3 8 1 3 4 5 3 3 1 4 9 1 f 9 h 3 1 8 1 3 1 n 1 a 1 5 4 7 1 3' +
  ' 1 4 7 2 9 2 4 a i 2 1 8 1 3 1 n 1 a 1 5 4 7 1 3 1 4 7 2 7 1 1 2 4 a i 2 1 8 1 3 1 n 1 g 4 6 2 3 1 4' +
  ' 9 1 8 2 4 a 41 1a 1 b 5 f 1 a 13 2 1 1 2 2 1 1 2 1 6 4 1 7 1 3 1 1 1 1 2 2 1 2 1 a 1 3 2 5 1 1 1 6' +
  ' 2 a 1q 2 6 a b 1 1 1 1 1 4 a 1 x 7 k 1 6 4 6 1 1 1 l 3 7 1 1 6e 12 a 13 9 1 1 2 1 3 1 1 1 2 1 5 15' +
  ' 1 1 1 1 1 b 1 1 1 1 1 3 2 3 1 5 3 1 1 1 1 1 1 1 1 3 2 3 2 1 1 14 1 9 1 2 1 2 2 7 2 1 1 1 7 14 1 4 1' +
  ' 8 1 2di 4c 4 2i 6 m 2 6 2 12 2 6 2 8 1 1 1 1 1 1 1 v 2 1h 1 7 1 1 3 3 1 7 3 4 2 6 4 d 5 3 1 7 5v d' +
  ' 4 1 1w 1 3 2 2 1 29 3 2v6 1 1 1 p f 1 5 b 2c 4 2 2 2 2 2i 1 3 6 14 5oz g4m 2fu 8mc';

const FIRST = 0x80;
const START = 1;
const PART = 2;
const BASE = 36;

/** What each character of the basic plane may be in a name; characters beyond it may not be in one. */
const CHARACTERS = new Uint8Array(1 << 16);
for (const letter of 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_')
  CHARACTERS[letter.charCodeAt(0)] = START | PART;
for (const letter of '0123456789.-') CHARACTERS[letter.charCodeAt(0)] = PART;
enter(START_RANGES, START);
enter(NAME_RANGES, PART);

function enter(ranges: string, use: number): void {
  let at = FIRST;
  for (const [i, word] of ranges.split(' ').entries()) {
    const length = Number.parseInt(word, BASE);
    if (i % 2 === 1)
      for (let code = at; code < at + length; code++) CHARACTERS[code] = (CHARACTERS[code] ?? 0) | use;
    at += length;
  }
}

/** Reports whether a text is a name without a colon. */
export function isPlainName(text: string): boolean {
  for (let i = 0; i < text.length; i++)
    if (((CHARACTERS[text.charCodeAt(i)] as number) & (i === 0 ? START : PART)) === 0) return false;
  return text !== '';
}
