import { extractions } from './cache.ts';
import { type Corpus, documents, entities, pairEnds, relations } from './corpus.ts';
import { type Document, type Origin, SEPARATOR } from './document.ts';
import { sharedName } from './prose.ts';

type Entry = readonly [key: string, value: object];

const SUMMARY_CHARS_MAX = 250;
const PROCESSING_S = 15;

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
    yield stamped(id, { content, file_path: filePath }, createdAt);
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

/** Yields the status of each document: `processing` from number `processingFrom` on. */
export function* docStatus(corpus: Corpus, processingFrom: number): Generator<Entry> {
  for (const document of documents(corpus)) {
    yield [document.id, statusOf(document, document.number >= processingFrom)];
  }
}

function statusOf(document: Document, isProcessing: boolean): object {
  const { content, createdAt, number } = document;
  const characters = [...content];
  const isLong = characters.length > SUMMARY_CHARS_MAX;
  const finishedAt = createdAt + PROCESSING_S;
  return {
    status: isProcessing ? 'processing' : 'processed',
    chunks_count: document.chunks.length,
    chunks_list: document.chunks.map((chunk) => chunk.id),
    content_summary: isLong ? `${characters.slice(0, SUMMARY_CHARS_MAX).join('')}...` : content,
    content_length: characters.length,
    created_at: isoTime(createdAt, number),
    updated_at: isoTime(isProcessing ? createdAt : finishedAt, number + 1),
    file_path: document.filePath,
    track_id: `insert_${trackTime(createdAt)}_${document.id.slice(-8)}`,
    metadata: {
      processing_start_time: createdAt,
      ...(isProcessing ? {} : { processing_end_time: finishedAt }),
    },
  };
}

export function* fullEntities(corpus: Corpus): Generator<Entry> {
  for (const document of documents(corpus)) {
    const shared = document.shared.map((index) => sharedName(index).name);
    const names = [...shared, ...document.entities.map(({ name }) => name)];
    const value = { entity_names: names, count: names.length };
    yield stamped(document.id, value, document.createdAt + PROCESSING_S);
  }
}

export function* fullRelations(corpus: Corpus): Generator<Entry> {
  for (const document of documents(corpus)) {
    const pairs = document.relations.map(({ ends }) => [...ends].sort());
    if (document.shared.length === 2) pairs.push(pairEnds(corpus, document.shared).sort());
    const value = { relation_pairs: pairs, count: pairs.length };
    yield stamped(document.id, value, document.createdAt + PROCESSING_S);
  }
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

function isoTime(seconds: number, fraction: number): string {
  const micros = String((fraction * 7919) % 1_000_000).padStart(6, '0');
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${micros}+00:00`;
}

function trackTime(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '_');
}
