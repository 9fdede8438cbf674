import { hash } from 'node:crypto';
import {
  COINED_LIMIT,
  type Coined,
  coinedEntity,
  keywords,
  type Language,
  paragraph,
  SHARED_NAMES,
  sentence,
  sharedName,
} from './prose.ts';
import { mix, random, type VectorKey } from './random.ts';
import type { Version } from './version.ts';

/** LightRAG's separator between the parts of a merged value. */
export const SEPARATOR = '<SEP>';

const SOURCES_MAX = 300;
const CHUNKS_MAX = 5;
const FILLER_MIN = 3;
const FILLER_SPREAD = 4;
const ENTITIES_PER_DOCUMENT = 8;
const CHUNK_DIGITS = 3;

/** One past the largest document number. */
export const DOCUMENT_LIMIT = COINED_LIMIT / ENTITIES_PER_DOCUMENT;

/** One in this many documents mentions two shared entities, and so the relation between them. */
const PAIR_EVERY = 4;
const SECONDS_PER_DOCUMENT = 20;

/** A random stream for each use of the seed. */
const STREAM = {
  shape: 1,
  text: 2,
  start: 3,
  entityVector: 4,
  relationVector: 5,
  chunkVector: 6,
  sharedVector: 7,
  pairVector: 8,
} as const;

/** What the content of a document and its ids depend on, beside its number. */
export interface Edition {
  readonly seed: number;
  /** Version of LightRAG that ingests it. */
  readonly version: Version;
}

/** The properties of a document that are known without generating its text. */
export interface Shape {
  readonly language: Language;
  readonly chunkCount: number;
  /** Numbers of the shared entities that its first chunk mentions: one, or the two of a pair. */
  readonly shared: readonly number[];
}

export interface Chunk {
  readonly id: string;
  readonly content: string;
  readonly tokens: number;
  readonly vector: VectorKey;
}

/** The origin of an entity or relation. */
export interface Origin {
  /** Ids of the chunks that mention it. */
  readonly sources: readonly string[];
  readonly filePath: string;
  /** Time of creation in Unix seconds. */
  readonly createdAt: number;
  /** Whether several documents mention it. */
  readonly isMerged: boolean;
  readonly vector: VectorKey;
}

export interface Entity extends Origin {
  readonly name: string;
  readonly type: string;
  readonly description: string;
}

export interface Relation extends Origin {
  /** Its two entities, the one that was in the graph first at the front. */
  readonly ends: readonly [string, string];
  readonly keywords: string;
  readonly description: string;
  readonly weight: number;
}

/** A document and everything extracted from it: chunk i yields entity i and relation i. */
export interface Document {
  readonly number: number;
  readonly id: string;
  readonly content: string;
  readonly filePath: string;
  /** Time of creation in Unix seconds. */
  readonly createdAt: number;
  readonly language: Language;
  readonly chunks: readonly Chunk[];
  readonly entities: readonly Entity[];
  readonly relations: readonly Relation[];
  readonly shared: readonly number[];
}

/** Returns the shape of document `number`. */
export function shapeOf(seed: number, number: number): Shape {
  const choose = random(mix(seed, STREAM.shape, number));
  const language = choose(2) === 0 ? 'en' : 'zh';
  const chunkCount = 1 + choose(CHUNKS_MAX);
  // The smaller of two numbers: a few entities are mentioned everywhere, as in real graphs.
  const shared = Math.min(choose(SHARED_NAMES), choose(SHARED_NAMES));
  return { language, chunkCount, shared: choose(PAIR_EVERY) === 0 ? [shared, shared ^ 1] : [shared] };
}

/** Returns the time at which document `number` was ingested, in Unix seconds. */
export function ingestedAt(seed: number, number: number): number {
  return 1_700_000_000 + (mix(seed, STREAM.start) % 50_000_000) + number * SECONDS_PER_DOCUMENT;
}

