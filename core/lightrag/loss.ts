import type { Finding, GraphStats } from '../../gen/lightkeeper/v1/types_pb.ts';
import { warning } from '../finding.ts';
import type { TableName } from './facts.ts';
import { type FileFacts, tableChange } from './facts-codec.ts';

/** Default share of documents or entities that may disappear from one point to the next without an alarm. */
export const LOSS_SHARE = 0.25;
/** Least number of lost documents or entities for an alarm. */
// Single deletions are ordinary work.
const LOSS_MIN = 2n;

/** The counted tables, with the singular and plural of what they hold. */
const COUNTED: readonly (readonly [table: TableName, one: string, several: string])[] = [
  ['documents', 'document', 'documents'],
  ['chunks', 'chunk', 'chunks'],
  ['nodes', 'entity', 'entities'],
  ['edges', 'relation', 'relations'],
];

/** Code of the alarm of a point that has nothing of what the newest usable point had. */
export const EMPTIED = 'emptied';

/** Tables of all files by name. */
export type Tables = ReadonlyMap<TableName, Float64Array>;

/** Combines the tables of several files; each table belongs to one file. */
export function tablesOf(files: Iterable<FileFacts>): Map<TableName, Float64Array> {
  return new Map([...files].flatMap(({ tables }) => [...tables]));
}

/**
 * Returns what was added and removed as a line: `+1 document, −2 +34 entities`. Empty without changes, or if only
 * `unknown` tables changed.
 */
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

/** Numbers of lost names; undefined where they are not known. */
export interface Lost {
  readonly documents: number | undefined;
  readonly entities: number | undefined;
}

/** Counts the names of one state that the next one lacks. */
export function lostBetween(before: Tables, after: Tables): Lost {
  const lost = (table: TableName) => {
    const was = before.get(table);
    return was === undefined ? undefined : tableChange(was, after.get(table)).removed.length;
  };
  return { documents: lost('documents'), entities: lost('nodes') };
}

/** Settings and counts of the alarms. */
export interface LossLimits {
  /** Share of the documents or entities that may be lost without an alarm, from 0 to 1. */
  readonly lossShare: number;
  /** Counts of lost names; without them the totals are compared. */
  readonly lost?: Lost | undefined;
}

/** Returns the alarms of a directory without a graph that had files and has none. */
export function emptiedAlarms(filesBefore: number, filesAfter: number): Finding[] {
  if (filesBefore === 0 || filesAfter > 0) return [];
  const message = `all ${filesBefore} files are gone: this point is not usable until someone acknowledges that`;
  const hint =
    'see that the volume is mounted; then restore an earlier point, or acknowledge with lightkeeper ack';
  return [warning(EMPTIED, 'files', { message, hint })];
}

/** Returns the alarms that a graph raises compared with an earlier state of the same history. */
export function lossAlarms(
  before: GraphStats,
  after: GraphStats,
  { lossShare, lost: names }: LossLimits,
): Finding[] {
  const hint =
    'compare the two points with lightkeeper diff; then acknowledge with lightkeeper ack, or restore';
  const found: Finding[] = [];
  if (before.processed > 0n && after.processed === 0n) {
    const message = `all ${before.processed} processed documents are gone: this point is not usable until someone acknowledges that`;
    found.push(warning(EMPTIED, 'documents', { message, hint }));
  }
  for (const what of ['documents', 'entities'] as const) {
    const [was, is] = [before[what], after[what]];
    const lost = BigInt(names?.[what] ?? Number(was - is));
    // Lost documents are in the alarm above.
    if (what === 'documents' && found.length > 0) continue;
    if (was > 0n && is === 0n)
      found.push(warning('graph_emptied', what, { message: `all ${was} ${what} are gone`, hint }));
    else if (lost >= LOSS_MIN && Number(lost) > lossShare * Number(was)) {
      const share = Math.round((100 * Number(lost)) / Number(was));
      const message = `${lost} of ${was} ${what} are gone, ${share} %`;
      found.push(warning('graph_shrunk', what, { message, hint }));
    }
  }
  if (before.dimension > 0 && after.dimension > 0 && before.dimension !== after.dimension) {
    const message = `vectors have ${after.dimension} dimensions instead of ${before.dimension}: another model embedded them`;
    found.push(warning('dimension_changed', 'vectors', { message, hint }));
  }
  return found;
}
