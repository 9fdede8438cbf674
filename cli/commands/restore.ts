import type { Command } from 'commander';
import { LightkeeperError } from '../../core/errors.ts';
import { RestoreResultSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { durationText, sizeText } from '../../host/quantity.ts';
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
import { lastOf } from '../stream.ts';

interface RestoreOptions extends CommonOptions {
  readonly snapshot?: string;
  readonly to?: string;
  readonly inPlace?: string;
  readonly path?: string[];
  readonly dryRun?: boolean;
  readonly allowTorn?: boolean;
  readonly diskReserve?: bigint;
}

/** `restore`: a snapshot back to a directory. */
export function addRestore(program: Command): void {
  withCommon(
    program.command('restore').description('write a snapshot to a directory that is absent or empty'),
  )
    .option('--snapshot <id>', 'an id, the start of one, latest or latest-valid (required)')
    .option('--to <dir>', 'where to (required)')
    .option('--path <glob>', 'only these files; may be given several times', collect)
    .option('--dry-run', 'say what would be written')
    .option('--allow-torn', 'restore a torn snapshot that is named by its id')
    .addOption(reserveOption())
    .addOption(program.createOption('--in-place <dir>').hideHelp())
    .addOption(program.createOption('--instance-url <url>').hideHelp())
    .addOption(program.createOption('--instance-stopped').hideHelp())
    .action(async (options: RestoreOptions) => {
      if (options.inPlace !== undefined) {
        throw new LightkeeperError('UNIMPLEMENTED', 'Cannot restore in place: not in this version', {
          hint: 'stop the instance, restore with --to beside the directory, and swap the two',
        });
      }
      const snapshotId = required(options.snapshot, '--snapshot');
      const to = pathArgument(required(options.to, '--to'));
      const result = await withStore(storeOf(options), { reading: true }, (client) =>
        lastOf(
          client.restore({
            snapshotId,
            graphId: options.graph ?? '',
            to,
            paths: options.path ?? [],
            dryRun: options.dryRun ?? false,
            allowTorn: options.allowTorn ?? false,
            ...(options.diskReserve === undefined ? {} : { diskReserveBytes: options.diskReserve }),
          }),
        ),
      );
      if (options.json === true) return printJson(RestoreResultSchema, result);
      const what = `${result.files} files, ${sizeText(Number(result.bytes))}`;
      if (result.dryRun)
        say(`would restore ${result.snapshotId.slice(0, 12)} to ${plain(result.to)}: ${what}`);
      else {
        say(
          `restored ${result.snapshotId.slice(0, 12)} to ${plain(result.to)}: ${what}, ${durationText(result.durationMs)}`,
        );
        say('every byte was read back and hashed to what was captured');
      }
      printFindings(result.findings);
    });
}
