// The prompts of LightRAG 1.4.9 to 1.5, told apart by their own words, and the fake's replies.
import { createHash } from 'node:crypto';
import { extract, extractionReply, glean, type Layout } from './fake-extraction.ts';

/** A message of a chat, as OpenAI's API has it. */
export interface Message {
  readonly role: string;
  readonly content: string | readonly { readonly text?: string }[];
}

/** A prompt: what it asks for, the document's text where it has one, and the fake's reply. */
export interface Prompt {
  readonly kind: 'extraction' | 'gleaning' | 'keywords' | 'summary' | 'question';
  readonly text: string;
  reply(): string;
}

const KEYWORDS = /expert keyword extractor|both high-level and low-level keywords/;
const SUMMARY = /synthesize a list of descriptions|comprehensive summary of the data|Description List/;
const GLEANING = /Based on the last extraction task|were missed in the last extraction/;
const EXTRACTION = /Extract entities and relationships from|extracting entities and relationships/i;
/** The text of a chunk in a prompt: one fenced block at its end. */
const FENCED_TEXT = /```\n([\s\S]*)\n```\s*(?:---Output---|<Output>)\s*$/;
const REFERENCES_MAX = 5;
const KEYWORDS_MAX = 8;

function textOf({ content }: Message): string {
  return typeof content === 'string' ? content : content.map(({ text = '' }) => text).join('\n');
}

function layoutOf(all: string): Layout {
  if (/JSON object with `entities` and `relationships`/.test(all)) return { kind: 'json' };
  const [, delimiter = '<|#|>'] = /entity(<\|[^|\s<>]*\|>|<\|>)entity_name/.exec(all) ?? [];
  return { kind: 'lines', delimiter, completion: '<|COMPLETE|>' };
}

function keywordsReply(prompt: string, last: string): string {
  const queries = [...prompt.matchAll(/(?:Current Query|User Query): *([\s\S]*?)(?:\n#|\n---|$)/g)];
  const query = (queries.at(-1)?.[1] ?? last).trim();
  const unique = (pattern: RegExp, from: string) =>
    [...new Set(from.match(pattern) ?? [])].slice(0, KEYWORDS_MAX);
  const high = unique(/[\p{L}\p{N}]{4,}/gu, query.toLowerCase());
  const low = unique(
    /\p{Lu}[\p{L}\p{N}]*(?: \p{Lu}[\p{L}\p{N}]*)*|[\p{Script=Han}\p{Script=Katakana}\p{Script=Hiragana}]{2,}/gu,
    query,
  );
  return JSON.stringify({ high_level_keywords: high, low_level_keywords: low.length > 0 ? low : high });
}

function descriptionOf(line: string): string {
  try {
    const { Description, description } = JSON.parse(line) as { Description?: string; description?: string };
    return Description ?? description ?? '';
  } catch {
    return ''; // Not a line of the list.
  }
}

function summaryReply(prompt: string): string {
  const name = /Name: (.*)/i.exec(prompt)?.[1]?.trim() ?? 'It';
  const descriptions = prompt
    .split('\n')
    .map(descriptionOf)
    .filter((text) => text !== '');
  const parts = descriptions.map((text) => text.slice(0, 80)).join(' ');
  return `${name}: merged from ${descriptions.length} descriptions. ${parts.slice(0, 600)}`;
}

function answerReply(system: string, last: string): string {
  const references = [...new Set(system.match(/^\[\d+\] .+$/gm) ?? [])].slice(0, REFERENCES_MAX);
  const digest = createHash('md5')
    .update(system + last)
    .digest('hex')
    .slice(0, 8);
  const list = references.map((one) => `- ${one}`).join('\n');
  return `Answer to: ${last.slice(0, 200)}\n\n${list === '' ? `(${digest})` : `### References\n\n${list}`}`;
}

/** Finds out what the messages of a chat ask for. */
export function promptOf(messages: readonly Message[]): Prompt {
  const of = (...roles: string[]) => messages.filter(({ role }) => roles.includes(role)).map(textOf);
  const system = of('system', 'developer').join('\n');
  const users = of('user');
  const last = users.at(-1) ?? '';
  const all = [system, ...users].join('\n');
  if (KEYWORDS.test(last) || KEYWORDS.test(system))
    return { kind: 'keywords', text: '', reply: () => keywordsReply(/Query:/.test(last) ? last : all, last) };
  if (SUMMARY.test(last)) return { kind: 'summary', text: '', reply: () => summaryReply(last) };
  const isGleaning = GLEANING.test(last);
  if (!isGleaning && !EXTRACTION.test(last) && !EXTRACTION.test(system))
    return { kind: 'question', text: '', reply: () => answerReply(system, last) };
  const source = isGleaning ? users.slice(0, -1).join('\n') : last;
  const text = FENCED_TEXT.exec(source)?.[1] ?? source.split(/<Input Text>|---Input Text---/).at(-1) ?? '';
  const found = () => (isGleaning ? glean(text) : extract(text));
  return {
    kind: isGleaning ? 'gleaning' : 'extraction',
    text,
    reply: () => extractionReply(text, found(), layoutOf(all)),
  };
}
