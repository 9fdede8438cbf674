// Embeddings of the fake: texts that share words are near each other, so that queries find something.
import { createHash } from 'node:crypto';

/** Weight of a text's own random vector beside those of its words. */
const OWN_WEIGHT = 0.05;
const WORDS_HELD = 20_000;
const WORD = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]|[\p{L}\p{N}]+/gu;

/** Directives in a text that make its vector a bad one. */
const ZERO = '@@ZEROVEC@@';
const NOT_A_NUMBER = '@@NANVEC@@';
const WIDER = '@@WRONGDIM@@';

const held = new Map<string, Float32Array>();

/** Returns numbers from -1 to 1 that follow from a text alone, by xorshift128. */
function numbersOf(text: string, count: number): Float32Array {
  const seed = createHash('sha256').update(text).digest();
  const state = [0, 4, 8, 12].map((at) => seed.readUInt32LE(at) | (at === 0 ? 1 : 0));
  const [w = 1, x = 0, y = 0, z = 0] = state;
  let [a, b, c, d] = [w, x, y, z];
  return Float32Array.from({ length: count }, () => {
    let t = d ^ (d << 11);
    t ^= t >>> 8;
    [d, c, b, a] = [c, b, a, t ^ a ^ (a >>> 19)];
    return ((a >>> 0) / 2 ** 32) * 2 - 1;
  });
}

function vectorOfWord(word: string, dimension: number): Float32Array {
  const key = `${dimension}:${word}`;
  const known = held.get(key);
  if (known !== undefined) return known;
  if (held.size >= WORDS_HELD) held.clear();
  const made = numbersOf(word, dimension);
  held.set(key, made);
  return made;
}

/** Returns the embedding of a text, of length one. */
export function embed(text: string, dimension: number): Float32Array {
  if (text.includes(WIDER)) return embed(text.replaceAll(WIDER, ''), dimension + 1);
  if (text.includes(ZERO)) return new Float32Array(dimension);
  if (text.includes(NOT_A_NUMBER)) return new Float32Array(dimension).fill(Number.NaN);
  const sum = numbersOf(`text:${text}`, dimension).map((value) => value * OWN_WEIGHT);
  for (const word of text.toLowerCase().match(WORD) ?? []) {
    const vector = vectorOfWord(word, dimension);
    for (let i = 0; i < dimension; i++) sum[i] = (sum[i] ?? 0) + (vector[i] ?? 0);
  }
  const length = Math.hypot(...sum) || 1;
  return sum.map((value) => value / length);
}
