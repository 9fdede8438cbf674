import {
  type Document,
  documentOf,
  type Edition,
  type Entity,
  filePathOf,
  firstChunkId,
  ingestedAt,
  type Origin,
  pairVector,
  type Relation,
  SEPARATOR,
  shapeOf,
  sharedVector,
} from './document.ts';
import { keywords, SHARED_NAMES, sentence, sharedName } from './prose.ts';
import { mix, random } from './random.ts';
import { NEWEST } from './version.ts';

/** Everything that the files of a directory depend on. */
export interface Contents extends Edition {
  /** Dimensions of a vector. */
  readonly dimension: number;
  /** Whether vdb rows have a `vector` field; LightRAG before 1.4.7 wrote the matrix alone. */
  readonly vectorField: boolean;
  /** Number of documents ever ingested; they are numbered from 1. */
  readonly ingested: number;
  /** Numbers of the documents deleted since. */
  readonly deleted: readonly number[];
  /** Number of documents ingested at the time of each query of `growCache`. */
  readonly queries: readonly number[];
}

/** Contents, of the newest version if none is given. */
export type UnversionedContents = Omit<Contents, 'version'> & Partial<Pick<Contents, 'version'>>;

/** Contents with the mentions of shared entities. */
export interface Corpus extends Contents {
  readonly isDeleted: ReadonlySet<number>;
  /** Mentions of each shared entity, by its number. */
  readonly shared: readonly Merged[];
  /** Mentions of each pair of shared entities, by half the number of either. */
  readonly pairs: readonly Merged[];
}

/** Something that several documents mention. */
// A deletion does not move it, so deleted documents count for its place.
interface Merged {
  /** Number of the first document that mentioned it; 0 for none. */
  first: number;
  /** Number of the last document that mentioned it; 0 for none. */
  last: number;
  /** Numbers of the existing documents that mention it. */
  readonly mentions: number[];
}

/** Most descriptions that LightRAG joins before it asks a model for a summary. */
const DESCRIPTIONS_MAX = 6;
const FILE_PATHS_MAX = 3;

/** Finds the mentions of all shared entities. */
// This is the only part of a corpus in memory, a few bytes per document.
export function corpusOf({ version = NEWEST, ...others }: UnversionedContents): Corpus {
  const contents = { version, ...others };
  const nobody = (): Merged => ({ first: 0, last: 0, mentions: [] });
  const shared = Array.from({ length: SHARED_NAMES }, nobody);
  const pairs = Array.from({ length: SHARED_NAMES / 2 }, nobody);
  const isDeleted = new Set(contents.deleted);
  for (let number = 1; number <= contents.ingested; number += 1) {
    const indices = shapeOf(contents.seed, number).shared;
    const merged = indices.map((index) => shared[index] as Merged);
    if (indices.length === 2) merged.push(pairs[pairIndex(indices)] as Merged);
    for (const one of merged) {
      one.first ||= number;
      one.last = number;
      if (!isDeleted.has(number)) one.mentions.push(number);
    }
  }
  return { ...contents, isDeleted, shared, pairs };
}

/** Number of rows of the three vdb files. */
export interface RowCounts {
  readonly chunks: number;
  readonly entities: number;
  readonly relationships: number;
}

/** Returns the number of rows of each vdb file. */
export function rowCounts(contents: Contents): RowCounts {
  const { isDeleted, shared, pairs } = corpusOf(contents);
  let chunks = 0;
  for (let number = 1; number <= contents.ingested; number += 1) {
    if (!isDeleted.has(number)) chunks += shapeOf(contents.seed, number).chunkCount;
  }
  const alive = (merged: readonly Merged[]): number => merged.filter((one) => one.mentions.length > 0).length;
  return { chunks, entities: chunks + alive(shared), relationships: chunks + alive(pairs) };
}

/** Yields the numbers of the existing documents, oldest first. */
export function* documentNumbers(corpus: Corpus): Generator<number> {
  for (let number = 1; number <= corpus.ingested; number += 1) {
    if (!corpus.isDeleted.has(number)) yield number;
  }
}

/** Yields the existing documents, oldest first. */
export function* documents(corpus: Corpus): Generator<Document> {
  for (const number of documentNumbers(corpus)) yield documentOf(corpus, number);
}

/** Yields all entities in the order of their first mention; a merged one keeps its place. */
export function* entities(corpus: Corpus): Generator<Entity> {
  for (let number = 1; number <= corpus.ingested; number += 1) {
    for (const index of sharedSince(corpus, number)) yield sharedEntity(corpus, index);
    if (!corpus.isDeleted.has(number)) yield* documentOf(corpus, number).entities;
  }
}