/** Generates document `number`. Its text depends on the seed alone. */
export function documentOf(edition: Edition, number: number): Document {
  const { seed } = edition;
  const { language, chunkCount, shared } = shapeOf(seed, number);
  const own = Array.from({ length: chunkCount }, (_, i) => ownEntity(seed, number, i, language));
  const partners = [sharedName(shared[0] as number).name, ...own.map(({ name }) => name)];
  const chunks = own.map(({ name }, i) => chunkOf(edition, number, i, language, name, partners[i] as string));
  const content = chunks.map((chunk) => chunk.content).join('\n\n');
  const filePath = filePathOf(number);
  const createdAt = ingestedAt(seed, number);
  const choose = random(mix(seed, STREAM.text, number));
  const entities = own.map(({ name, type }, i) => ({
    name,
    type,
    description: sentence(language, 'entity', choose, name),
    sources: chunks.slice(i, i + 2).map((chunk) => chunk.id),
    filePath,
    createdAt,
    isMerged: false,
    vector: [mix(seed, STREAM.entityVector), number, i] as const,
  }));
  const relations = own.map(({ name }, i) => ({
    ends: [partners[i] as string, name] as const,
    keywords: keywords(language, choose),
    description: sentence(language, 'relation', choose, name, partners[i]),
    weight: 1,
    sources: [(chunks[i] as Chunk).id],
    filePath,
    createdAt,
    isMerged: false,
    vector: [mix(seed, STREAM.relationVector), number, i] as const,
  }));
  const id = edition.version === '1.4.9.11' ? `doc-${hash('md5', content)}` : namedDocumentId(number);
  return { number, id, content, filePath, createdAt, language, chunks, entities, relations, shared };
}

/** Returns the id of the first chunk of document `number`, without generating the others. */
export function firstChunkId(edition: Edition, number: number): string {
  if (edition.version !== '1.4.9.11') return placedChunkId(number, 0);
  const { seed } = edition;
  const { language, shared } = shapeOf(seed, number);
  const { name } = ownEntity(seed, number, 0, language);
  return chunkOf(edition, number, 0, language, name, sharedName(shared[0] as number).name).id;
}

/** Returns the id of document `number` since 1.5: it depends on the name of the source file. */
function namedDocumentId(number: number): string {
  return `doc-${hash('md5', filePathOf(number))}`;
}

/** Returns the id of a chunk since 1.5. */
function placedChunkId(number: number, index: number): string {
  return `${namedDocumentId(number)}-chunk-${String(index).padStart(CHUNK_DIGITS, '0')}`;
}

/** Returns the name of the source file of document `number`. */
export function filePathOf(number: number): string {
  return `notes-${String(number).padStart(6, '0')}.md`;
}

function ownEntity(seed: number, number: number, index: number, language: Language): Coined {
  return coinedEntity(language, seed, number * ENTITIES_PER_DOCUMENT + index);
}

function chunkOf(
  { seed, version }: Edition,
  number: number,
  index: number,
  language: Language,
  name: string,
  partner: string,
): Chunk {
  const choose = random(mix(seed, STREAM.text, number, index));
  const heading = index === 0 ? `# ${language === 'en' ? 'Notes on ' : '关于'}${name}\n\n` : '';
  const lead = sentence(language, 'relation', choose, name, partner);
  const body = paragraph(language, choose, name, FILLER_MIN + choose(FILLER_SPREAD));
  const content = `${heading}${lead}\n${body}`;
  return {
    id: version === '1.4.9.11' ? `chunk-${hash('md5', content)}` : placedChunkId(number, index),
    content,
    tokens: Math.ceil(content.length * (language === 'en' ? 0.25 : 0.75)),
    vector: [mix(seed, STREAM.chunkVector), number, index],
  };
}

/** Returns the vector of shared entity `index` when `mentions` documents mention it. */
// A merge embeds it anew.
export function sharedVector(seed: number, index: number, mentions: number): VectorKey {
  return [mix(seed, STREAM.sharedVector), index, mentions];
}

/** Returns the vector of the relation between the two shared entities of pair `index`. */
export function pairVector(seed: number, index: number, mentions: number): VectorKey {
  return [mix(seed, STREAM.pairVector), index, mentions];
}

/** Joins chunk ids as graph and vdb files do: the latest 300. */
export function joinedSources(sources: readonly string[]): string {
  return sources.slice(-SOURCES_MAX).join(SEPARATOR);
}
