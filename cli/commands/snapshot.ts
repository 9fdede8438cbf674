import type { Command } from 'commander';
import { type Snapshot, SnapshotSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { durationText, sizeText } from '../../host/quantity.ts';
import { EXIT } from '../exit.ts';
import {
  type CommonOptions,
  collect,
  pathArgument,
  required,
  reserveOption,
  storeOf,
  tagMap,
  waitDuration,
  withCommon,
} from '../options.ts';
import { printFindings, printJson, say } from '../print.ts';
import { withStore } from '../store.ts';
import { lastOf } from '../stream.ts';

interface SnapshotOptions extends CommonOptions {
  readonly dir?: string;
  readonly tag?: string[];
  readonly grade: boolean;
  readonly settleTimeout?: number;
  readonly quiet?: number;
  readonly exclude?: string[];
  readonly description?: string;
  readonly diskReserve?: bigint;
}

/** `snapshot`: one snapshot now. */
export function addSnapshot(program: Command): void {
  withCommon(program.command('snapshot').description('take one snapshot of a directory now'))
    .option('--dir <dir>', 'the directory (required)')
    .option('--tag <key=value>', 'a tag; may be given several times', collect)
    .option('--description <text>', 'a line for people')
    .option('--no-grade', 'answer after the commit, without looking into the graph')
    .option(
      '--settle-timeout <duration>',
      'how long to wait for the directory to come to rest (default: 30s)',
      waitDuration,
    )
    .option('--quiet <duration>', 'how long nothing may have changed (default: 300ms)', waitDuration)
    .option('--exclude <pattern>', 'names to leave out; may be given several times', collect)
    .addOption(reserveOption())
    .action(async (options: SnapshotOptions) => {
      const dir = pathArgument(required(options.dir, '--dir'));
      const tags = tagMap(options.tag);
      const snapshot = await withStore(
        storeOf(options),
        { create: true, protects: dir, graphId: options.graph ?? '' },
        (client) =>
          lastOf(
            client.createSnapshot({
              dir,
              graphId: options.graph ?? '',
              tags,
              description: options.description ?? '',
              settleTimeoutMs: options.settleTimeout === undefined ? 0 : Math.max(1, options.settleTimeout),
              exclude: options.exclude ?? [],
              noGrade: !options.grade,
              ...(options.quiet === undefined ? {} : { quietMs: options.quiet }),
              ...(options.diskReserve === undefined ? {} : { diskReserveBytes: options.diskReserve }),
            }),
          ),
      );
      if (options.json === true) printJson(SnapshotSchema, snapshot);
      else printSnapshot(snapshot);
      if (snapshot.grade === Grade_Value.TORN || snapshot.grade === Grade_Value.INVALID)
        process.exitCode = EXIT.findings;
    });
}

/** One snapshot in a line. */
export function snapshotLine(snapshot: Snapshot): string {
  const { snapshotId, files, rawBytes, newBytes, storedBytes, durationMs, unchanged } = snapshot;
  const what = `${files} files, ${sizeText(Number(rawBytes))}`;
  if (unchanged) return `unchanged since ${snapshotId.slice(0, 12)} (${what})`;
  const cost = `${sizeText(Number(newBytes))} new, ${sizeText(Number(storedBytes))} stored, ${durationText(durationMs)}`;
  const torn = snapshot.grade === Grade_Value.TORN ? ' TORN' : '';
  return `snapshot ${snapshotId.slice(0, 12)}${torn}: ${what}, ${cost}`;
}

function printSnapshot(snapshot: Snapshot): void {
  say(snapshotLine(snapshot));
  printFindings(snapshot.findings);
}
