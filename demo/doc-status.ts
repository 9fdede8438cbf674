import { hash } from 'node:crypto';
import { cacheKeys } from './cache.ts';
import type { Document } from './document.ts';
import type { Version } from './version.ts';

/** States of a document's status record on its way through an ingest. */
export type IngestStage =
  | 'pending'
  | 'parsing'
  | 'parsed'
  | 'analyzing'
  | 'analyzed'
  | 'processing'
  | 'merging'
  | 'processed'
  | 'failed';

/** States of the status record of a document that is deleted. */
// 1.5 records how far a deletion has come.
export type RemovalStage = 'collected' | 'prepared' | 'derived_committed' | 'anchors_pending' | 'completed';

export type Stage = IngestStage | RemovalStage;

type Fields = Readonly<Record<string, unknown>>;

const SUMMARY_CHARS_MAX = 250;
/** Seconds from the arrival of a document to the end of its ingest. */
export const PROCESSING_S = 15;
const ERROR = 'BadRequestError: Error code: 400 - the model refuses this text';
const CHUNKING = { process_options: 'F', chunk_method: 'fixed_token', size: 400, overlap: 40 } as const;
/** Options of the chunks of a document, as a server with 400 tokens per chunk stores them. */
export const CHUNK_OPTIONS = {
  chunk_token_size: CHUNKING.size,
  fixed_token: {
    split_by_character: null,
    split_by_character_only: false,
    chunk_overlap_token_size: CHUNKING.overlap,
  },
} as const;

/** The order in which an ingest of 1.5 passes its stages. */
const ORDER: readonly IngestStage[] = [
  'pending',
  'parsing',
  'parsed',
  'analyzing',
  'analyzed',
  'processing',
  'merging',
  'processed',
];
const STATUS_OF: Readonly<Record<IngestStage, string>> = {
  pending: 'pending',
  parsing: 'parsing',
  parsed: 'parsing',
  analyzing: 'analyzing',
  analyzed: 'analyzing',
  processing: 'processing',
  merging: 'processing',
  processed: 'processed',
  failed: 'failed',
};

/** Returns the status record of a document at a stage. */
export function statusRecord(document: Document, version: Version, stage: Stage): Fields {
  if (version === '1.4.9.11') return oldRecord(document, stage);
  const ingest = ORDER.find((one) => one === stage) ?? (stage === 'failed' ? 'failed' : 'processed');
  const record = newRecord(document, ingest);
  if (ingest === stage) return record;
  const removal = { cacheIds: cacheKeys(document), at: document.createdAt + PROCESSING_S + 1 };
  return removalRecord(document.id, record, { ...removal, stage: stage as RemovalStage });
}

/** Returns the fields that the record of each stage has, of both versions. */
function common(document: Document, isBegun: boolean, isEnded: boolean) {
  const { content, createdAt, number, filePath } = document;
  const characters = [...content];
  const isLong = characters.length > SUMMARY_CHARS_MAX;
  return {
    content_summary: isLong ? `${characters.slice(0, SUMMARY_CHARS_MAX).join('')}...` : content,
    content_length: characters.length,
    created_at: isoTime(createdAt, number),
    updated_at: isoTime(isEnded ? createdAt + PROCESSING_S : createdAt, isBegun ? number + 1 : number),
    file_path: filePath,
    track_id: `insert_${trackTime(createdAt)}_${document.id.slice(-8)}`,
  };
}

function oldRecord(document: Document, stage: Stage): Fields {
  const isEnded = stage !== 'pending' && stage !== 'processing';
  const fields = common(document, stage !== 'pending', isEnded);
  if (stage === 'pending') return { status: 'pending', ...fields, chunks_list: [] };
  const start = { processing_start_time: document.createdAt };
  const metadata = isEnded ? { ...start, processing_end_time: document.createdAt + PROCESSING_S } : start;
  if (stage === 'failed') {
    const error_msg = `C[1/${document.chunks.length}]: ${ERROR}`;
    return { status: 'failed', error_msg, ...fields, metadata, chunks_list: [] };
  }
  const status = stage === 'processing' ? 'processing' : 'processed';
  return { status, ...chunksOf(document), ...fields, metadata };
}

function newRecord(document: Document, stage: IngestStage): Fields {
  const at = stage === 'failed' ? ORDER.indexOf('processing') : ORDER.indexOf(stage);
  const isChunked = at >= ORDER.indexOf('processing');
  const isEnded = stage === 'processed' || stage === 'failed';
  const failure = `C[1/${document.chunks.length}]: ${document.chunks[0]?.id}: ${ERROR}`;
  return {
    status: STATUS_OF[stage],
    ...common(document, at > 0, isEnded),
    content_hash: hash('md5', document.content),
    metadata: newMetadata(document, stage, at),
    ...(stage === 'failed' ? { error_msg: failure } : {}),
    ...(isChunked ? chunksOf(document) : { chunks_list: [] }),
  };
}

/** Returns the metadata of a stage: each one adds to what the former left. */
function newMetadata({ createdAt }: Document, stage: IngestStage, at: number): Fields {
  const written = stage === 'merging' || stage === 'processed';
  const kg_write_state = written ? 'graph_mutation_started' : 'pre_graph';
  const { process_options, chunk_method, size, overlap } = CHUNKING;
  if (at === 0) return { kg_write_state, process_options };
  const reached = (from: IngestStage, fields: Fields): Fields => (at >= ORDER.indexOf(from) ? fields : {});
  const isEnded = stage === 'processed' || stage === 'failed';
  return {
    process_options,
    parse_start_time: createdAt,
    ...reached('parsed', { parse_stage_skipped: true, parse_format: 'raw', parse_engine: 'legacy' }),
    ...reached('analyzing', { analyzing_start_time: createdAt }),
    ...reached('analyzed', { analyzing_stage_skipped: true }),
    kg_write_state,
    ...reached('processing', {
      process_start_time: createdAt,
      ...(isEnded ? { process_end_time: createdAt + PROCESSING_S } : {}),
      chunk_method,
      chunk_opts: `size=${size}, split_only=False, overlap=${overlap}`,
    }),
  };
}

/** A deletion under way. */
export interface RemovalState {
  readonly stage: RemovalStage;
  /** Keys of the cached answers about the document's chunks. */
  readonly cacheIds: readonly string[];
  /** Unix seconds. */
  readonly at: number;
}

/** Returns the status record of a document under deletion. */
export function removalRecord(id: string, record: Fields, { stage, cacheIds, at }: RemovalState): Fields {
  const journal = {
    schema_version: 1,
    operation_id: hash('md5', `delete ${id}`),
    phase: stage,
    chunk_count: Number(record.chunks_count ?? 0),
    updated_at: at,
  };
  const metadata = {
    ...Object(record.metadata),
    deletion_llm_cache_ids: cacheIds,
    last_deletion_attempt_at: isoTime(at, 0),
    ...(stage === 'collected' ? {} : { kg_purge: journal }),
  };
  return { ...record, updated_at: isoTime(at, 0), metadata, error_msg: '' };
}

function chunksOf({ chunks }: Document) {
  return { chunks_count: chunks.length, chunks_list: chunks.map(({ id }) => id) };
}

function isoTime(seconds: number, fraction: number): string {
  const micros = String((fraction * 7919) % 1_000_000).padStart(6, '0');
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${micros}+00:00`;
}

function trackTime(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '_');
}
