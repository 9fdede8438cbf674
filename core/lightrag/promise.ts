import type { FactSink, TableName } from './facts.ts';
import { nameNumber } from './name-table.ts';
import { GRAPH_FILES, type GraphFile, IRREPLACEABLE, type Promised, RULES, type Rule } from './rules.ts';
import { common, has, isWithin, NO_NUMBERS, setOf, union, without } from './sorted-numbers.ts';

/** Files that list the entities and relations of each document. Versions before 1.4 wrote neither. */
const NAME_FILES = {
  entities: { file: 'namedEntities', documents: 'entityDocuments', names: 'namedEntities' },
  relations: { file: 'namedRelations', documents: 'relationDocuments', names: 'namedRelations' },
} as const;
type Kind = keyof typeof NAME_FILES;
const KINDS: readonly Kind[] = ['entities', 'relations'];

/** Tables of names whose source chunks may show that they belong to an open document. */
const SOURCED: ReadonlySet<TableName> = new Set(['nodes', 'edges', 'entityVectors', 'relationVectors']);

/** What the checks know of the files of one state. */
export interface FileTables {
  /** Returns the sorted numbers of a table; none for an absent file. */
  numbers(table: TableName): Float64Array;
  state(file: GraphFile): FileState;
}

/**
 * State of a file: read to its end, not there, or with unknown names, because it cannot be read or is an index of
 * another kind. A file that is not there counts as an empty one.
 */
export type FileState = 'read' | 'absent' | 'unknown';

/** Names that violate a rule. */
export interface Violation {
  readonly rule: Rule;
  /** Names that processed documents promise. */
  readonly broken: Float64Array;
  /** Other names that the rule reports. */
  readonly left: Float64Array;
}

/** A file that processed documents need and that is not there. */
export interface MissingFile {
  readonly file: GraphFile;
  readonly state: string;
}

/**
 * Decides which lacking names break the promise of a processed document.
 *
 * A name is not promised while an open document concerns it: one that is not processed lists the name or one of its
 * source chunks. What an unfinished document left is mended when it is processed again.
 */
// Which document lists which name is needed only while some document is open, and sources only for names that are
// lacking then: the files are read again for them, so that whole graphs cost no memory for it.
export class PromiseCheck {
  readonly #tables: FileTables;
  #stage: 'names' | 'sources' | 'done' = 'names';
  /** Names that open documents list. */
  readonly #openNames: Record<Kind, number[]> = { entities: [], relations: [] };
  /** Names that `promised` has returned: the names of open documents are complete by then. */
  readonly #promised = new Map<Kind, Float64Array>();
  /** Lacking names of which the sources are needed, by the table that defines them. */
  #sought = new Map<TableName, Float64Array>();
  /** Source chunks of those names. */
  readonly #sources = new Map<TableName, Map<number, number[]>>();
  /** Chunks of documents that are not processed. */
  readonly #openChunks: number[] = [];

  constructor(tables: FileTables) {
    this.#tables = tables;
  }

