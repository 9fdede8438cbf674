import { mkdir } from 'node:fs/promises';
import { cacheEntries } from './cache.ts';
import { type Contents, type Corpus, corpusOf } from './corpus.ts';
import { DOCUMENT_LIMIT } from './document.ts';
import { type Pace, type Style, sizeOf, writePieces } from './files.ts';
import { graphmlFile } from './graphml.ts';
import {
  docStatus,
  entityChunks,
  fullDocs,
  fullEntities,
  fullRelations,
  kvFile,
  relationChunks,
  textChunks,
} from './kv.ts';
import { chunkRows, entityRows, relationRows, vdbFile } from './vdb.ts';

export { type RowCounts, rowCounts } from './corpus.ts';
export type { Pace, Style } from './files.ts';

export interface GenerateOptions {
  /** An integer; the same seed and options give the same bytes. */
  seed: number;
  /** Number of documents; 10 by default. Excludes `bytes`. */
  documents?: number;
  /** Approximate size of the directory in bytes. Excludes `documents`. */
  bytes?: number;
  /** Dimensions of a vector; 1024 by default. */
  dimension?: number;
  /** False imitates LightRAG before 1.4.7: no `vector` field, the matrix alone. */
  vectorField?: boolean;
  style?: Style;
  pace?: Pace;
}

/** Style and pace of one change; by default those of the directory. */
export interface WriteOptions {
  style?: Style;
  pace?: Pace;
}

/** The contents of a directory as plain data from which every byte follows. */
export interface Generated extends Contents {
  readonly style: Style;
  /** Sizes of the files in bytes, by name. */
  readonly files: Readonly<Record<string, number>>;
}

/** The files of a LightRAG directory. */
export type FileName = keyof typeof LAYOUTS;

/** A rewrite of one file. */
interface Step {
  readonly name: FileName;
  /** Number of the first document whose status is still `processing`. */
  readonly processingFrom?: number;
}

const DEFAULT_DOCUMENTS = 10;
const DEFAULT_DIMENSION = 1024;
const SAMPLE_DOCUMENTS = 64;

const LAYOUTS = {
  'kv_store_full_docs.json': (corpus: Corpus) => kvFile(fullDocs(corpus)),
  'kv_store_doc_status.json': (corpus: Corpus, processingFrom: number) =>
    kvFile(docStatus(corpus, processingFrom)),
  'kv_store_text_chunks.json': (corpus: Corpus) => kvFile(textChunks(corpus)),
  'kv_store_llm_response_cache.json': (corpus: Corpus) => kvFile(cacheEntries(corpus)),
  'kv_store_full_entities.json': (corpus: Corpus) => kvFile(fullEntities(corpus)),
  'kv_store_full_relations.json': (corpus: Corpus) => kvFile(fullRelations(corpus)),
  'kv_store_entity_chunks.json': (corpus: Corpus) => kvFile(entityChunks(corpus)),
  'kv_store_relation_chunks.json': (corpus: Corpus) => kvFile(relationChunks(corpus)),
  'vdb_entities.json': (corpus: Corpus) => vdbFile(corpus, () => entityRows(corpus)),
  'vdb_relationships.json': (corpus: Corpus) => vdbFile(corpus, () => relationRows(corpus)),
  'vdb_chunks.json': (corpus: Corpus) => vdbFile(corpus, () => chunkRows(corpus)),
  'graph_chunk_entity_relation.graphml': (corpus: Corpus) => graphmlFile(corpus),
} as const;

/** The names of all files, kv first and the graph last. */
export const FILE_NAMES = Object.keys(LAYOUTS) as FileName[];

/** Files that an ingest and a deletion rewrite after the documents' own entries, in LightRAG's order. */
export const DERIVED: readonly FileName[] = [
  'kv_store_full_entities.json',
  'kv_store_full_relations.json',
  'kv_store_entity_chunks.json',
  'kv_store_relation_chunks.json',
  'vdb_entities.json',
  'vdb_relationships.json',
  'vdb_chunks.json',
  'graph_chunk_entity_relation.graphml',
];

/** Generates a working directory in `dir`, and creates `dir` if necessary. */
export async function generate(dir: string, options: GenerateOptions): Promise<Generated> {
  const empty: Generated = {
    seed: options.seed,
    dimension: options.dimension ?? DEFAULT_DIMENSION,
    vectorField: options.vectorField ?? true,
    style: options.style ?? 'rename',
    ingested: 0,
    deleted: [],
    queries: [],
    files: {},
  };
  if (!Number.isInteger(empty.dimension) || empty.dimension < 1) {
    throw new RangeError(`Cannot generate vectors of ${empty.dimension} dimensions: it must be 1 or more`);
  }
  const ingested = documentCount(empty, options);
  await mkdir(dir, { recursive: true });
  return write(dir, withDocuments(empty, ingested), stepsOf(FILE_NAMES), options);
}