/** Yields all relations in the order of their `first` or `last` mention. */
export function* relations(corpus: Corpus, place: 'first' | 'last'): Generator<Relation> {
  for (let number = 1; number <= corpus.ingested; number += 1) {
    if (!corpus.isDeleted.has(number)) yield* documentOf(corpus, number).relations;
    const { shared } = shapeOf(corpus.seed, number);
    const pair = shared.length === 2 ? corpus.pairs[pairIndex(shared)] : undefined;
    if (pair?.[place] === number && pair.mentions.length > 0) yield sharedRelation(corpus, pairIndex(shared));
  }
}

/** Yields all relations in networkx's order: node by node, the neighbours not seen before. */
export function* edges(corpus: Corpus): Generator<Relation> {
  for (let number = 1; number <= corpus.ingested; number += 1) {
    for (const index of sharedSince(corpus, number)) yield* sharedEdges(corpus, index);
    if (!corpus.isDeleted.has(number)) yield* documentOf(corpus, number).relations.slice(1);
  }
}

/** Returns the ends of the relation between the two shared entities of a document. */
export function pairEnds(corpus: Corpus, indices: readonly number[]): [string, string] {
  const ranked = [...indices].sort((a, b) => rank(corpus, a) - rank(corpus, b));
  return ranked.map((index) => sharedName(index).name) as [string, string];
}

function* sharedEdges(corpus: Corpus, index: number): Generator<Relation> {
  const isFirst = rank(corpus, index) < rank(corpus, index ^ 1);
  if (isFirst && corpus.pairs[index >> 1]?.mentions.length) yield sharedRelation(corpus, index >> 1);
  for (const number of corpus.shared[index]?.mentions ?? []) {
    if (shapeOf(corpus.seed, number).shared[0] === index) {
      yield documentOf(corpus, number).relations[0] as Relation;
    }
  }
}

/** Returns the shared entities that document `number` introduced and that still have mentions. */
function sharedSince(corpus: Corpus, number: number): number[] {
  return shapeOf(corpus.seed, number).shared.filter((index) => {
    const merged = corpus.shared[index] as Merged;
    return merged.first === number && merged.mentions.length > 0;
  });
}

const pairIndex = (indices: readonly number[]): number => (indices[0] as number) >> 1;

/** Returns the rank of a shared entity among the nodes; of two introduced together the first named ranks first. */
function rank(corpus: Corpus, index: number): number {
  const { first } = corpus.shared[index] as Merged;
  if (first === 0) return Number.POSITIVE_INFINITY;
  return first + shapeOf(corpus.seed, first).shared.indexOf(index) / 2;
}

function sharedEntity(corpus: Corpus, index: number): Entity {
  const merged = corpus.shared[index] as Merged;
  const { mentions } = merged;
  const { name, language } = sharedName(index);
  return {
    name,
    type: 'organization',
    description: mergedDescription(mentions, (number) =>
      sentence(language, 'entity', random(mix(corpus.seed, index, number)), name),
    ),
    ...mergedOrigin(corpus, merged),
    vector: sharedVector(corpus.seed, index, mentions.length),
  };
}

function sharedRelation(corpus: Corpus, index: number): Relation {
  const merged = corpus.pairs[index] as Merged;
  const { mentions } = merged;
  const ends = pairEnds(corpus, [index * 2, index * 2 + 1]);
  const choose = random(mix(corpus.seed, index));
  return {
    ends,
    keywords: keywords('en', choose),
    description: mergedDescription(mentions, (number) =>
      sentence('en', 'relation', random(mix(corpus.seed, index, number)), ...ends),
    ),
    weight: mentions.length,
    ...mergedOrigin(corpus, merged),
    vector: pairVector(corpus.seed, index, mentions.length),
  };
}

/** Joins the descriptions of all documents, or summarises in the words of the latest. */
function mergedDescription(mentions: readonly number[], describe: (number: number) => string): string {
  if (mentions.length <= DESCRIPTIONS_MAX) return mentions.map(describe).join(SEPARATOR);
  return mentions.slice(-2).map(describe).join(' ');
}

function mergedOrigin(corpus: Corpus, { first, last, mentions }: Merged): Omit<Origin, 'vector'> {
  return {
    sources: mentions.map((number) => firstChunkId(corpus, number)),
    filePath: mentions.slice(0, FILE_PATHS_MAX).map(filePathOf).join(SEPARATOR),
    createdAt: ingestedAt(corpus.seed, mentions.at(-1) as number),
    isMerged: first !== last,
  };
}
