import type { TableName } from './facts.ts';
import type { FileFacts } from './facts-codec.ts';
import { TABLES_OF, UNIQUE } from './rules.ts';
import { isWithin, NO_NUMBERS, union, without } from './sorted-numbers.ts';

/** Tables in which a name comes from a single record, unless the file contains the name twice. */
const UNIQUE_TABLES: ReadonlySet<string> = new Set([
  ...UNIQUE,
  'processed',
  'untypedNodes',
  'entityDocuments',
  'relationDocuments',
]);

/** Facts of the records in which two states of a file differ. */
export interface FactsChange {
  /** Facts of the records in the previous state only. */
  readonly removed: FileFacts;
  /** Facts of the records in the new state only. */
  readonly added: FileFacts;
}

/**
 * Derives the facts of a partly changed file from its previous facts and those of the changed records.
 *
 * Returns undefined if the whole file must be read.
 */
// A name that disappeared from the changed records may occur in others, and a new name may occur there already.
export function patchFacts(
  path: string,
  previous: FileFacts,
  { removed, added }: FactsChange,
): FileFacts | undefined {
  const isFlawed = ({ flaws, repeated }: FileFacts) =>
    flaws.length > 0 || [...repeated.values()].some(({ length }) => length > 0);
  if ([previous, removed, added].some(isFlawed) || previous.dimension !== added.dimension) return undefined;
  const tables = new Map<TableName, Float64Array>();
  for (const name of TABLES_OF.get(path) ?? []) {
    const [old, gone, come] = [previous, removed, added].map((facts) => facts.tables.get(name) ?? NO_NUMBERS);
    const table = (UNIQUE_TABLES.has(name) ? replaceUnique : addShared)(
      old ?? NO_NUMBERS,
      gone ?? NO_NUMBERS,
      come ?? NO_NUMBERS,
    );
    if (table === undefined) return undefined;
    tables.set(name, table);
  }
  const { vectors, matrixAt } = added;
  return { ...previous, tables, vectors, matrixAt, incrementalChecks: previous.incrementalChecks + 1 };
}

/** Returns `old` without `gone` and with `come`; undefined unless each name belongs to a single record. */
function replaceUnique(old: Float64Array, gone: Float64Array, come: Float64Array): Float64Array | undefined {
  const kept = without(old, gone);
  if (kept.length !== old.length - gone.length) return undefined;
  const all = union(kept, come);
  return all.length === kept.length + come.length ? all : undefined;
}

/** Returns `old` with `come`; undefined if a name in `gone` is not in `come`. */
function addShared(old: Float64Array, gone: Float64Array, come: Float64Array): Float64Array | undefined {
  return isWithin(gone, come) ? union(old, come) : undefined;
}