  /** Returns the files to read again with `sink` before anything else is called. Call it until there are none. */
  nextReads(): GraphFile[] {
    if (this.#stage === 'names') {
      this.#stage = 'sources';
      const files = KINDS.filter((kind) => this.#needsNames(kind)).map((kind) => NAME_FILES[kind].file);
      if (files.length > 0) return files;
    }
    if (this.#stage === 'sources') {
      this.#stage = 'done';
      return this.#filesOfSources();
    }
    return [];
  }

  /** Returns the sink of a file that is read again. */
  sink(): FactSink {
    const openDocuments = new Set(
      KINDS.flatMap((kind) => [...this.#openDocuments(NAME_FILES[kind].documents)]),
    );
    const openInChunks = new Set(this.#openDocuments('chunkDocuments'));
    let isOpen = false;
    let chunk = 0;
    let sources: number[] | undefined;
    return {
      name: (table, ...parts) => {
        const number = nameNumber(...parts);
        if (table === 'entityDocuments' || table === 'relationDocuments') isOpen = openDocuments.has(number);
        else if (table === 'namedEntities' && isOpen) this.#openNames.entities.push(number);
        else if (table === 'namedRelations' && isOpen) this.#openNames.relations.push(number);
        else if (table === 'chunks') chunk = number;
        else if (table === 'chunkDocuments' && openInChunks.has(number)) this.#openChunks.push(chunk);
        else if (SOURCED.has(table)) sources = this.#sourcesOf(table, number);
      },
      source: (part) => sources?.push(nameNumber(part)),
      flaw: () => {},
      vectors: () => {},
    };
  }

  /** Returns the names that processed documents list and no open document does. */
  promised(kind: Kind): Float64Array {
    const known = this.#promised.get(kind);
    if (known !== undefined) return known;
    const names = this.#tables.numbers(NAME_FILES[kind].names);
    const promised = this.#areAllOpen(kind) ? NO_NUMBERS : without(names, setOf(this.#openNames[kind]));
    this.#promised.set(kind, promised);
    return promised;
  }

  /** Returns the violated rules. */
  violations(missing: ReadonlySet<GraphFile>): Violation[] {
    const openChunks = union(this.#tables.numbers('openChunks'), setOf(this.#openChunks));
    return RULES.flatMap((rule) => {
      if (missing.has(rule.to)) return [];
      const lacking = this.#lacking(rule);
      if (lacking.length === 0) return [];
      const candidates = this.#candidates(rule, lacking);
      const broken = this.#isNameless(rule)
        ? candidates.filter((number) => this.#isPromisedBySources(rule, number))
        : candidates.filter((number) => !this.#isExplained(rule, number, openChunks));
      return [{ rule, broken, left: rule.left === undefined ? NO_NUMBERS : without(lacking, broken) }];
    });
  }

  /**
   * Returns the files that are not there although processed documents need them, or that an earlier state had.
   *
   * `before` are the paths of the files of the newest usable state. A graph that was cleared lacks none.
   */
  missingFiles(before: ReadonlySet<string> | undefined): MissingFile[] {
    const { numbers, state } = this.#tables;
    const holds = (table: TableName) => numbers(table).length > 0;
    const listsNames = this.promised('entities').length > 0;
    const listsPairs = this.promised('relations').length > 0;
    const isUnlisted = (['documents', 'statuses', 'chunks'] as const).every(
      (file) => state(file) === 'absent',
    );
    const needed: Readonly<Partial<Record<GraphFile, readonly [boolean, string]>>> = {
      documents: [holds('processed'), 'documents have been processed'],
      chunks: [holds('promised'), 'documents have been processed'],
      chunkVectors: [holds('promised'), 'documents have been processed'],
      statuses: [common(numbers('documents'), numbers('entityDocuments')).length > 0, 'there are documents'],
      entityVectors: [listsNames, 'processed documents list entities'],
      relationVectors: [listsPairs, 'processed documents list relations'],
      graph: [listsNames || listsPairs, 'processed documents list entities'],
    };
    const isCleared = (['documents', 'statuses', 'chunks', 'nodes'] as const).every((table) => !holds(table));
    const areVectorsGone = (['chunkVectors', 'entityVectors', 'relationVectors'] as const).every(
      (table) => !holds(table),
    );
    return IRREPLACEABLE.flatMap((file) => {
      if (state(file) !== 'absent') return [];
      const [isNeeded, why] = needed[file] ?? [false, ''];
      if (isNeeded) return [{ file, state: `it is not there, though ${why}` }];
      // Statuses and texts come before everything else, so that no operation leaves vectors of chunks alone.
      if (isUnlisted && holds('chunkVectors') && this.#isListing(file))
        return [{ file, state: 'it is not there, though chunks have vectors' }];
      const wasThere = before?.has(GRAPH_FILES[file]) === true && !(isCleared && areVectorsGone);
      return wasThere ? [{ file, state: 'it is not there; the last usable point had it' }] : [];
    });
  }

  /** Returns the files of names that are empty or not there although there are processed documents with entities. */
  // The instance answers 409 to their deletion.
  lostNames(): GraphFile[] {
    const { numbers, state } = this.#tables;
    if (numbers('promised').length === 0) return [];
    return KINDS.filter((kind) => {
      const { file, documents } = NAME_FILES[kind];
      const hasItems = numbers(kind === 'entities' ? 'nodes' : 'edges').length > 0;
      return hasItems && state(file) !== 'unknown' && numbers(documents).length === 0;
    }).map((kind) => NAME_FILES[kind].file);
  }

  #isListing(file: GraphFile): boolean {
    return file === 'documents' || file === 'statuses' || file === 'chunks';
  }

  #lacking({ items, from, known, to, except }: Rule): Float64Array {
    const { state } = this.#tables;
    if (state(from) === 'unknown' || state(to) === 'unknown') return NO_NUMBERS;
    const lacking = without(this.#tables.numbers(items), this.#tables.numbers(known));
    return except === undefined || lacking.length === 0
      ? lacking
      : without(lacking, this.#tables.numbers(except));
  }

  /** Returns the lacking names that are promised as far as names alone show. */
  #candidates(rule: Rule, lacking: Float64Array): Float64Array {
    const { promised } = rule;
    if (promised === undefined) return NO_NUMBERS;
    if (promised === 'all' || this.#isNameless(rule)) return lacking;
    return common(lacking, isKind(promised) ? this.promised(promised) : this.#tables.numbers(promised.table));
  }

  /** Reports whether the sources of names decide, because no file lists the names of documents. */
  #isNameless({ promised }: Rule): boolean {
    const { state } = this.#tables;
    return promised === 'relations' && KINDS.every((kind) => state(NAME_FILES[kind].file) === 'absent');
  }

  #openDocuments(table: TableName): Float64Array {
    return without(this.#tables.numbers(table), this.#tables.numbers('processed'));
  }

  #areAllOpen(kind: Kind): boolean {
    const { documents } = NAME_FILES[kind];
    return common(this.#tables.numbers(documents), this.#tables.numbers('processed')).length === 0;
  }

  #needsNames(kind: Kind): boolean {
    const { documents } = NAME_FILES[kind];
    return this.#openDocuments(documents).length > 0 && !this.#areAllOpen(kind);
  }

  #filesOfSources(): GraphFile[] {
    const hasOpenChunks = this.#tables.numbers('openChunks').length > 0;
    const hasOpenDocuments = this.#openDocuments('chunkDocuments').length > 0;
    const files = new Set<GraphFile>();
    for (const rule of RULES) {
      if (!isKind(rule.promised)) continue;
      if (!hasOpenChunks && !hasOpenDocuments && !this.#isNameless(rule)) continue;
      const lacking = this.#lacking(rule);
      const candidates = lacking.length === 0 ? lacking : this.#candidates(rule, lacking);
      if (candidates.length === 0) continue;
      this.#sought.set(rule.items, candidates);
      files.add(rule.from);
      if (hasOpenDocuments) files.add('chunks');
    }
    return [...files];
  }

  #sourcesOf(table: TableName, number: number): number[] | undefined {
    const sought = this.#sought.get(table);
    if (sought === undefined || !has(sought, number)) return undefined;
    const found = this.#sources.get(table) ?? new Map<number, number[]>();
    this.#sources.set(table, found);
    const sources = found.get(number) ?? [];
    found.set(number, sources);
    return sources;
  }

  #isExplained({ items }: Rule, number: number, openChunks: Float64Array): boolean {
    return (
      this.#sources
        .get(items)
        ?.get(number)
        ?.some((chunk) => has(openChunks, chunk)) === true
    );
  }

  #isPromisedBySources({ items }: Rule, number: number): boolean {
    const sources = setOf(this.#sources.get(items)?.get(number) ?? []);
    return sources.length > 0 && isWithin(sources, this.#tables.numbers('promised'));
  }
}

function isKind(promised: Promised | undefined): promised is Kind {
  return promised === 'entities' || promised === 'relations';
}
