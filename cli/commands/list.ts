import { create } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { Command } from 'commander';
import {
  GetSnapshotResponseSchema,
  GetStatsResponseSchema,
  ListSnapshotsResponseSchema,
  type Snapshot,
  type SnapshotSummary,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { FileType_Value, Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { durationText, sizeText } from '../../host/quantity.ts';
import { type CommonOptions, storeOf, withCommon } from '../options.ts';
import { plain, printFindings, printJson, say, table, timeText } from '../print.ts';
import { withStore } from '../store.ts';

/** `list`, `show`, `stats`: what is in a store. */
export function addReading(program: Command): void {
  withCommon(program.command('list').description('list the snapshots, newest first')).action(list);
  withCommon(
    program.command('show').description('show one snapshot with its files').argument('<snapshot>'),
  ).action(show);
  withCommon(program.command('stats').description('counts and sizes of the store')).action(stats);
}

async function list(options: CommonOptions): Promise<void> {
  const all = create(ListSnapshotsResponseSchema);
  await withStore(storeOf(options), { reading: true }, async (client) => {
    for (let pageToken = ''; ; ) {
      const page = await client.listSnapshots({ graphId: options.graph ?? '', pageToken });
      for (const snapshot of page.snapshots) all.snapshots.push(snapshot);
      pageToken = page.nextPageToken;
      if (pageToken === '') return;
    }
  });
  // Pages go graph by graph, torn ones last.
  const capturedMs = ({ capturedAt }: SnapshotSummary) =>
    capturedAt === undefined ? 0 : timestampMs(capturedAt);
  all.snapshots.sort((a, b) => capturedMs(b) - capturedMs(a));
  if (options.json === true) return printJson(ListSnapshotsResponseSchema, all);
  if (all.snapshots.length === 0) return say('no snapshots');
  table([['SNAPSHOT', 'GRAPH', 'CAPTURED', 'GRADE', 'SIZE', 'NEW', 'STORED', ''], ...all.snapshots.map(row)]);
}

function row(snapshot: SnapshotSummary): string[] {
  const notes = Object.entries(snapshot.tags).map(([name, value]) => `${name}=${value}`);
  if (snapshot.pinned) notes.unshift('pinned');
  if (snapshot.alarming) notes.unshift('ALARM');
  if (snapshot.summary !== '') notes.push(snapshot.summary);
  return [
    snapshot.snapshotId.slice(0, 12),
    snapshot.graphId,
    timeText(snapshot.capturedAt),
    Grade_Value[snapshot.grade],
    sizeText(Number(snapshot.rawBytes)),
    sizeText(Number(snapshot.newBytes)),
    sizeText(Number(snapshot.storedBytes)),
    plain(notes.join(' ')),
  ];
}

async function show(snapshotId: string, options: CommonOptions): Promise<void> {
  const all = await withStore(storeOf(options), { reading: true }, async (client) => {
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
  table([
    ['snapshot', snapshot.snapshotId],
    [
      'graph',
      `${snapshot.graphId}, epoch ${snapshot.position?.epoch}, number ${snapshot.position?.sequence}`,
    ],
    ['parent', snapshot.parentId === '' ? '-' : snapshot.parentId],
    ['captured', `${timeText(snapshot.capturedAt)} from ${plain(snapshot.dir)} on ${snapshot.host}`],
    ['grade', gradeText(snapshot)],
    ...graphRows(snapshot),
    ['size', `${snapshot.files} files, ${sizeText(Number(snapshot.rawBytes))} in ${snapshot.units} units`],
    [
      'cost',
      `${sizeText(Number(snapshot.newBytes))} new, ${sizeText(Number(snapshot.storedBytes))} stored, ${durationText(snapshot.durationMs)}`,
    ],
  ]);
  say('');
  table(
    all.files.map(({ path, type, size, mode, mtime, target }) => [
      `${typeLetter(type)}${mode.toString(8).padStart(4, '0')}`,
      type === FileType_Value.REGULAR ? sizeText(Number(size)) : '',
      timeText(mtime),
      plain(target === undefined ? path : `${path} -> ${target}`),
    ]),
  );
  if (all.findings.length > 0) say('');
  printFindings(all.findings);
}

function gradeText({ grade, alarms, acknowledged }: Snapshot): string {
  if (alarms.length === 0) return Grade_Value[grade];
  const seen = acknowledged === '' ? 'not acknowledged' : `acknowledged: ${plain(acknowledged)}`;
  return `${Grade_Value[grade]}, with an alarm (${seen})`;
}

function graphRows({ stats, summary }: Snapshot): string[][] {
  if (stats === undefined) return [];
  const { documents, chunks, entities, relations, vectors, dimension } = stats;
  const counts = `${documents} documents, ${chunks} chunks, ${entities} entities, ${relations} relations`;
  const of = dimension === 0 ? '' : ` of ${dimension} dimensions`;
  return [
    ['graph holds', `${counts}, ${vectors} vectors${of}`],
    ...(summary === '' ? [] : [['since the last', summary]]),
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
  const result = await withStore(storeOf(options), { reading: true }, (client) =>
    client.getStats({ graphId: options.graph ?? '' }),
  );
  if (options.json === true) return printJson(GetStatsResponseSchema, result);
  table([
    ['snapshots', String(result.snapshots)],
    ['raw', sizeText(Number(result.rawBytes))],
    ['stored', `${sizeText(Number(result.storedBytes))} in ${result.packs} packs, ${result.units} units`],
    [
      'saved',
      `${(result.savedRatio * 100).toFixed(1)} % (deduplication ${result.dedupRatio.toFixed(2)}×, compression ${result.compressionRatio.toFixed(2)}×)`,
    ],
  ]);
}
