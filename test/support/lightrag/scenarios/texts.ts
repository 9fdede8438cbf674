// Texts of documents; the fake finds names in them.

export const ALICE =
  'Alice Johnson founded Acme Corp in Berlin. Bob Miller joined Acme Corp in 2019. Acme Corp sells Widgets to Globex.';
export const BOB =
  'Bob Miller wrote the Widget Manual. Carol Danvers edited the Widget Manual in Paris. Globex bought the Widget Manual.';
const FILLER = 'It rained all day and nobody noticed the quiet hum of the engines below the deck. ';

/** Returns paragraphs with names that come back, of a book with a title. */
export function paragraphs(count: number, title = 'the book'): string {
  const numbers = Array.from({ length: count }, (_, i) => i);
  const paragraph = (i: number) =>
    `In chapter ${i} of ${title}, Captain Number${i % 37} met Doctor Strange${i % 11} in the City of Port${i % 13}. ` +
    `They spoke of the Great Machine${i % 5} that Inventor Volta${i % 7} built for Baron Kessler. ` +
    FILLER.repeat(3);
  return numbers.map(paragraph).join('\n\n');
}

/** Names that a file format, a separator or a language may get wrong. */
export const ODD_NAMES = [
  'O\'Brien "The Hammer"',
  'A & B <Ltd>',
  'Tom<SEP>Jerry',
  'Left <|#| Right',
  '张三丰',
  '東京タワー',
  '🎉 Party 🦊 Fox',
  'Ünïcödé Ñame',
  'e\u0301clair',
  '\u202Eevil\u202C',
  'Zero\u200BWidth',
  'tab\tinside',
  'back\\slash',
  'per%cent',
  'semi;colon',
  'a/b',
  '{"json": 1}',
  '[list]',
  'null',
  '123456',
  '1.5',
  '-',
  'X',
  'ends with dot.',
  ' leading space',
  'ent-0123456789abcdef',
  'chunk-0123',
  'CamelCase camelcase',
  'ΑΒΓ',
  'नमस्ते',
  'مرحبا',
];

function escaped(text: string): string {
  return text.replaceAll('\n', '\\n').replaceAll('\t', '\\t').replaceAll('|', '\\p');
}

/** Returns a document with all odd names, each related to the next. */
export function oddDocument(): string {
  const names = ODD_NAMES.map(escaped);
  const entities = names.map((name) => `@E ${name} | Concept | ${name} is described here.`);
  const relations = names
    .slice(1)
    .map((name, i) => `@R ${names[i]} | ${name} | near, list | ${names[i]} stands before ${name}.`);
  return [...entities, ...relations].join('\n');
}
