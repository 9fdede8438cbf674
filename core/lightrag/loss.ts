import type { Finding, GraphStats } from '../../gen/lightkeeper/v1/types_pb.ts';
import { warning } from '../finding.ts';
import type { TableName } from './facts.ts';
import { type FileFacts, tableChange } from './facts-codec.ts';

/** What may be lost from one point to the next without an alarm. */
export const LOSS_SHARE = 0.25;
/** Fewer than this are lost by hand, one after another. */
const LOSS_MIN = 2n;

/** What is counted, and the words for one and for several. */
const COUNTED: readonly (readonly [table: TableName, one: string, several: string])[] = [
  ['documents', 'document', 'documents'],
  ['chunks', 'chunk', 'chunks'],
  ['nodes', 'entity', 'entities'],
  ['edges', 'relation', 'relations'],
];

/** Tables of all files, by their names. */
export type Tables = ReadonlyMap<TableName, Float64Array>;

/** The tables of some files together: each table is of one file. */
export function tablesOf(files: Iterable<FileFacts>): Map<TableName, Float64Array> {
  return new Map([...files].flatMap(({ tables }) => [...tables]));
}

/** What came and went, in a line: `+1 document, −2 +34 entities`; empty if nothing did, or in unknown tables alone. */
export function changeLine(
  before: Tables,
  after: Tables,
  unknown: ReadonlySet<TableName> = new Set(),
): string {
  return COUNTED.flatMap(([table, one, several]) => {
    if (unknown.has(table)) return [];
    const { added, removed } = tableChange(before.get(table), after.get(table));
    const signs = [];
    if (removed.length > 0) signs.push(`−${removed.length}`);
    if (added.length > 0) signs.push(`+${added.length}`);
    return signs.length === 0
      ? []
      : [`${signs.join(' ')} ${added.length + removed.length === 1 ? one : several}`];
  }).join(', ');
}

/** How many names of what was there are gone; undefined where that is not known. */
export interface Lost {
  readonly documents: number | undefined;
  readonly entities: number | undefined;
}

/** Names of one state that another one lacks. */
export function lostBetween(before: Tables, after: Tables): Lost {
  const lost = (table: TableName) => {
    const was = before.get(table);
    return was === undefined ? undefined : tableChange(was, after.get(table)).removed.length;
  };
  return { documents: lost('documents'), entities: lost('nodes') };
}

/** What an alarm compares a loss with. */
export interface LossLimits {
  /** Share of the documents or entities that may be lost without an alarm, from 0 to 1. */
  readonly lossShare: number;
  /** Counts of lost names; without them the totals are compared. */
  readonly lost?: Lost | undefined;
}

/** What is alarming about a graph after another one, of the same history. */
export function lossAlarms(
  before: GraphStats,
  after: GraphStats,
  { lossShare, lost: names }: LossLimits,
): Finding[] {
  const hint = 'compare it with the point before: lightkeeper diff; then lightkeeper ack, or restore';
  const found: Finding[] = [];
  for (const what of ['documents', 'entities'] as const) {
    const [was, is] = [before[what], after[what]];
    const lost = BigInt(names?.[what] ?? Number(was - is));
    if (was > 0n && is === 0n)
      found.push(warning('graph_emptied', what, { message: `all ${was} ${what} are gone`, hint }));
    else if (lost >= LOSS_MIN && Number(lost) > lossShare * Number(was)) {
      const share = Math.round((100 * Number(lost)) / Number(was));
      const message = `${lost} of ${was} ${what} are gone, ${share} %`;
      found.push(warning('graph_shrunk', what, { message, hint }));
    }
  }
  if (before.dimension > 0 && after.dimension > 0 && before.dimension !== after.dimension) {
    const message = `vectors have ${after.dimension} dimensions, before ${before.dimension}: another model embedded them`;
    found.push(warning('dimension_changed', 'vectors', { message, hint }));
  }
  return found;
}
