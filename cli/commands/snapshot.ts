import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { ioError, LightkeeperError } from '../../core/errors.ts';
import { type Snapshot, SnapshotSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { durationText, sizeText } from '../../host/quantity.ts';
import { lastOf } from '../await-result.ts';
import { exitByGrade } from '../exit-by-grade.ts';
import {
  addCommonOptions,
  type CommonOptions,
  collectValue,
  pathArgument,
  requireValue,
  reserveOption,
  storePath,
  tagMap,
  waitArgument,
} from '../options.ts';
import { printFindings, printJsonOf, printLine } from '../print.ts';
import { withStore } from '../store.ts';

interface SnapshotOptions extends CommonOptions {
  readonly dir?: string;
  readonly tag?: string[];
  readonly grade: boolean;
  readonly settleTimeout?: number;
  readonly quiet?: number;
  readonly exclude?: string[];
  readonly description?: string;
  readonly diskReserve?: bigint;
  readonly split?: boolean;
  readonly instanceUrl?: string;
  readonly apiKeyFile?: string;
  readonly instanceStopped?: boolean;
  readonly takeOver?: boolean;
}

/** Adds `snapshot`, which takes one snapshot now. */
export function addSnapshot(program: Command): void {
  addCommonOptions(program.command('snapshot').description('take one snapshot of a directory now'))
    .option('--dir <dir>', 'directory (required)')
    .option('--tag <key=value>', 'tag; may be given several times', collectValue)
    .option('--description <text>', 'description in one line')
    .option('--no-grade', 'return after the commit, without grading')
    .option(
      '--settle-timeout <duration>',
      'longest wait for the directory to come to rest (default: 30s)',
      waitArgument,
    )
    .option('--quiet <duration>', 'time without a change before the capture (default: 300ms)', waitArgument)
    .option('--exclude <pattern>', 'names that are not captured; may be given several times', collectValue)
    .addOption(reserveOption())
    .option(
      '--split',
      'capture each workspace, a subfolder with a graph, as a graph of its own: ID.WORKSPACE',
    )
    .option('--instance-url <url>', 'URL of the instance: the capture waits until it is idle')
    .option('--api-key-file <file>', 'file with the API key of the instance (default: LIGHTRAG_API_KEY)')
    .option('--instance-stopped', 'confirm that the instance is stopped')
    .option('--take-over', 'go on with a graph that another store captured')
    .action(run);
}

async function run(options: SnapshotOptions): Promise<void> {
  const dir = pathArgument(requireValue(options.dir, '--dir'));
  const whole = { dir, graphId: options.graph ?? '' };
  const split = options.split === true;
  const { splitGraph } = await import('../../agent/main.ts');
  const places = split ? await splitGraph(whole) : [whole];
  const request = {
    tags: tagMap(options.tag),
    description: options.description ?? '',
    settleTimeoutMs: BigInt(options.settleTimeout === undefined ? 0 : Math.max(1, options.settleTimeout)),
    exclude: options.exclude ?? [],
    noGrade: !options.grade,
    split,
    ...instanceFields(options),
    derivedGraphId: options.graph === undefined,
    takeOver: options.takeOver === true,
    ...(options.quiet === undefined ? {} : { quietMs: BigInt(options.quiet) }),
    ...(options.diskReserve === undefined ? {} : { diskReserveBytes: options.diskReserve }),
  };
  const reach = { create: true, protects: dir, graphId: whole.graphId };
  const snapshots = await withStore(storePath(options), reach, async (client) => {
    const taken: Snapshot[] = [];
    for (const place of places) taken.push(await lastOf(client.createSnapshot({ ...request, ...place })));
    return taken;
  });
  if (options.json === true) printJsonOf(SnapshotSchema, snapshots, split ? 'snapshots' : undefined);
  else for (const snapshot of snapshots) printSnapshot(snapshot, split);
  exitByGrade(snapshots);
}

/** Returns what the options say of the instance. Refuses contradictions. */
function instanceFields({ instanceUrl, apiKeyFile, instanceStopped }: SnapshotOptions) {
  const wrong = (state: string, hint: string) =>
    new LightkeeperError('INVALID_ARGUMENT', `Cannot take a snapshot ${state}`, { hint });
  if (instanceUrl === undefined) {
    if (apiKeyFile !== undefined) throw wrong('with a key alone', 'add --instance-url');
    return { instanceState: { case: 'instanceStopped' as const, value: instanceStopped === true } };
  }
  if (instanceStopped === true)
    throw wrong('of a stopped instance with a URL', 'give either --instance-url or --instance-stopped');
  return {
    instanceState: { case: 'instanceUrl' as const, value: requireValue(instanceUrl, '--instance-url') },
    instanceApiKey: apiKeyFile === undefined ? (process.env.LIGHTRAG_API_KEY ?? '') : readKeyFile(apiKeyFile),
  };
}

/** Reads the API key of an instance from a file. */
function readKeyFile(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw ioError('read', file, error);
  }
}

/** Formats one snapshot as a line. */
export function snapshotLine(snapshot: Snapshot): string {
  const { snapshotId, files, rawBytes, newBytes, storedBytes, durationMs, gradeMs, unchanged } = snapshot;
  const what = [`${files} files, ${sizeText(Number(rawBytes))}`, graphText(snapshot)].filter(
    (text) => text !== '',
  );
  const grade = Grade_Value[snapshot.grade];
  if (unchanged) return `unchanged since ${snapshotId.slice(0, 12)} ${grade} (${what.join(', ')})`;
  const graded = snapshot.grade === Grade_Value.UNGRADED ? '' : `, graded in ${durationText(gradeMs)}`;
  const cost = `${sizeText(Number(newBytes))} new, ${sizeText(Number(storedBytes))} stored, ${durationText(durationMs)}${graded}`;
  const alarm = snapshot.alarms.length > 0 && snapshot.acknowledged === '' ? ' ALARM' : '';
  return `snapshot ${snapshotId.slice(0, 12)}: ${grade}${alarm}, ${what.join(', ')}, ${cost}`;
}

/** Formats the counts of a graph, and the changes. */
function graphText({ stats, summary }: Snapshot): string {
  if (stats === undefined) return '';
  const change = summary === '' ? '' : ` (${summary})`;
  return `${stats.documents} documents, ${stats.entities} entities, ${stats.relations} relations${change}`;
}

function printSnapshot(snapshot: Snapshot, named: boolean): void {
  printLine(named ? `${snapshot.graphId}: ${snapshotLine(snapshot)}` : snapshotLine(snapshot));
  printFindings(snapshot.findings);
}
