import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  type GraphFacts,
  GraphFactsSchema,
  type GraphFlaw,
  GraphFlawSchema,
  GraphNameSchema,
  type GraphTable,
  GraphTableSchema,
} from '../../gen/lightkeeper/store/v1/graph_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { LightkeeperError } from '../errors.ts';
import { KNOWN_FIELDS } from '../proto-limits.ts';
import { unitId } from '../unit.ts';
import { TABLES, type TableName } from './facts.ts';

/** Everything that the checks need of one well-formed file. */
export interface FileFacts {
  /** Sorted, unique numbers of the names in each table. */
  readonly tables: ReadonlyMap<TableName, Float64Array>;
  /** A sample of the numbers that occur more than once in each table. */
  readonly repeated: ReadonlyMap<TableName, readonly number[]>;
  readonly flaws: readonly Pick<GraphFlaw, 'code' | 'count' | 'keys'>[];
  readonly vectors: number;
  readonly dimension: number;
  /** Offset of the matrix text in the file; 0 if it is too short to be skipped, or absent. */
  readonly matrixAt: number;
  /** Consecutive incremental checks of this file; 0 means it was read in full. */
  readonly incrementalChecks: number;
  /** Names that findings referred to. */
  readonly names: readonly NamedNumber[];
}

/** A name with its number, and the documents that list it. */
export interface NamedNumber {
  readonly number: number;
  readonly name: string;
  /** Empty where no finding names them. */
  readonly documents: readonly string[];
}

/** Facts in the store: a chain of units, each of which names the one before. */
export interface StoredFacts {
  readonly facts: FileFacts;
  /** Id of the last unit. */
  readonly lastId: Buffer;
  readonly parts: number;
  readonly firstParts: number;
}

/** Version of the readers and of the facts. Facts of another version are not used. */
export const FACTS_VERSION = 2;

const NUMBER_BYTES = 8;
/** Numbers in one unit: 128 KiB. */
const PART_NUMBERS = 16_384;
/** Most units of changes after the units of the complete facts. */
const CHANGES_MAX = 64;
/** Most units of a chain. */
const PARTS_MAX = 1 << 16;

/** The numbers added and removed between two sorted tables. */
export interface TableChange {
  readonly added: number[];
  readonly removed: number[];
}

const EMPTY: Float64Array = new Float64Array(0);

/** Compares two sorted tables of numbers. */
export function tableChange(before: Float64Array = EMPTY, after: Float64Array = EMPTY): TableChange {
  const change: TableChange = { added: [], removed: [] };
  let at = 0;
  for (const number of after) {
    while (at < before.length && (before[at] as number) < number) change.removed.push(before[at++] as number);
    if (before[at] === number) at += 1;
    else change.added.push(number);
  }
  while (at < before.length) change.removed.push(before[at++] as number);
  return change;
}

/** A hash has 53 bits: two words of 32 bits hold it. */
const WORD = 2 ** 32;

/** Encodes numbers as the stored messages hold them. */
export function numberBytes(numbers: ArrayLike<number> & Iterable<number>): Uint8Array {
  const bytes = Buffer.allocUnsafe(numbers.length * NUMBER_BYTES);
  let at = 0;
  for (const number of numbers) {
    bytes.writeUInt32LE(number % WORD, at);
    bytes.writeUInt32LE(Math.floor(number / WORD), at + 4);
    at += NUMBER_BYTES;
  }
  return bytes;
}

/** Decodes the numbers of a stored message. */
export function numbersOf(bytes: Uint8Array): Float64Array {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const numbers = new Float64Array(Math.floor(view.length / NUMBER_BYTES));
  for (let i = 0; i < numbers.length; i++)
    numbers[i] = view.readUInt32LE(i * NUMBER_BYTES) + view.readUInt32LE(i * NUMBER_BYTES + 4) * WORD;
  return numbers;
}

/** Splits the changes of tables into parts of one unit each. */
function* pieces(changes: ReadonlyMap<TableName, TableChange>) {
  let part: GraphTable[] = [];
  let left = PART_NUMBERS;
  for (const [name, change] of changes) {
    for (const kind of ['added', 'removed'] as const) {
      const numbers = change[kind];
      for (let from = 0; from < numbers.length; ) {
        const some = numbers.slice(from, from + left);
        const table = create(GraphTableSchema, { name });
        table[kind] = numberBytes(some);
        part.push(table);
        from += some.length;
        left -= some.length;
        if (left > 0) continue;
        yield part;
        part = [];
        left = PART_NUMBERS;
      }
    }
  }
  yield part;
}

