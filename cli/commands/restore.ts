import type { Command } from 'commander';
import { LightkeeperError } from '../../core/errors.ts';
import { type InPlace, type RestoreResult, RestoreResultSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { durationText, sizeText } from '../../host/quantity.ts';
import { lastOf } from '../await-result.ts';
import {
  type CommonOptions,
  collect,
  pathArgument,
  required,
  reserveOption,
  storeOf,
  withCommon,
} from '../options.ts';
import { plain, printFindings, printJson, say } from '../print.ts';
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

/** `restore`: a snapshot back to a directory, or in place of what it holds. */
export function addRestore(program: Command): void {
  withCommon(
    program
      .command('restore')
      .description('write a snapshot to a directory that is absent or empty, or in place of what one holds'),
  )
    .option('--snapshot <id>', 'an id, the start of one, latest or latest-valid (required)')
    .option('--to <dir>', 'where to: absent or empty')
    .option(
      '--in-place <dir>',
      'where to: what it holds is replaced (one of --to and --in-place is required)',
    )
    .option(
      '--instance-url <url>',
      'with --in-place: where the instance answered; it must refuse connections',
    )
    .option('--instance-stopped', 'with --in-place: the instance is stopped, you have seen to it')
    .option('--exclude <pattern>', 'with --in-place: names at its top that stay as they are', collect)
    .option('--path <glob>', 'with --to: only these files; may be given several times', collect)
    .option('--dry-run', 'say what would be written, replaced and removed')
    .option('--allow-torn', 'restore a torn snapshot that is named by its id')
    .addOption(reserveOption())
    .action(run);
}

async function run(options: RestoreOptions): Promise<void> {
  const snapshotId = required(options.snapshot, '--snapshot');
  const target = targetOf(options);
  const result = await withStore(storeOf(options), { reading: true }, (client) =>
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

/** Reads the target and, for `--in-place`, the evidence that the instance is down. Refuses contradictions. */
function targetOf({ to, inPlace, path, instanceUrl, instanceStopped, exclude }: RestoreOptions) {
  const wrong = (state: string, hint: string) =>
    new LightkeeperError('INVALID_ARGUMENT', `Cannot restore ${state}`, { hint });
  if (to !== undefined && inPlace !== undefined)
    throw wrong('both to a directory and in place', 'give either --to or --in-place');
  if (inPlace === undefined) {
    const stray = instanceUrl !== undefined || instanceStopped === true || exclude !== undefined;
    if (stray) throw wrong('with what is meant for --in-place', 'give --in-place, or leave that flag out');
    return { target: { case: 'to' as const, value: pathArgument(required(to, '--to or --in-place')) } };
  }
  if (path !== undefined) throw wrong('a part in place', 'leave --path out, or restore with --to');
  if (instanceUrl !== undefined && instanceStopped === true)
    throw wrong('on two kinds of evidence', 'give either --instance-url or --instance-stopped');
  return {
    target: { case: 'inPlace' as const, value: pathArgument(required(inPlace, '--in-place')) },
    evidence:
      instanceUrl === undefined
        ? { case: 'instanceStopped' as const, value: instanceStopped ?? false }
        : { case: 'instanceUrl' as const, value: required(instanceUrl, '--instance-url') },
    exclude: exclude ?? [],
  };
}

function printRestored(result: RestoreResult): void {
  const { inPlace, dryRun } = result;
  const what = `${result.files} files, ${sizeText(Number(result.bytes))}`;
  const where = `${result.snapshotId.slice(0, 12)} ${inPlace === undefined ? 'to' : 'in place to'} ${plain(result.to)}`;
  if (dryRun) say(`would restore ${where}: ${what}`);
  else {
    say(`restored ${where}: ${what}, ${durationText(result.durationMs)}`);
    say('every byte was read back and hashed to what was captured');
  }
  if (inPlace !== undefined) printInPlace(inPlace, dryRun);
  printFindings(result.findings);
}

/** Names in a line, at most so many. */
const NAMES_SHOWN = 20;

function printInPlace(inPlace: InPlace, dryRun: boolean): void {
  const { replaced, added, removed, kept, oldState } = inPlace;
  say(`names at its top: ${replaced} replaced, ${added} added, ${removed} removed, ${kept} kept`);
  const list = (verb: string, names: readonly string[], count: number) => {
    const more = count > NAMES_SHOWN ? ` and ${count - NAMES_SHOWN} more` : '';
    if (count > 0) say(`  ${verb}: ${names.slice(0, NAMES_SHOWN).map(plain).join(', ')}${more}`);
  };
  list(dryRun ? 'would be removed' : 'removed', inPlace.removedNames, removed);
  list('kept', inPlace.keptNames, kept);
  if (oldState !== '')
    say(`what was there is in ${plain(oldState)} until a point has been taken; start the instance now`);
}