/**
 * Adds `count` documents, file by file as a server does.
 *
 * With style `in-place`, as in old versions, the status is `processed` before the data is on disk; with `rename`,
 * last.
 */
export async function ingest(
  dir: string,
  state: Generated,
  count: number,
  options: WriteOptions = {},
): Promise<Generated> {
  const style = options.style ?? state.style;
  const processed: Step = { name: 'kv_store_doc_status.json' };
  const steps: Step[] = [
    { name: 'kv_store_full_docs.json' },
    { name: 'kv_store_doc_status.json', processingFrom: state.ingested + 1 },
    { name: 'kv_store_llm_response_cache.json' },
    ...(style === 'in-place' ? [processed] : []),
    { name: 'kv_store_text_chunks.json' },
    ...stepsOf(DERIVED),
    ...(style === 'rename' ? [processed] : []),
  ];
  return write(dir, withDocuments(state, state.ingested + count), steps, options);
}

/** Deletes document `number`. Its rows disappear from the middle of files, and its cache entries remain. */
export async function deleteDocument(
  dir: string,
  state: Generated,
  number: number,
  options: WriteOptions = {},
): Promise<Generated> {
  if (!(number >= 1 && number <= state.ingested) || state.deleted.includes(number)) {
    throw new RangeError(`Cannot delete document ${number}: it does not exist`);
  }
  const names: FileName[] = [
    'kv_store_text_chunks.json',
    ...DERIVED,
    'kv_store_full_docs.json',
    'kv_store_doc_status.json',
  ];
  return write(dir, { ...state, deleted: [...state.deleted, number] }, stepsOf(names), options);
}

/** Adds one query: kv_store_llm_response_cache.json grows by 3 to 8 KB, and nothing else changes. */
export async function growCache(
  dir: string,
  state: Generated,
  options: WriteOptions = {},
): Promise<Generated> {
  const next = { ...state, queries: [...state.queries, state.ingested] };
  return write(dir, next, stepsOf(['kv_store_llm_response_cache.json']), options);
}

/** Returns the size of all files in bytes. */
export function totalBytes({ files }: Generated): number {
  return Object.values(files).reduce((sum, bytes) => sum + bytes, 0);
}

const stepsOf = (names: readonly FileName[]): Step[] => names.map((name) => ({ name }));

async function write(
  dir: string,
  state: Generated,
  steps: readonly Step[],
  { style = state.style, pace }: WriteOptions,
): Promise<Generated> {
  const corpus = corpusOf(state);
  const files: Record<string, number> = { ...state.files };
  for (const { name, processingFrom = Number.POSITIVE_INFINITY } of steps) {
    const pieces = LAYOUTS[name](corpus, processingFrom);
    files[name] = await writePieces(dir, name, pieces, { style, pace });
  }
  return { ...state, files };
}

function withDocuments(state: Generated, ingested: number): Generated {
  if (!Number.isInteger(ingested) || ingested < 0 || ingested >= DOCUMENT_LIMIT) {
    throw new RangeError(`Cannot generate ${ingested} documents: it must be 0 to ${DOCUMENT_LIMIT - 1}`);
  }
  return { ...state, ingested };
}

/** Returns the number of documents that make up the wanted size. */
// Sizes grow linearly with the documents, so two samples suffice.
function documentCount(empty: Generated, { documents, bytes }: GenerateOptions): number {
  if (documents !== undefined && bytes !== undefined) {
    throw new RangeError('Cannot generate by both "documents" and "bytes": give one');
  }
  if (bytes === undefined) return documents ?? DEFAULT_DOCUMENTS;
  const few = directorySize({ ...empty, ingested: SAMPLE_DOCUMENTS });
  const many = directorySize({ ...empty, ingested: 3 * SAMPLE_DOCUMENTS });
  const perDocument = (many - few) / (2 * SAMPLE_DOCUMENTS);
  return Math.max(1, Math.round(SAMPLE_DOCUMENTS + (bytes - few) / perDocument));
}

function directorySize(contents: Contents): number {
  const corpus = corpusOf(contents);
  const layouts = Object.values(LAYOUTS);
  return layouts.reduce((sum, layout) => sum + sizeOf(layout(corpus, Number.POSITIVE_INFINITY)), 0);
}
