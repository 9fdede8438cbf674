import { hash } from 'node:crypto';
import { extractions } from './cache.ts';
import { type Corpus, documentNumbers, documents, entities, pairEnds, relations } from './corpus.ts';
import { CHUNK_OPTIONS, PROCESSING_S, type Stage, statusRecord } from './doc-status.ts';
import { documentOf, type Origin, SEPARATOR } from './document.ts';
import { sharedName } from './prose.ts';

export type Entry = readonly [key: string, value: object];

/** Returns the stage of document `number`. */
export type StageOf = (number: number) => Stage;

/** Yields the text of a `kv_store_*.json` file as Python's json.dump with indent 2 writes it. */
export function* kvFile(entries: Iterable<Entry>): Generator<string> {
  let separator = '{\n';
  for (const [key, value] of entries) {
    yield separator + JSON.stringify({ [key]: value }, null, 2).slice(2, -2);
    separator = ',\n';
  }
  yield separator === '{\n' ? '{}' : '\n}';
}

export function* fullDocs(corpus: Corpus): Generator<Entry> {
  for (const { id, content, filePath, createdAt } of documents(corpus)) {
    const value = { content, file_path: filePath };
    const parsed = {
      parse_format: 'raw',
      content_hash: hash('md5', content),
      process_options: 'F',
      chunk_options: CHUNK_OPTIONS,
    };
    yield stamped(id, corpus.version === '1.4.9.11' ? value : { ...value, ...parsed }, createdAt);
  }
}

export function* textChunks(corpus: Corpus): Generator<Entry> {
  for (const document of documents(corpus)) {
    const cached = extractions(document);
    for (const [index, { id, content, tokens }] of document.chunks.entries()) {
      const value = {
        tokens,
        content,
        chunk_order_index: index,
        full_doc_id: document.id,
        file_path: document.filePath,
        llm_cache_list: cached.filter(({ chunk }) => chunk === id).map(({ entry }) => entry[0]),
      };
      yield stamped(id, value, document.createdAt, document.createdAt + 1);
    }
  }
}

/** Yields the status of each document, at the stage that `stageOf` returns for its number. */
// The records of processed documents are kept in `processed`, if a change writes the file several times.
export function* docStatus(
  corpus: Corpus,
  stageOf: StageOf,
  processed?: Map<number, Entry>,
): Generator<Entry> {
  for (const number of documentNumbers(corpus)) {
    const stage = stageOf(number);
    const known = stage === 'processed' ? processed?.get(number) : undefined;
    const entry = known ?? statusEntry(corpus, number, stage);
    if (stage === 'processed') processed?.set(number, entry);
    yield entry;
  }
}

function statusEntry(corpus: Corpus, number: number, stage: Stage): Entry {
  const document = documentOf(corpus, number);
  return [document.id, statusRecord(document, corpus.version, stage)];
}

export function* fullEntities(corpus: Corpus): Generator<Entry> {
  for (const document of documents(corpus)) {
    const shared = document.shared.map((index) => sharedName(index).name);
    const names = [...shared, ...document.entities.map(({ name }) => name)];
    const value = { entity_names: listed(corpus, names), count: names.length };
    yield stamped(document.id, value, document.createdAt + PROCESSING_S);
  }
}

export function* fullRelations(corpus: Corpus): Generator<Entry> {
  for (const document of documents(corpus)) {
    const pairs = document.relations.map(({ ends }) => [...ends].sort());
    if (document.shared.length === 2) pairs.push(pairEnds(corpus, document.shared).sort());
    const value = { relation_pairs: listed(corpus, pairs), count: pairs.length };
    yield stamped(document.id, value, document.createdAt + PROCESSING_S);
  }
}

/** Returns names or pairs in the order of the file: since 1.5 sorted, before as they were found. */
function listed<T extends string | string[]>({ version }: Corpus, found: readonly T[]): readonly T[] {
  if (version === '1.4.9.11') return found;
  const key = (one: T): string => [one].flat().join('\0');
  return [...found].sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

export function* entityChunks(corpus: Corpus): Generator<Entry> {
  for (const entity of entities(corpus)) yield chunkIds(entity.name, entity);
}

export function* relationChunks(corpus: Corpus): Generator<Entry> {
  for (const relation of relations(corpus, 'first')) {
    yield chunkIds([...relation.ends].sort().join(SEPARATOR), relation);
  }
}

/** Returns an entry of chunk ids. */
// LightRAG drops the time of creation when it merges.
function chunkIds(key: string, { sources, createdAt, isMerged }: Origin): Entry {
  const value = { chunk_ids: sources, count: sources.length };
  return isMerged ? [key, { ...value, update_time: createdAt, _id: key }] : stamped(key, value, createdAt);
}

/** Returns an entry with the three fields that LightRAG adds to most. Times are Unix seconds. */
function stamped(key: string, value: object, createdAt: number, updatedAt: number = createdAt): Entry {
  return [key, { ...value, create_time: createdAt, update_time: updatedAt, _id: key }];
}
