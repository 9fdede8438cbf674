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
import { type CommonOptions, storeOf, withCommon } from '../options.ts';
import { plain, printFindings, printJson, say, table } from '../print.ts';
import { withStore } from '../store.ts';

/** Names of one kind that a person is shown. */
const SHOWN = 10;

/** `diff`: what changed from one snapshot to another, in files and in the graph. */
export function addDiff(program: Command): void {
  withCommon(
    program
      .command('diff')
      .description('what changed from one snapshot to another: files, documents, entities, relations')
      .argument('<from>', 'an id, the start of one, latest or latest-valid')
      .argument('<to>', 'likewise'),
  ).action(run);
}

async function run(fromSnapshotId: string, toSnapshotId: string, options: CommonOptions): Promise<void> {
  const request = { fromSnapshotId, toSnapshotId, graphId: options.graph ?? '' };
  const diff = await withStore(storeOf(options), { reading: true }, (client) =>
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
    say('no file differs');
    return;
  }
  table([
    ['FILE', '', 'BEFORE', 'AFTER', 'NEW', 'WHY'],
    ...files.map(({ path, kind, sizeBefore, sizeAfter, newBytes, records }) => [
      plain(path),
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
  return isSame ? 'the same records, written otherwise' : parts.join(' ');
}

function countText(sign: string, count: bigint): string {
  return count > 0n ? `${sign}${count}` : '';
}

function printVectors(kind: string, changes: VectorChanges | undefined): void {
  if (changes === undefined) return;
  const { addedCount, removedCount, reembeddedCount, reembedded } = changes;
  if (addedCount + removedCount + reembeddedCount === 0n) return;
  const again = reembeddedCount > 0n ? `, ${reembeddedCount} embedded again` : '';
  say(`vectors of ${kind}: +${addedCount} −${removedCount}${again}`);
  printNames(
    reembedded.map((name) => `  ~ ${plain(name)}`),
    reembeddedCount,
  );
}

function printRecords(kind: string, changes: RecordChanges | undefined): void {
  if (changes === undefined) return;
  const { addedCount, removedCount, changedCount, added, removed, changed } = changes;
  if (addedCount + removedCount + changedCount === 0n) return;
  say(`${kind}: +${addedCount} −${removedCount} ~${changedCount}`);
  const lines = [
    ...added.map((name) => `  + ${plain(name)}`),
    ...removed.map((name) => `  − ${plain(name)}`),
    ...changed.map(({ name, fields }) => `  ~ ${plain(name)} (${fields.map(plain).join(', ')})`),
  ];
  printNames(lines, addedCount + removedCount + changedCount);
}

function printNames(lines: readonly string[], count: bigint): void {
  for (const line of lines.slice(0, SHOWN)) say(line);
  const more = count - BigInt(Math.min(lines.length, SHOWN));
  if (more > 0n) say(`  and ${more} more: --json names up to 1,000 of each`);
}
