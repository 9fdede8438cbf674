import { create } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { Command } from 'commander';
import { LightkeeperError } from '../../core/errors.ts';
import {
  GetSnapshotResponseSchema,
  GetStatsResponseSchema,
  ListSnapshotsResponseSchema,
  type Snapshot,
  type SnapshotSummary,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { FileType_Value, Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../../host/clock.ts';
import { durationText, sizeText } from '../../host/quantity.ts';
import {
  addCommonOptions,
  type CommonOptions,
  collectValue,
  countArgument,
  durationArgument,
  storePath,
  tagMap,
} from '../options.ts';
import { escapeControls, printFindings, printJson, printLine, printTable, timeText } from '../print.ts';
import { serverText, unfinishedText } from '../server-text.ts';
import { withStore } from '../store.ts';

/** Adds `list`, `show` and `stats`, which read a store. */
export function addList(program: Command): void {
  addCommonOptions(program.command('list').description('list the snapshots, the newest first'))
    .option('--last <n>', 'only the newest n', countArgument)
    .option(
      '--grade <grade>',
      'only those with this grade: valid, degraded, torn, invalid or ungraded',
      gradeArgument,
    )
    .option('--tag <key=value>', 'only those with this tag; may be given several times', collectValue)
    .option(
      '--since <time>',
      'only those captured since then: 2h, 30d, or a time such as 2026-11-30T10:00:00Z',
      sinceArgument,
    )
    .action(list);
  addCommonOptions(
    program
      .command('show')
      .description('print one snapshot with its files and findings')
      .argument('<snapshot>'),
  ).action(show);
  addCommonOptions(program.command('stats').description('print the counts and sizes of a store')).action(
    stats,
  );
}

interface ListOptions extends CommonOptions {
  readonly last?: number;
  readonly grade?: Grade_Value;
  readonly tag?: string[];
  /** Milliseconds since 1970. */
  readonly since?: number;
}

function gradeArgument(text: string): Grade_Value {
  const grade = Grade_Value[text.toUpperCase() as keyof typeof Grade_Value];
  if (grade !== undefined && grade !== Grade_Value.UNSPECIFIED) return grade;
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use "${text}" as a grade`, {
    hint: 'give valid, degraded, torn, invalid or ungraded',
  });
}

/** Parses a time, or a duration before now. Returns milliseconds since 1970. */
function sinceArgument(text: string): number {
  const time = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(time) ? now() - durationArgument(text) : time;
}

/** Returns a test for the snapshots that the options select. */
function selects({ grade, tag, since }: ListOptions): (snapshot: SnapshotSummary) => boolean {
  const tags = Object.entries(tagMap(tag));
  return (snapshot) =>
    (grade === undefined || snapshot.grade === grade) &&
    (since === undefined || capturedMs(snapshot) >= since) &&
    tags.every(([key, value]) => snapshot.tags[key] === value);
}

function capturedMs({ capturedAt }: SnapshotSummary): number {
  return capturedAt === undefined ? 0 : timestampMs(capturedAt);
}

async function list(options: ListOptions): Promise<void> {
  const all = create(ListSnapshotsResponseSchema);
  await withStore(storePath(options), { reading: true }, async (client) => {
    for (let pageToken = ''; ; ) {
      const page = await client.listSnapshots({ graphId: options.graph ?? '', pageToken });
      for (const snapshot of page.snapshots) all.snapshots.push(snapshot);
      pageToken = page.nextPageToken;
      if (pageToken === '') return;
    }
  });
  // Pages are ordered by graph, with torn snapshots last.
  all.snapshots.sort((a, b) => capturedMs(b) - capturedMs(a));
  all.snapshots = all.snapshots.filter(selects(options)).slice(0, options.last);
  if (options.json === true) return printJson(ListSnapshotsResponseSchema, all);
  if (all.snapshots.length === 0) return printLine('no snapshots');
  printTable([
    ['SNAPSHOT', 'GRAPH', 'CAPTURED', 'GRADE', 'SIZE', 'NEW', 'STORED', 'SERVER', ''],
    ...all.snapshots.map(row),
  ]);
}

function row(snapshot: SnapshotSummary): string[] {
  const labels = Object.entries(snapshot.tags).map(([name, value]) => `${name}=${value}`);
  if (snapshot.pinned) labels.unshift('pinned');
  if (snapshot.fork !== '') labels.unshift(`fork ${snapshot.fork.slice(0, 12)}`);
  if (snapshot.alarming) labels.unshift('ALARM');
  if (snapshot.summary !== '') labels.push(snapshot.summary);
  const unfinished = unfinishedText(snapshot.stats);
  if (unfinished !== '') labels.push(`(${unfinished})`);
  return [
    snapshot.snapshotId.slice(0, 12),
    snapshot.graphId,
    timeText(snapshot.capturedAt),
    summaryGradeText(snapshot),
    sizeText(Number(snapshot.rawBytes)),
    sizeText(Number(snapshot.newBytes)),
    sizeText(Number(snapshot.storedBytes)),
    escapeControls(serverColumn(snapshot)),
    escapeControls(labels.join(' ')),
  ];
}

/** Formats the version and the models of the server in few words. */
function serverColumn({ instance }: SnapshotSummary): string {
  const { version = '', embeddingModel = '', llmModel = '' } = instance ?? {};
  const known = [version, embeddingModel, llmModel].filter((word) => word !== '');
  return known.length === 0 ? '-' : known.join(', ');
}

async function show(snapshotId: string, options: CommonOptions): Promise<void> {
  const all = await withStore(storePath(options), { reading: true }, async (client) => {
    const request = { snapshotId, graphId: options.graph ?? '' };
    const first = await client.getSnapshot(request);
    for (let pageToken = first.nextPageToken; pageToken !== ''; ) {
      const page = await client.getSnapshot({ ...request, pageToken });
      for (const file of page.files) first.files.push(file);
      pageToken = page.nextPageToken;
    }
    first.nextPageToken = '';
    return first;
  });
  if (options.json === true) return printJson(GetSnapshotResponseSchema, all);
  const { snapshot } = all;
  if (snapshot === undefined) return;
  printTable([
    ['snapshot', snapshot.snapshotId],
    [
      'graph',
      `${snapshot.graphId}, epoch ${snapshot.position?.epoch}, sequence ${snapshot.position?.sequence}`,
    ],
    ['parent', snapshot.parentId === '' ? '-' : snapshot.parentId],
    [
      'captured',
      `${timeText(snapshot.capturedAt)} from ${escapeControls(snapshot.dir)} on ${escapeControls(snapshot.host)}`,
    ],
    ['grade', gradeText(snapshot)],
    ...serverRows(snapshot),
    ...graphRows(snapshot),
    ['size', `${snapshot.files} files, ${sizeText(Number(snapshot.rawBytes))} in ${snapshot.units} units`],
    [
      'cost',
      `${sizeText(Number(snapshot.newBytes))} new, ${sizeText(Number(snapshot.storedBytes))} stored, ${durationText(snapshot.durationMs)}`,
    ],
  ]);
  printLine('');
  printTable(
    all.files.map(({ path, type, size, mode, mtime, target }) => [
      `${typeLetter(type)}${mode.toString(8).padStart(4, '0')}`,
      type === FileType_Value.REGULAR ? sizeText(Number(size)) : '',
      timeText(mtime),
      escapeControls(target === undefined ? path : `${path} -> ${target}`),
    ]),
  );
  if (all.findings.length > 0) printLine('');
  printFindings(all.findings);
}

function gradeText({ grade, alarms, acknowledged }: Snapshot): string {
  if (alarms.length === 0) return Grade_Value[grade];
  const state = acknowledged === '' ? 'not acknowledged' : `acknowledged: ${escapeControls(acknowledged)}`;
  return `${Grade_Value[grade]}, with an alarm (${state})`;
}

function serverRows({ instance }: Snapshot): string[][] {
  const text = serverText(instance);
  return text === '' ? [] : [['written by', escapeControls(text)]];
}

function graphRows({ stats, summary }: Snapshot): string[][] {
  if (stats === undefined) return [];
  const { documents, chunks, entities, relations, vectors, dimension } = stats;
  const counts = `${documents} documents, ${chunks} chunks, ${entities} entities, ${relations} relations`;
  const unfinished = unfinishedText(stats);
  const size = dimension === 0 ? '' : ` of ${dimension} dimensions`;
  return [
    ['graph content', `${counts}, ${vectors} vectors${size}`],
    ...(unfinished === '' ? [] : [['unfinished', unfinished]]),
    ...(summary === '' ? [] : [['changes', summary]]),
  ];
}

function typeLetter(type: FileType_Value): string {
  return type === FileType_Value.DIRECTORY
    ? 'd'
    : type === FileType_Value.SYMLINK
      ? 'l'
      : type === FileType_Value.HARD_LINK
        ? 'h'
        : '-';
}

async function stats(options: CommonOptions): Promise<void> {
  const result = await withStore(storePath(options), { reading: true }, (client) =>
    client.getStats({ graphId: options.graph ?? '' }),
  );
  if (options.json === true) return printJson(GetStatsResponseSchema, result);
  printTable([
    ['snapshots', String(result.snapshots)],
    ['raw', sizeText(Number(result.rawBytes))],
    ['stored', `${sizeText(Number(result.storedBytes))} in ${result.packs} packs, ${result.units} units`],
    [
      'saved',
      `${(result.savedRatio * 100).toFixed(1)} % (deduplication ${result.dedupRatio.toFixed(2)}×, compression ${result.compressionRatio.toFixed(2)}×)`,
    ],
  ]);
}

/** Returns the grade of a snapshot, with the hint of another store where it is not graded here. */
function summaryGradeText({ grade, gradeHint }: SnapshotSummary): string {
  return gradeHint === undefined
    ? Grade_Value[grade]
    : `${Grade_Value[grade]} (${Grade_Value[gradeHint]} at its source)`;
}
