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

/** What LightRAG puts between the parts of a merged value. */
export const SEPARATOR = '<SEP>';

const SOURCES_MAX = 300;
const CHUNKS_MAX = 5;
const FILLER_MIN = 3;
const FILLER_SPREAD = 4;
const ENTITIES_PER_DOCUMENT = 8;

/** One past the largest document number. */
export const DOCUMENT_LIMIT = COINED_LIMIT / ENTITIES_PER_DOCUMENT;

/** One document in how many speaks of two shared entities and so of the relation between them. */
const PAIR_EVERY = 4;
const SECONDS_PER_DOCUMENT = 20;

/** Each use of the seed has a stream of its own. */
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

/** What can be told of a document without writing it. */
export interface Shape {
  readonly language: Language;
  readonly chunkCount: number;
  /** The shared entities that its first chunk speaks of: one, or the two of a pair. */
  readonly shared: readonly number[];
}

export interface Chunk {
  readonly id: string;
  readonly content: string;
  readonly tokens: number;
  readonly vector: VectorKey;
}

/** Where an entity or relation is from. */
export interface Origin {
  /** The chunks that speak of it. */
  readonly sources: readonly string[];
  readonly filePath: string;
  /** Unix seconds. */
  readonly createdAt: number;
  /** Whether several documents have spoken of it. */
  readonly isMerged: boolean;
  readonly vector: VectorKey;
}

export interface Entity extends Origin {
  readonly name: string;
  readonly type: string;
  readonly description: string;
}

export interface Relation extends Origin {
  /** Its two entities, first the one that was in the graph before. */
  readonly ends: readonly [string, string];
  readonly keywords: string;
  readonly description: string;
  readonly weight: number;
}

/** A document and all that was extracted from it: chunk i made entity i and relation i. */
export interface Document {
  readonly number: number;
  readonly id: string;
  readonly content: string;
  readonly filePath: string;
  /** Unix seconds. */
  readonly createdAt: number;
  readonly language: Language;
  readonly chunks: readonly Chunk[];
  readonly entities: readonly Entity[];
  readonly relations: readonly Relation[];
  readonly shared: readonly number[];
}

/** The shape of document `number`. */
export function shapeOf(seed: number, number: number): Shape {
  const choose = random(mix(seed, STREAM.shape, number));
  const language = choose(2) === 0 ? 'en' : 'zh';
  const chunkCount = 1 + choose(CHUNKS_MAX);
  // The smaller of two: a few entities are spoken of everywhere, as in real graphs.
  const shared = Math.min(choose(SHARED_NAMES), choose(SHARED_NAMES));
  return { language, chunkCount, shared: choose(PAIR_EVERY) === 0 ? [shared, shared ^ 1] : [shared] };
}

/** When document `number` was ingested, in Unix seconds. */
export function ingestedAt(seed: number, number: number): number {
  return 1_700_000_000 + (mix(seed, STREAM.start) % 50_000_000) + number * SECONDS_PER_DOCUMENT;
}

/** Document `number`: the same for the same seed, whatever else is in the corpus. */
export function documentOf(seed: number, number: number): Document {
  const { language, chunkCount, shared } = shapeOf(seed, number);
  const own = Array.from({ length: chunkCount }, (_, i) => ownEntity(seed, number, i, language));
  const partners = [sharedName(shared[0] as number).name, ...own.map(({ name }) => name)];
  const chunks = own.map(({ name }, i) => chunkOf(seed, number, i, language, name, partners[i] as string));
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
  const id = `doc-${hash('md5', content)}`;
  return { number, id, content, filePath, createdAt, language, chunks, entities, relations, shared };
}

/** The id of the first chunk of document `number`, without writing the others. */
export function firstChunkId(seed: number, number: number): string {
  const { language, shared } = shapeOf(seed, number);
  const { name } = ownEntity(seed, number, 0, language);
  return chunkOf(seed, number, 0, language, name, sharedName(shared[0] as number).name).id;
}

/** The name of the file that document `number` was read from. */
export function filePathOf(number: number): string {
  return `notes-${String(number).padStart(6, '0')}.md`;
}

function ownEntity(seed: number, number: number, index: number, language: Language): Coined {
  return coinedEntity(language, seed, number * ENTITIES_PER_DOCUMENT + index);
}

function chunkOf(
  seed: number,
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
    id: `chunk-${hash('md5', content)}`,
    content,
    tokens: Math.ceil(content.length * (language === 'en' ? 0.25 : 0.75)),
    vector: [mix(seed, STREAM.chunkVector), number, index],
  };
}

/** The vector of shared entity `index` once `mentions` documents speak of it: merging embeds it anew. */
export function sharedVector(seed: number, index: number, mentions: number): VectorKey {
  return [mix(seed, STREAM.sharedVector), index, mentions];
}

/** The vector of the relation between the two shared entities of pair `index`. */
export function pairVector(seed: number, index: number, mentions: number): VectorKey {
  return [mix(seed, STREAM.pairVector), index, mentions];
}

/** The chunk ids of a merged entity or relation as graph and vdb files have them: the latest 300. */
export function joinedSources(sources: readonly string[]): string {
  return sources.slice(-SOURCES_MAX).join(SEPARATOR);
}