/** Encodes facts as units: the changes since `before`, or the complete facts. Returns the units in order. */
// Complete facts cost little more than changes of most of them, and short chains are read faster.
export function encodeFacts(
  facts: FileFacts,
  before: StoredFacts | undefined,
): { units: Buffer[]; stored: StoredFacts } {
  const old = before?.facts.tables;
  const changes = new Map([...facts.tables].map(([name, now]) => [name, tableChange(old?.get(name), now)]));
  let changed = 0;
  let held = 0;
  for (const { added, removed } of changes.values()) changed += added.length + removed.length;
  for (const now of facts.tables.values()) held += now.length;
  const isComplete =
    before === undefined || changed * 2 > held || before.parts - before.firstParts >= CHANGES_MAX;
  if (isComplete && before !== undefined) return encodeFacts(facts, undefined);
  const parts = [...pieces(changes)];
  const firstParts = before?.firstParts ?? parts.length;
  let count = before?.parts ?? 0;
  let last = before?.lastId ?? Buffer.alloc(0);
  const units: Buffer[] = [];
  for (const [i, tables] of parts.entries()) {
    const message = create(GraphFactsSchema, { previous: last, parts: count, firstParts, tables });
    if (i === parts.length - 1) finishPart(message, facts);
    const { buffer, byteOffset, byteLength } = toBinary(GraphFactsSchema, message);
    const unit = Buffer.from(buffer, byteOffset, byteLength);
    units.push(unit);
    last = unitId(UnitKind_Value.GRAPH, unit);
    count += 1;
  }
  return { units, stored: { facts, lastId: last, parts: count, firstParts } };
}

function finishPart(message: GraphFacts, facts: FileFacts): void {
  message.flaws = facts.flaws.map(({ code, count, keys }) =>
    create(GraphFlawSchema, { code, count, keys: [...keys] }),
  );
  message.vectors = BigInt(facts.vectors);
  message.dimension = facts.dimension;
  message.matrixAt = BigInt(facts.matrixAt);
  message.incrementalChecks = facts.incrementalChecks;
  message.names = facts.names.map(({ number, name, documents }) =>
    create(GraphNameSchema, { hash: BigInt(number), name, documents: [...documents] }),
  );
  for (const [name, numbers] of facts.repeated) {
    if (numbers.length === 0) continue;
    message.tables.push(create(GraphTableSchema, { name, repeatedHashes: numberBytes(numbers) }));
  }
}

function damaged(state: string): LightkeeperError {
  return new LightkeeperError('DAMAGED', `Cannot read the facts of a graph: ${state}`);
}

/** Parses one unit of facts. Throws DAMAGED. */
export function parseFactsUnit(bytes: Uint8Array): GraphFacts {
  try {
    const part = fromBinary(GraphFactsSchema, bytes, KNOWN_FIELDS);
    if (part.parts < PARTS_MAX && (part.parts === 0) === (part.previous.length === 0)) return part;
  } catch (error) {
    throw new LightkeeperError('DAMAGED', 'Cannot read the facts of a graph: they do not parse', {
      cause: error,
    });
  }
  throw damaged('their chain is broken');
}

/** A table under construction: the numbers of its complete facts, and those added (true) or removed since. */
interface TableParts {
  readonly first: Float64Array[];
  readonly since: Map<number, boolean>;
}

/** Decodes a chain of units, the first unit first. Throws DAMAGED if they are no chain. */
export function decodeFacts(units: readonly Uint8Array[]): StoredFacts {
  const growing = new Map<TableName, TableParts>();
  let last: GraphFacts | undefined;
  for (const [i, unit] of units.entries()) {
    const part = parseFactsUnit(unit);
    if (part.parts !== i) throw damaged('their chain is broken');
    last = part;
    for (const { name, added, removed } of part.tables) {
      if (!isTable(name)) throw damaged('they name an unknown table');
      const table: TableParts = growing.get(name) ?? { first: [], since: new Map() };
      growing.set(name, table);
      if (i < part.firstParts) table.first.push(numbersOf(added));
      else for (const number of numbersOf(added)) table.since.set(number, true);
      for (const number of numbersOf(removed)) table.since.set(number, false);
    }
  }
  if (last === undefined) throw damaged('there are none');
  const repeated = new Map<TableName, number[]>();
  for (const { name, repeatedHashes } of last.tables)
    if (repeatedHashes.length > 0 && isTable(name)) repeated.set(name, [...numbersOf(repeatedHashes)]);
  return {
    facts: {
      tables: new Map([...growing].map(([name, table]) => [name, mergeTable(table)])),
      repeated,
      flaws: last.flaws,
      vectors: Number(last.vectors),
      dimension: last.dimension,
      matrixAt: Number(last.matrixAt),
      incrementalChecks: last.incrementalChecks,
      names: last.names.map(({ hash, name, documents }) => ({ number: Number(hash), name, documents })),
    },
    lastId: unitId(UnitKind_Value.GRAPH, units.at(-1) ?? new Uint8Array()),
    parts: units.length,
    firstParts: last.firstParts,
  };
}

function isTable(name: string): name is TableName {
  return (TABLES as readonly string[]).includes(name);
}

function mergeTable({ first, since }: TableParts): Float64Array {
  const length = first.reduce((sum, part) => sum + part.length, 0);
  const numbers = new Float64Array(length + since.size);
  let kept = 0;
  for (const part of first) for (const number of part) if (!since.has(number)) numbers[kept++] = number;
  for (const [number, isPresent] of since) if (isPresent) numbers[kept++] = number;
  const table = numbers.subarray(0, kept);
  return since.size === 0 && isSorted(table) ? table : table.sort();
}

function isSorted(numbers: Float64Array): boolean {
  for (let i = 1; i < numbers.length; i++)
    if ((numbers[i - 1] as number) >= (numbers[i] as number)) return false;
  return true;
}
