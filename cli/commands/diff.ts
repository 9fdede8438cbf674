import type { Command } from 'commander';
import {
  ChangeKind_Value,
  type DiffSnapshotsResponse,
  DiffSnapshotsResponseSchema,
  type RecordChanges,
  type RecordCounts,
  type VectorChanges,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { sizeText } from '../../host/quantity.ts';
import { addCommonOptions, type CommonOptions, storePath } from '../options.ts';
import { escapeControls, printFindings, printJson, printLine, printTable } from '../print.ts';
import { withStore } from '../store.ts';

/** Most names of one kind that are printed. */
const NAMES_PRINTED = 10;

/** Adds `diff`, which prints the changes between two snapshots. */
export function addDiff(program: Command): void {
  addCommonOptions(
    program
      .command('diff')
      .description(
        'print the changes between two snapshots: files, documents, chunks, entities and relations',
      )
      .argument('<from>', 'snapshot id, a prefix of one, latest or latest-valid')
      .argument('<to>', 'as <from>'),
  ).action(run);
}

async function run(fromSnapshotId: string, toSnapshotId: string, options: CommonOptions): Promise<void> {
  const request = { fromSnapshotId, toSnapshotId, graphId: options.graph ?? '' };
  const diff = await withStore(storePath(options), { reading: true }, (client) =>
    client.diffSnapshots(request),
  );
  if (options.json === true) return printJson(DiffSnapshotsResponseSchema, diff);
  printFiles(diff);
  for (const kind of ['documents', 'chunks', 'entities', 'relations', 'answers'] as const)
    printRecords(kind, diff[kind]);
  printVectors('chunks', diff.chunkVectors);
  printVectors('entities', diff.entityVectors);
  printVectors('relations', diff.relationVectors);
  printFindings(diff.findings);
}

function printFiles({ files }: DiffSnapshotsResponse): void {
  if (files.length === 0) {
    printLine('no file has changed');
    return;
  }
  printTable([
    ['FILE', '', 'BEFORE', 'AFTER', 'NEW', 'WHY'],
    ...files.map(({ path, kind, sizeBefore, sizeAfter, newBytes, records }) => [
      escapeControls(path),
      ChangeKind_Value[kind].toLowerCase(),
      sizeText(Number(sizeBefore)),
      sizeText(Number(sizeAfter)),
      sizeText(Number(newBytes)),
      records === undefined ? '' : whyText(kind, records),
    ]),
  ]);
}

function whyText(kind: ChangeKind_Value, { added, removed, changed, reembedded }: RecordCounts): string {
  const parts = [
    countText('+', added),
    countText('−', removed),
    countText('~', changed),
    reembedded > 0n ? `${reembedded} embedded again` : '',
  ].filter((part) => part !== '');
  const isSame = parts.length === 0 && kind === ChangeKind_Value.CHANGED;
  return isSame ? 'same records, other bytes' : parts.join(' ');
}

function countText(sign: string, count: bigint): string {
  return count > 0n ? `${sign}${count}` : '';
}

function printVectors(kind: string, changes: VectorChanges | undefined): void {
  if (changes === undefined) return;
  const { addedCount, removedCount, reembeddedCount, reembedded } = changes;
  if (addedCount + removedCount + reembeddedCount === 0n) return;
  const again = reembeddedCount > 0n ? `, ${reembeddedCount} embedded again` : '';
  printLine(`vectors of ${kind}: +${addedCount} −${removedCount}${again}`);
  printNames(
    reembedded.map((name) => `  ~ ${escapeControls(name)}`),
    reembeddedCount,
  );
}

function printRecords(kind: string, changes: RecordChanges | undefined): void {
  if (changes === undefined) return;
  const { addedCount, removedCount, changedCount, added, removed, changed } = changes;
  if (addedCount + removedCount + changedCount === 0n) return;
  printLine(`${kind}: +${addedCount} −${removedCount} ~${changedCount}`);
  const lines = [
    ...added.map((name) => `  + ${escapeControls(name)}`),
    ...removed.map((name) => `  − ${escapeControls(name)}`),
    ...changed.map(
      ({ name, fields }) => `  ~ ${escapeControls(name)} (${fields.map(escapeControls).join(', ')})`,
    ),
  ];
  printNames(lines, addedCount + removedCount + changedCount);
}

function printNames(lines: readonly string[], count: bigint): void {
  for (const line of lines.slice(0, NAMES_PRINTED)) printLine(line);
  const more = count - BigInt(Math.min(lines.length, NAMES_PRINTED));
  if (more > 0n) printLine(`  and ${more} more: --json prints up to 1,000 of each`);
}
