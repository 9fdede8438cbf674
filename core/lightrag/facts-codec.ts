import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  type GraphFacts,
  GraphFactsSchema,
  type GraphFlaw,
  UnitKind_Value,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { LightkeeperError } from '../errors.ts';
import { KNOWN_FIELDS } from '../proto-limits.ts';
import { unitId } from '../unit.ts';
import { TABLES, type TableName } from './facts.ts';

/** All that the checks need to know of a file that is in its layout. */
export interface FileFacts {
  /** Names as numbers, each once, in order. */
  readonly tables: ReadonlyMap<TableName, Float64Array>;
  /** Some of those that the file has more than once. */
  readonly repeated: ReadonlyMap<TableName, readonly number[]>;
  readonly flaws: readonly Pick<GraphFlaw, 'code' | 'count' | 'keys'>[];
  readonly vectors: number;
  readonly dimension: number;
  /** Where in the file the text of its matrix begins; 0 where that is short, or there is none. */
  readonly matrixAt: number;
  /** States of the file since all of it was read. */
  readonly incrementalChecks: number;
  /** Names that findings were about, with their numbers. */
  readonly names: readonly (readonly [number: number, name: string])[];
}

/** Facts as they are stored: a chain of units, each of which names the one before it. */
export interface StoredFacts {
  readonly facts: FileFacts;
  /** Id of the last unit. */
  readonly lastId: Buffer;
  readonly parts: number;
  readonly firstParts: number;
}

/** Version of the readers and of what they note: facts of another one are not used. */
export const FACTS_VERSION = 1;

const NUMBER_BYTES = 8;
/** Numbers in one unit: 128 KiB. */
const PART_NUMBERS = 16_384;
/** Units of changes behind those that hold the facts as they were first noted. */
const CHANGES_MAX = 64;
/** Longer chains are no chains. */
const PARTS_MAX = 1 << 16;

/** What came and went from one sorted table to another. */
export interface TableChange {
  readonly added: number[];
  readonly removed: number[];
}

const EMPTY: Float64Array = new Float64Array(0);

/** Compares two tables of numbers, each in order. */
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

function numberBytes(numbers: readonly number[]): Uint8Array {
  const bytes = Buffer.allocUnsafe(numbers.length * NUMBER_BYTES);
  for (const [i, number] of numbers.entries()) bytes.writeDoubleLE(number, i * NUMBER_BYTES);
  return bytes;
}

function numbersOf(bytes: Uint8Array): Float64Array {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const numbers = new Float64Array(Math.floor(view.length / NUMBER_BYTES));
  for (let i = 0; i < numbers.length; i++) numbers[i] = view.readDoubleLE(i * NUMBER_BYTES);
  return numbers;
}

/** Changes of tables, cut into what one unit holds. */
function* pieces(changes: ReadonlyMap<TableName, TableChange>) {
  let part: { name: string; added: Uint8Array; removed: Uint8Array }[] = [];
  let room = PART_NUMBERS;
  for (const [name, change] of changes) {
    for (const kind of ['added', 'removed'] as const) {
      const numbers = change[kind];
      for (let from = 0; from < numbers.length; ) {
        const some = numbers.slice(from, from + room);
        const none = new Uint8Array();
        part.push({ name, added: none, removed: none, [kind]: numberBytes(some) });
        from += some.length;
        room -= some.length;
        if (room > 0) continue;
        yield part;
        part = [];
        room = PART_NUMBERS;
      }
    }
  }
  yield part;
}

