import { mkdir } from 'node:fs/promises';
import { cacheEntries } from './cache.ts';
import { type Contents, type Corpus, corpusOf } from './corpus.ts';
import type { Stage } from './doc-status.ts';
import { DOCUMENT_LIMIT } from './document.ts';
import { type Pace, type Style, sizeOf, writePieces } from './files.ts';
import { graphmlFile } from './graphml.ts';
import {
  docStatus,
  type Entry,
  entityChunks,
  fullDocs,
  fullEntities,
  fullRelations,
  kvFile,
  relationChunks,
  type StageOf,
  textChunks,
} from './kv.ts';
import { chunkRows, entityRows, relationRows, vdbFile } from './vdb.ts';
import { NEWEST, styleOf, type Version } from './version.ts';
import {
  CACHE,
  CHUNK_VECTORS,
  CHUNKS,
  deletionSteps,
  FILE_NAMES,
  type FileName,
  ingestSteps,
  type Removal,
  STATUS,
  type Step,
} from './write-order.ts';

export { type RowCounts, rowCounts } from './corpus.ts';
export type { Pace, Style } from './files.ts';
export { VERSIONS, type Version } from './version.ts';
export { DERIVED, FILE_NAMES, type FileName } from './write-order.ts';

export interface GenerateOptions {
  /** An integer; the same seed and options give the same bytes. */
  seed: number;
  /** Number of documents; 10 by default. Excludes `bytes`. */
  documents?: number;
  /** Approximate size of the directory in bytes. Excludes `documents`. */
  bytes?: number;
  /** Dimensions of a vector; 1024 by default. */
  dimension?: number;
  /** Version of LightRAG to imitate; 1.5.7 by default. */
  version?: Version;
  /** False imitates LightRAG before 1.4.7: no `vector` field, the matrix alone. */
  vectorField?: boolean;
  /** How files are replaced; as the version does by default. */
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

/** A rewrite of one file. */
interface Rewrite {
  readonly name: FileName;
  /** Whether the file stays as it was before the change. */
  readonly isUnchanged?: boolean;
  /** Stage of the changed documents; `processed` if absent. */
  readonly stage?: Stage;
}

const DEFAULT_DOCUMENTS = 10;
const DEFAULT_DIMENSION = 1024;
const SAMPLE_DOCUMENTS = 64;

/** The stages of the documents, and the status records of the processed ones that are known. */
interface Statuses {
  readonly stageOf: StageOf;
  readonly processed?: Map<number, Entry>;
}

const LAYOUTS: Readonly<Record<FileName, (corpus: Corpus, statuses: Statuses) => Generator<string>>> = {
  'kv_store_full_docs.json': (corpus) => kvFile(fullDocs(corpus)),
  'kv_store_doc_status.json': (corpus, { stageOf, processed }) =>
    kvFile(docStatus(corpus, stageOf, processed)),
  'kv_store_text_chunks.json': (corpus) => kvFile(textChunks(corpus)),
  'kv_store_llm_response_cache.json': (corpus) => kvFile(cacheEntries(corpus)),
  'kv_store_full_entities.json': (corpus) => kvFile(fullEntities(corpus)),
  'kv_store_full_relations.json': (corpus) => kvFile(fullRelations(corpus)),
  'kv_store_entity_chunks.json': (corpus) => kvFile(entityChunks(corpus)),
  'kv_store_relation_chunks.json': (corpus) => kvFile(relationChunks(corpus)),
  'vdb_entities.json': (corpus) => vdbFile(corpus, () => entityRows(corpus)),
  'vdb_relationships.json': (corpus) => vdbFile(corpus, () => relationRows(corpus)),
  'vdb_chunks.json': (corpus) => vdbFile(corpus, () => chunkRows(corpus)),
  'graph_chunk_entity_relation.graphml': (corpus) => graphmlFile(corpus),
};

/** Generates a working directory in `dir`, and creates `dir` if necessary. */
export async function generate(dir: string, options: GenerateOptions): Promise<Generated> {
  const version = options.version ?? NEWEST;
  const empty: Generated = {
    seed: options.seed,
    version,
    dimension: options.dimension ?? DEFAULT_DIMENSION,
    vectorField: options.vectorField ?? true,
    style: options.style ?? styleOf(version),
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
  // An empty server has written nothing.
  const names = ingested === 0 ? [] : FILE_NAMES;
  return write(dir, withDocuments(empty, ingested), rewritesOf(names), options);
}

/** Adds `count` documents, file by file in the order of the directory's version. */
export async function ingest(
  dir: string,
  state: Generated,
  count: number,
  options: WriteOptions = {},
): Promise<Generated> {
  const { prepared, merged } = ingestSteps(state.version);
  const rewrites = [...prepared, ...merged].flatMap((step) => rewritesOfStep(step, false));
  return write(dir, withDocuments(state, state.ingested + count), rewrites, options, state);
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
  const removed = new Set<Removal | undefined>();
  const rewrites: Rewrite[] = [];
  for (const { removal, steps } of deletionSteps(state.version)) {
    removed.add(removal);
    for (const step of steps) rewrites.push(...rewritesOfStep(step, !isRemoved(step, removed)));
  }
  return write(dir, { ...state, deleted: [...state.deleted, number] }, rewrites, options, state);
}

/** Reports whether a step of a deletion writes a file without what is removed so far. */
function isRemoved(step: Step, removed: ReadonlySet<Removal | undefined>): boolean {
  if (step.kind !== 'file') return false;
  if (step.name === CHUNKS || step.name === CHUNK_VECTORS) return removed.has('chunks');
  return true;
}

/** Adds one query: kv_store_llm_response_cache.json grows by 3 to 8 KB, and nothing else changes. */
export async function growCache(
  dir: string,
  state: Generated,
  options: WriteOptions = {},
): Promise<Generated> {
  const next = { ...state, queries: [...state.queries, state.ingested] };
  return write(dir, next, rewritesOf([CACHE]), options);
}

/** Returns the size of all files in bytes. */
export function totalBytes({ files }: Generated): number {
  return Object.values(files).reduce((sum, bytes) => sum + bytes, 0);
}

const rewritesOf = (names: readonly FileName[]): Rewrite[] => names.map((name) => ({ name }));

function rewritesOfStep(step: Step, isUnchanged: boolean): Rewrite[] {
  if (step.kind === 'embed') return [];
  if (step.kind === 'file') return [{ name: step.name, isUnchanged }];
  return [{ name: STATUS, stage: step.stage, isUnchanged }];
}

/** Writes files. `before` is the state before a change, whose documents are the only ones that have no stage. */
async function write(
  dir: string,
  state: Generated,
  rewrites: readonly Rewrite[],
  { style = state.style, pace }: WriteOptions,
  before: Generated = state,
): Promise<Generated> {
  const corpus = corpusOf(state);
  const unchanged = before === state ? corpus : corpusOf(before);
  const files: Record<string, number> = { ...state.files };
  const processed = new Map<number, Entry>();
  for (const { name, stage = 'processed', isUnchanged = false } of rewrites) {
    const isChanged = (number: number): boolean => number > before.ingested || corpus.isDeleted.has(number);
    const stageOf = (number: number): Stage => (isChanged(number) ? stage : 'processed');
    const pieces = LAYOUTS[name](isUnchanged ? unchanged : corpus, { stageOf, processed });
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
  return layouts.reduce((sum, layout) => sum + sizeOf(layout(corpus, { stageOf: () => 'processed' })), 0);
}
