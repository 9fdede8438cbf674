import { hash } from 'node:crypto';
import type { Corpus } from './corpus.ts';
import { type Document, documentOf, type Edition, ingestedAt } from './document.ts';
import { paragraph, SHARED_NAMES, sentence, sharedName } from './prose.ts';
import { mix, random } from './random.ts';

export type CacheEntry = readonly [key: string, value: object];

const COMPLETE = '<|COMPLETE|>';
const FIELD = '<|#|>';
const QUERY_EVERY = 4;
const QUERY_DELAY_S = 16;
const ANSWER_SENTENCES_MIN = 20;
const ANSWER_SENTENCES_SPREAD = 15;

const EXTRACT_PROMPT = `---Task---
Extract entities and relationships from the input text to be processed.

---Instructions---
1.  **Strict Adherence to Format:** Strictly adhere to all format requirements for entity and relationship lists, as specified in the system prompt.
2.  **Output Content Only:** Output *only* the extracted list. Do not include any introductory or concluding remarks.
3.  **Completion Signal:** Output \`${COMPLETE}\` as the final line.

---Real Data to be Processed---
`;
const CONTINUE_PROMPT = `---Task---
Based on the last extraction task, identify and extract any **missed or incorrectly formatted** entities and relationships from the input text.

`;
const ANSWER_VERSION = { answer_cache_version: 'query-answer-cache-v2' } as const;
const QUERY_PARAMETERS = {
  mode: 'hybrid',
  response_type: 'Multiple Paragraphs',
  top_k: 10,
  chunk_top_k: 20,
  max_entity_tokens: 6000,
  max_relation_tokens: 8000,
  max_total_tokens: 30000,
} as const;

/** Returns the keys of the cache entries of a document's extraction. */
export function cacheKeys(document: Document): string[] {
  return extractions(document).map(({ entry }) => entry[0]);
}

/** Returns the cache entries of a document's extraction, chunk by chunk. */
export function extractions(document: Document): { chunk: string; entry: CacheEntry }[] {
  return document.chunks.flatMap((chunk, index) => {
    const created = document.createdAt + 1;
    const text = `\`\`\`\n${chunk.content}\n\`\`\``;
    const first = extraction(EXTRACT_PROMPT + text, extracted(document, index), chunk.id, created);
    // Only the first chunk is extracted twice, which keeps the share of the vectors high.
    if (index > 0) return [{ chunk: chunk.id, entry: first }];
    const second = extraction(CONTINUE_PROMPT + text, COMPLETE, chunk.id, created);
    return [
      { chunk: chunk.id, entry: first },
      { chunk: chunk.id, entry: second },
    ];
  });
}

/** Yields the whole cache in the order of its growth. Deleting a document leaves its entries, as in LightRAG. */
export function* cacheEntries(corpus: Corpus): Generator<CacheEntry> {
  let asked = 0;
  for (let number = 0; number <= corpus.ingested; number += 1) {
    if (number > 0) for (const { entry } of extractions(documentOf(corpus, number))) yield entry;
    if (number > 0 && number % QUERY_EVERY === 0) yield* queryEntries(corpus, number, 0);
    for (let turn = 1; corpus.queries[asked] === number; turn += 1, asked += 1) {
      yield* queryEntries(corpus, number, turn);
    }
  }
}

function extraction(prompt: string, answer: string, chunk: string, created: number): CacheEntry {
  const key = `default:extract:${hash('md5', prompt)}`;
  return entryOf(key, answer, 'extract', chunk, prompt, null, created);
}

/** Returns the model's answer for chunk `index`. */
function extracted(document: Document, index: number): string {
  const entity = document.entities[index];
  const relation = document.relations[index];
  const shared = index === 0 ? document.shared.map((one) => sharedName(one).name) : [];
  return [
    ...shared.map((name) => ['entity', name, 'organization', `${name} is named in the text.`].join(FIELD)),
    ['entity', entity?.name, entity?.type, entity?.description].join(FIELD),
    ['relation', ...(relation?.ends ?? []), relation?.keywords, relation?.description].join(FIELD),
    COMPLETE,
  ].join('\n');
}

/** Returns the keywords and the answer of query `turn` among those after document `number`. */
export function queryEntries({ seed, version }: Edition, number: number, turn: number): CacheEntry[] {
  const choose = random(mix(seed, number, turn));
  const { name, language } = sharedName(choose(SHARED_NAMES));
  const question = `${sentence(language, 'question', choose, name)} (${number}-${turn})`;
  const created = ingestedAt(seed, number) + QUERY_DELAY_S;
  const answer = paragraph(language, choose, name, ANSWER_SENTENCES_MIN + choose(ANSWER_SENTENCES_SPREAD));
  const found = { high_level_keywords: [name], low_level_keywords: [name.slice(-3)] };
  const rest = { user_prompt: '', enable_rerank: true };
  const wanted = { ...QUERY_PARAMETERS, ...rest };
  const keywords = { hl_keywords: name, ll_keywords: name.slice(-3) };
  const used =
    version === '1.4.9.11'
      ? { ...QUERY_PARAMETERS, ...keywords, ...rest }
      : { ...ANSWER_VERSION, ...QUERY_PARAMETERS, ...keywords, ...rest, enable_content_headings: true };
  const id = (kind: string): string => `hybrid:${kind}:${hash('md5', kind + question)}`;
  return [
    entryOf(id('keywords'), JSON.stringify(found), 'keywords', null, question, wanted, created),
    entryOf(id('query'), `${answer}\n\n### References`, 'query', null, question, used, created),
  ];
}

function entryOf(
  key: string,
  answer: string,
  kind: string,
  chunk: string | null,
  prompt: string,
  queryparam: object | null,
  created: number,
): CacheEntry {
  const value = {
    return: answer,
    cache_type: kind,
    chunk_id: chunk,
    original_prompt: prompt,
    queryparam,
    create_time: created,
    update_time: created,
    _id: key,
  };
  return [key, value];
}
