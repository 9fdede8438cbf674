import type { Command } from 'commander';
import { LightkeeperError } from '../../core/errors.ts';
import { type InPlace, type RestoreResult, RestoreResultSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { durationText, sizeText } from '../../host/quantity.ts';
import { lastOf } from '../await-result.ts';
import {
  addCommonOptions,
  type CommonOptions,
  collectValue,
  pathArgument,
  requireValue,
  reserveOption,
  storePath,
} from '../options.ts';
import { escapeControls, printFindings, printJson, printLine } from '../print.ts';
import { serverText, unfinishedText } from '../server-text.ts';
import { withStore } from '../store.ts';

interface RestoreOptions extends CommonOptions {
  readonly snapshot?: string;
  readonly to?: string;
  readonly inPlace?: string;
  readonly instanceUrl?: string;
  readonly instanceStopped?: boolean;
  readonly exclude?: string[];
  readonly path?: string[];
  readonly dryRun?: boolean;
  readonly allowTorn?: boolean;
  readonly diskReserve?: bigint;
}

/** Adds `restore`, which writes a snapshot to a directory or in place of its content. */
export function addRestore(program: Command): void {
  addCommonOptions(
    program.command('restore').description('restore a snapshot to an absent or empty directory, or in place'),
  )
    .argument('[snapshot]', 'snapshot id, a prefix of one, latest or latest-valid (required)')
    .option('--snapshot <id>', 'the same')
    .option('--to <dir>', 'target directory, absent or empty')
    .option('--in-place <dir>', 'directory whose content is replaced (--to or --in-place is required)')
    .option('--instance-url <url>', 'with --in-place: URL of the instance, which must refuse connections')
    .option('--instance-stopped', 'with --in-place: confirm that the instance is stopped')
    .option(
      '--exclude <pattern>',
      'with --in-place: top-level names to leave alone; may be given several times',
      collectValue,
    )
    .option('--path <glob>', 'with --to: restore only these files; may be given several times', collectValue)
    .option('--dry-run', 'print what would be written, replaced and removed; change nothing')
    .option('--allow-torn', 'allow a torn snapshot, named by its id')
    .addOption(reserveOption())
    .action(run);
}

async function run(word: string | undefined, options: RestoreOptions): Promise<void> {
  const snapshotId = requestedSnapshot(word, options);
  const target = parseTarget(options);
  const result = await withStore(storePath(options), { reading: true }, (client) =>
    lastOf(
      client.restoreSnapshot({
        snapshotId,
        graphId: options.graph ?? '',
        ...target,
        paths: options.path ?? [],
        dryRun: options.dryRun ?? false,
        allowTorn: options.allowTorn ?? false,
        ...(options.diskReserve === undefined ? {} : { diskReserveBytes: options.diskReserve }),
      }),
    ),
  );
  if (options.json === true) printJson(RestoreResultSchema, result);
  else printRestored(result);
}

/** Returns the snapshot that is named by the first argument or by `--snapshot`. */
function requestedSnapshot(word: string | undefined, { snapshot }: RestoreOptions): string {
  if (word === undefined || snapshot === undefined || word === snapshot)
    return requireValue(word ?? snapshot, '--snapshot');
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot restore both "${word}" and "${snapshot}"`, {
    hint: 'name one snapshot',
  });
}

/** Reads the target and, for `--in-place`, the evidence that the instance is down. Refuses contradictions. */
function parseTarget({ to, inPlace, path, instanceUrl, instanceStopped, exclude }: RestoreOptions) {
  const wrong = (state: string, hint: string) =>
    new LightkeeperError('INVALID_ARGUMENT', `Cannot restore ${state}`, { hint });
  if (to !== undefined && inPlace !== undefined)
    throw wrong('both to a directory and in place', 'give either --to or --in-place');
  if (inPlace === undefined) {
    const stray = instanceUrl !== undefined || instanceStopped === true || exclude !== undefined;
    if (stray) throw wrong('with flags for --in-place alone', 'give --in-place, or leave that flag out');
    return { target: { case: 'to' as const, value: pathArgument(requireValue(to, '--to or --in-place')) } };
  }
  if (path !== undefined) throw wrong('a part in place', 'leave --path out, or restore with --to');
  if (instanceUrl !== undefined && instanceStopped === true)
    throw wrong('with two kinds of evidence', 'give either --instance-url or --instance-stopped');
  return {
    target: { case: 'inPlace' as const, value: pathArgument(requireValue(inPlace, '--in-place')) },
    evidence:
      instanceUrl === undefined
        ? { case: 'instanceStopped' as const, value: instanceStopped ?? false }
        : { case: 'instanceUrl' as const, value: requireValue(instanceUrl, '--instance-url') },
    exclude: exclude ?? [],
  };
}

function printRestored(result: RestoreResult): void {
  const { inPlace, dryRun } = result;
  const what = `${result.files} files, ${sizeText(Number(result.bytes))}`;
  const where = `${result.snapshotId.slice(0, 12)} ${inPlace === undefined ? 'to' : 'in place to'} ${escapeControls(result.to)}`;
  if (dryRun) printLine(`would restore ${where}: ${what}`);
  else {
    printLine(`restored ${where}: ${what}, ${durationText(result.durationMs)}`);
    printLine('verified: every byte was read back, and its hash matches the snapshot');
  }
  if (inPlace !== undefined) printInPlace(inPlace, dryRun);
  printFindings(result.findings);
  if (!dryRun) printNext(result);
}

/** Prints what is known of the snapshot, and what remains to be done. */
function printNext({ instance, stats, nextSteps }: RestoreResult): void {
  const written = serverText(instance);
  if (written !== '') printLine(`the snapshot was written by ${escapeControls(written)}`);
  const unfinished = unfinishedText(stats);
  if (unfinished !== '') printLine(`${unfinished} in the snapshot`);
  if (nextSteps.length > 0) printLine('next:');
  for (const [i, step] of nextSteps.entries()) printLine(`  ${i + 1}. ${escapeControls(step)}`);
}

/** Most names in a line. */
const NAMES_PRINTED = 20;

function printInPlace(inPlace: InPlace, dryRun: boolean): void {
  const { replaced, added, removed, kept, oldState } = inPlace;
  printLine(`top-level names: ${replaced} replaced, ${added} added, ${removed} removed, ${kept} kept`);
  const list = (verb: string, names: readonly string[], count: number) => {
    const more = count > NAMES_PRINTED ? ` and ${count - NAMES_PRINTED} more` : '';
    if (count > 0)
      printLine(`  ${verb}: ${names.slice(0, NAMES_PRINTED).map(escapeControls).join(', ')}${more}`);
  };
  list(dryRun ? 'would be removed' : 'removed', inPlace.removedNames, removed);
  list('kept', inPlace.keptNames, kept);
  if (oldState === '') return;
  printLine(`the old state is in ${escapeControls(oldState)} until the next usable snapshot`);
}
