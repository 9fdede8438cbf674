import { timestampDate } from '@bufbuild/protobuf/wkt';
import type { Command } from 'commander';
import {
  DropForkResponseSchema,
  type Fork,
  ForkSchema,
  ListForksResponseSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { addCommonOptions, type CommonOptions, requireValue, storePath } from '../options.ts';
import { printJson, printLine, printTable } from '../print.ts';
import { withStore } from '../store.ts';

interface ForkOptions extends CommonOptions {
  readonly reason?: string;
  readonly dryRun?: boolean;
}

/** Adds `forks list`, `forks accept` and `forks drop`. */
export function addForks(program: Command): void {
  const forks = program
    .command('forks')
    .description('points of an old primary that never reached the present one');
  addCommonOptions(forks.command('list').description('list the forks')).action(list);
  addCommonOptions(
    forks
      .command('accept')
      .description('give the points of a fork to retention; they never become the head')
      .argument('<fork>'),
  )
    .option('--reason <text>', 'reason (required)')
    .action(accept);
  addCommonOptions(forks.command('drop').description('remove the points of a fork').argument('<fork>'))
    .option('--reason <text>', 'reason (required)')
    .option('--dry-run', 'print what would be removed; change nothing')
    .action(drop);
}

async function list(options: CommonOptions): Promise<void> {
  const result = await withStore(storePath(options), { reading: true }, (client) =>
    client.listForks({ graphId: options.graph ?? '' }),
  );
  if (options.json === true) return printJson(ListForksResponseSchema, result);
  if (result.forks.length === 0) return printLine('no forks');
  printTable(result.forks.map(forkRow));
}

function forkRow({ forkId, graphId, snapshotIds, ancestorId, capturedAt, accepted }: Fork): string[] {
  return [
    forkId.slice(0, 12),
    graphId,
    `${snapshotIds.length} ${snapshotIds.length === 1 ? 'snapshot' : 'snapshots'}`,
    ancestorId === '' ? 'no common point' : `after ${ancestorId.slice(0, 12)}`,
    capturedAt === undefined ? '' : timestampDate(capturedAt).toISOString(),
    accepted ? 'accepted' : 'protected',
  ];
}

async function accept(forkId: string, options: ForkOptions): Promise<void> {
  const request = {
    forkId,
    graphId: options.graph ?? '',
    reason: requireValue(options.reason, '--reason'),
  };
  const result = await withStore(storePath(options), {}, (client) => client.acceptFork(request));
  if (options.json === true) return printJson(ForkSchema, result);
  printLine(`accepted ${result.forkId}: retention treats its points like any other`);
}

async function drop(forkId: string, options: ForkOptions): Promise<void> {
  const request = {
    forkId,
    graphId: options.graph ?? '',
    reason: requireValue(options.reason, '--reason'),
    dryRun: options.dryRun === true,
  };
  const result = await withStore(storePath(options), {}, (client) => client.dropFork(request));
  if (options.json === true) return printJson(DropForkResponseSchema, result);
  const { fork, dryRun } = result;
  const count = fork?.snapshotIds.length ?? 0;
  printLine(
    `${dryRun ? 'would remove' : 'removed'} ${count} ${count === 1 ? 'snapshot' : 'snapshots'} of ${fork?.forkId}${dryRun ? '' : '; the next prune frees the space'}`,
  );
}