/**
 * The units that note facts: changes of what was noted before, or all anew where that is not much more. Answers the
 * units in order, each to be stored, and what is then noted.
 */
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
  const anew = before === undefined || changed * 2 > held || before.parts - before.firstParts >= CHANGES_MAX;
  if (anew && before !== undefined) return encodeFacts(facts, undefined);
  const parts = [...pieces(changes)];
  const firstParts = before?.firstParts ?? parts.length;
  let count = before?.parts ?? 0;
  let last = before?.lastId ?? Buffer.alloc(0);
  const units: Buffer[] = [];
  for (const [i, tables] of parts.entries()) {
    const message = create(GraphFactsSchema, { before: last, parts: count, firstParts, tables });
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
  message.flaws = facts.flaws.map(({ code, count, keys }) => ({
    $typeName: 'lightkeeper.v1.GraphFlaw',
    code,
    count,
    keys: [...keys],
  }));
  message.vectors = BigInt(facts.vectors);
  message.dimension = facts.dimension;
  message.matrixAt = BigInt(facts.matrixAt);
  message.unread = facts.incrementalChecks;
  message.names = facts.names.map(([number, name]) => ({
    $typeName: 'lightkeeper.v1.GraphName',
    number,
    name,
  }));
  for (const [name, numbers] of facts.repeated) {
    if (numbers.length === 0) continue;
    const none = new Uint8Array();
    const repeatedNumbers = numberBytes(numbers);
    message.tables.push({
      $typeName: 'lightkeeper.v1.GraphTable',
      name,
      added: none,
      removed: none,
      repeatedNumbers,
    });
  }
}

function damaged(state: string): LightkeeperError {
  return new LightkeeperError('DAMAGED', `Cannot read the facts of a graph: ${state}`);
}

/** Reads one unit of facts. */
export function parseFactsUnit(bytes: Uint8Array): GraphFacts {
  try {
    const part = fromBinary(GraphFactsSchema, bytes, KNOWN_FIELDS);
    if (part.parts < PARTS_MAX && (part.parts === 0) === (part.before.length === 0)) return part;
  } catch (error) {
    throw new LightkeeperError('DAMAGED', 'Cannot read the facts of a graph: they do not parse', {
      cause: error,
    });
  }
  throw damaged('their chain does not hold');
}

/** A table as it is put together: as it was first noted, and which numbers came (true) or went since. */
interface TableParts {
  readonly first: Float64Array[];
  readonly since: Map<number, boolean>;
}

/** What is noted in a chain of units, given in order, the first part first. DAMAGED if they do not make one. */
export function decodeFacts(units: readonly Uint8Array[]): StoredFacts {
  const growing = new Map<TableName, TableParts>();
  let last: GraphFacts | undefined;
  for (const [i, unit] of units.entries()) {
    const part = parseFactsUnit(unit);
    if (part.parts !== i) throw damaged('their chain does not hold');
    last = part;
    for (const { name, added, removed } of part.tables) {
      if (!isTable(name)) throw damaged('it names no table');
      const table: TableParts = growing.get(name) ?? { first: [], since: new Map() };
      growing.set(name, table);
      if (i < part.firstParts) table.first.push(numbersOf(added));
      else for (const number of numbersOf(added)) table.since.set(number, true);
      for (const number of numbersOf(removed)) table.since.set(number, false);
    }
  }
  if (last === undefined) throw damaged('there are none');
  const repeated = new Map<TableName, number[]>();
  for (const { name, repeatedNumbers } of last.tables)
    if (repeatedNumbers.length > 0 && isTable(name)) repeated.set(name, [...numbersOf(repeatedNumbers)]);
  return {
    facts: {
      tables: new Map([...growing].map(([name, table]) => [name, mergeTable(table)])),
      repeated,
      flaws: last.flaws,
      vectors: Number(last.vectors),
      dimension: last.dimension,
      matrixAt: Number(last.matrixAt),
      incrementalChecks: last.unread,
      names: last.names.map(({ number, name }) => [number, name] as const),
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
  for (const [number, isThere] of since) if (isThere) numbers[kept++] = number;
  const table = numbers.subarray(0, kept);
  return since.size === 0 && isSorted(table) ? table : table.sort();
}

function isSorted(numbers: Float64Array): boolean {
  for (let i = 1; i < numbers.length; i++)
    if ((numbers[i - 1] as number) >= (numbers[i] as number)) return false;
  return true;
}
