// What the fake's language model finds in a text, and the directives by which a text says what that is.
//
//   @E name | type | description              one entity; \n, \t, \p in a field: newline, tab, '|'
//   @R source | target | keywords | description   one relation
//   @G name | type | description              an entity that is found only on a second try (gleaning)
//   @@MANY:n@@                                n made-up entities in a chain of relations
//   @@LONGDESC:n@@                            made-up descriptions of n characters
//   @@GARBAGE@@ @@EMPTY@@ @@TRUNCATED@@ @@BADROWS@@ @@THINK@@ @@FENCED@@   bad replies
//
// Without @E and @R, runs of capitalised words are entities, and names in 「」 or 《》; neighbours in a sentence are
// related.
import { createHash } from 'node:crypto';

export interface Entity {
  readonly name: string;
  readonly type: string;
  readonly description: string;
}

export interface Relation {
  readonly source: string;
  readonly target: string;
  readonly keywords: string;
  readonly description: string;
}

export interface Extraction {
  readonly entities: Entity[];
  readonly relations: Relation[];
}

/** How a prompt wants the records of an extraction. */
export type Layout =
  | { readonly kind: 'json' }
  | { readonly kind: 'lines'; readonly delimiter: string; readonly completion: string };

const TYPES = ['Person', 'Organization', 'Location', 'Event', 'Concept'];
const NAME = /[「《]([^」》]+)[」》]|\b(\p{Lu}[\p{L}\p{N}'-]*(?: \p{Lu}[\p{L}\p{N}'-]*)*)/gu;
const NO_NAME = /^(?:The|A|An|It|In|On|At|And|But|Of|This|That|He|She|They|We|You|If)$/;
const FILLER = ' It is described at length.';
/** The share of a reply that is left of a truncated one. */
const TRUNCATED_TO = 0.6;

function fieldsOf(line: string): string[] {
  const unescaped = { n: '\n', t: '\t', p: '|' } as const;
  return line
    .split('|')
    .map((field) => field.trim().replace(/\\([ntp])/g, (_, letter: 'n' | 't' | 'p') => unescaped[letter]));
}

/** Returns the number that a directive has, or zero. */
export function directive(text: string, name: string): number {
  return Number(new RegExp(`@@${name}:(\\d+)@@`).exec(text)?.[1] ?? 0);
}

function written(text: string, letter: 'E' | 'R' | 'G'): string[][] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.startsWith(`@${letter} `))
    .map((line) => fieldsOf(line.slice(3)));
}

function asEntity([name = '', type = '', description = '']: readonly string[]): Entity {
  return { name, type: type || 'concept', description };
}

function asRelation([
  source = '',
  target = '',
  keywords = '',
  description = '',
]: readonly string[]): Relation {
  return { source, target, keywords: keywords || 'related to', description };
}

function madeUp(count: number, long: (text: string) => string): Extraction {
  const numbers = Array.from({ length: count }, (_, i) => i);
  return {
    entities: numbers.map((i) => ({
      name: `Item ${i}`,
      type: 'Data',
      description: long(`Item ${i} is number ${i} in the series.`),
    })),
    relations: numbers.slice(1).map((i) => ({
      source: `Item ${i - 1}`,
      target: `Item ${i}`,
      keywords: 'sequence, order',
      description: long(`Item ${i - 1} comes before Item ${i}.`),
    })),
  };
}

function named(text: string, long: (text: string) => string): Extraction {
  const entities = new Map<string, Entity>();
  const relations = new Map<string, Relation>();
  for (const sentence of text.split(/[.!?。！？\n]+/)) {
    const found = [...sentence.matchAll(NAME)].map(([, quoted, plain = '']) => (quoted ?? plain).trim());
    const names = found.filter((name) => name.length > 1 && !NO_NAME.test(name));
    for (const name of names) {
      const type = TYPES[(createHash('md5').update(name).digest()[0] ?? 0) % TYPES.length] ?? 'Concept';
      const description = long(`${name} is named in: ${sentence.trim().slice(0, 160)}.`);
      if (!entities.has(name)) entities.set(name, { name, type, description });
    }
    for (const [i, target] of names.entries()) {
      const source = names[i - 1];
      if (source === undefined || source === target) continue;
      const key = [source, target].sort().join('\0');
      const description = long(`${source} and ${target} appear together: ${sentence.trim().slice(0, 120)}.`);
      if (!relations.has(key))
        relations.set(key, { source, target, keywords: 'mentioned together, context', description });
    }
  }
  return { entities: [...entities.values()], relations: [...relations.values()] };
}

/** Returns what is found in a text at the first try. */
export function extract(text: string): Extraction {
  const length = directive(text, 'LONGDESC');
  const long = (short: string) => (length === 0 ? short : short.padEnd(length, FILLER).slice(0, length));
  const made = madeUp(directive(text, 'MANY'), long);
  const entities = [...written(text, 'E').map(asEntity), ...made.entities];
  const relations = [...written(text, 'R').map(asRelation), ...made.relations];
  return entities.length + relations.length === 0 ? named(text, long) : { entities, relations };
}

/** Returns what is found in a text at the second try. */
export function glean(text: string): Extraction {
  return { entities: written(text, 'G').map(asEntity), relations: [] };
}

function inLines({ entities, relations }: Extraction, delimiter: string, completion: string): string {
  const line = (fields: readonly string[]) =>
    fields.map((field) => field.replace(/[\r\n]+/g, ' ')).join(delimiter);
  return [
    ...entities.map(({ name, type, description }) => line(['entity', name, type, description])),
    ...relations.map((one) => line(['relation', one.source, one.target, one.keywords, one.description])),
    completion,
  ].join('\n');
}

/** Returns rows that are none, each wrong in a way of its own. */
function badRows(delimiter: string): string {
  const rows = [
    ['entity', 'Only Name'],
    ['relation', 'A', 'B'],
    ['entity', '', 'Person', 'no name'],
    ['relation', 'Self', 'Self', 'loop', 'a loop'],
    ['entity', 'Five', 'Fields', 'Given', 'here'],
    ['relation', 'Ghost', 'Phantom', 'haunts', 'neither end is an entity'],
  ];
  return rows.map((row) => row.join(delimiter)).join('\n');
}

/** Returns the reply to a prompt for an extraction from a text, a bad one where the text has a directive for it. */
export function extractionReply(text: string, found: Extraction, layout: Layout): string {
  const has = (name: string) => text.includes(`@@${name}@@`);
  if (has('GARBAGE')) return 'I am sorry, I cannot do that. Here is a poem about delimiters: <|#| <|>|> (((';
  if (has('EMPTY')) return '';
  const { entities, relations: relationships } = found;
  const whole =
    layout.kind === 'json'
      ? JSON.stringify({ entities, relationships })
      : inLines(found, layout.delimiter, layout.completion);
  if (has('TRUNCATED')) return whole.slice(0, Math.ceil(whole.length * TRUNCATED_TO));
  if (has('THINK')) return `<think>Let me see what is named here.</think>\n${whole}`;
  if (has('FENCED')) return `\`\`\`\n${whole}\n\`\`\``;
  if (!has('BADROWS')) return whole;
  return layout.kind === 'json'
    ? whole.replace('"entities"', '"things"')
    : `${badRows(layout.delimiter)}\n${whole}`;
}
