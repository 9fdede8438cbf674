import type { TableName } from './facts.ts';
import type { FileFacts } from './facts-codec.ts';
import { TABLES_OF, UNIQUE } from './rules.ts';

/** Tables in which a name comes from a single record, unless the file contains the name twice. */
const UNIQUE_TABLES: ReadonlySet<string> = new Set([
  ...Object.keys(UNIQUE),
  'begun',
  'nodeStates',
  'edgeStates',
  'entityStates',
  'relationStates',
]);

const NONE: Float64Array = new Float64Array(0);

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
    const [old, gone, come] = [previous, removed, added].map((facts) => facts.tables.get(name) ?? NONE);
    const table = (UNIQUE_TABLES.has(name) ? replaceUnique : addShared)(
      old ?? NONE,
      gone ?? NONE,
      come ?? NONE,
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
  return without(gone, come).length > 0 ? undefined : union(old, come);
}

function without(numbers: Float64Array, others: Float64Array): Float64Array {
  const kept = new Float64Array(numbers.length);
  let length = 0;
  let at = 0;
  for (const number of numbers) {
    while (at < others.length && (others[at] as number) < number) at += 1;
    if (others[at] !== number) kept[length++] = number;
  }
  return kept.subarray(0, length);
}

function union(numbers: Float64Array, others: Float64Array): Float64Array {
  const all = new Float64Array(numbers.length + others.length);
  let length = 0;
  let at = 0;
  for (const number of numbers) {
    while (at < others.length && (others[at] as number) < number) all[length++] = others[at++] as number;
    if (others[at] === number) at += 1;
    all[length++] = number;
  }
  for (; at < others.length; at++) all[length++] = others[at] as number;
  return all.subarray(0, length);
}
