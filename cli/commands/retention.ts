import type { Command } from 'commander';
import {
  AcceptFindingsResponseSchema,
  DeleteSnapshotResponseSchema,
  PruneResultSchema,
  SnapshotSummarySchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { sizeText } from '../../host/quantity.ts';
import { lastOf } from '../await-result.ts';
import {
  addCommonOptions,
  type CommonOptions,
  collectValue,
  countArgument,
  durationArgument,
  requireValue,
  storePath,
  tagMap,
} from '../options.ts';
import { printFindings, printJson, printLine } from '../print.ts';
import { withStore } from '../store.ts';

interface PruneOptions extends CommonOptions {
  readonly keepLast?: number;
  readonly keepHourly?: number;
  readonly keepDaily?: number;
  readonly keepWeekly?: number;
  readonly keepMonthly?: number;
  readonly keepYearly?: number;
  readonly keepWithin?: number;
  readonly keepTag?: string[];
  readonly dryRun?: boolean;
}

/** Adds the commands that decide which snapshots stay: `prune`, `delete`, `pin`, `tag`, `ack` and `findings`. */
export function addRetention(program: Command): void {
  addCommonOptions(
    program.command('prune').description('remove the snapshots that no rule keeps, and free their space'),
  )
    .option('--keep-last <n>', 'keep the newest n', countArgument)
    .option('--keep-hourly <n>', 'keep the newest of each of the last n hours that have one', countArgument)
    .option('--keep-daily <n>', 'the same for days', countArgument)
    .option('--keep-weekly <n>', 'the same for weeks', countArgument)
    .option('--keep-monthly <n>', 'the same for months', countArgument)
    .option('--keep-yearly <n>', 'the same for years', countArgument)
    .option(
      '--keep-within <duration>',
      'keep all that are at most this much older than the newest',
      durationArgument,
    )
    .option(
      '--keep-tag <tag>',
      'keep all with this tag (key or key=value); may be given several times',
      collectValue,
    )
    .option('--dry-run', 'print the plan; change nothing')
    .action(prune);
  addCommonOptions(program.command('delete').description('remove one snapshot').argument('<snapshot>'))
    .option('--reason <text>', 'reason, which is recorded')
    .option('--dry-run', 'print what would be removed; change nothing')
    .option('--yes', 'do not ask for confirmation')
    .action(remove);
  addCommonOptions(
    program.command('pin').description('protect a snapshot from removal').argument('<snapshot>'),
  ).action((snapshotId: string, options: CommonOptions) => pin(snapshotId, options, true));
  addCommonOptions(
    program.command('unpin').description('end the protection of a pinned snapshot').argument('<snapshot>'),
  ).action((snapshotId: string, options: CommonOptions) => pin(snapshotId, options, false));
  addCommonOptions(
    program
      .command('tag')
      .description('set or remove tags of a snapshot')
      .argument('<snapshot>')
      .argument('[tags...]', 'key=value'),
  )
    .option('--remove <key>', 'a tag to remove; may be given several times', collectValue)
    .action(tag);
  addCommonOptions(
    program
      .command('ack')
      .description('acknowledge the alarms of a snapshot, so that retention treats it as any other')
      .argument('<snapshot>'),
  )
    .option('--reason <text>', 'reason (required)')
    .action(acknowledge);
  const findings = program.command('findings').description('accept findings of a graph');
  addCommonOptions(
    findings
      .command('accept')
      .description('accept errors of the newest snapshot: they lower its grade to DEGRADED, no further'),
  )
    .option('--code <word>', 'only errors with this code')
    .option('--file <path>', 'only errors of this file')
    .option('--key <name>', 'only this name inside it; may be repeated', collectValue)
    .option('--reason <text>', 'reason (required)')
    .option('--dry-run', 'print what would be accepted; change nothing')
    .action(accept);
}

async function prune(options: PruneOptions): Promise<void> {
  const result = await withStore(storePath(options), {}, (client) =>
    lastOf(
      client.pruneSnapshots({
        graphId: options.graph ?? '',
        dryRun: options.dryRun ?? false,
        policy: {
          last: options.keepLast ?? 0,
          hourly: options.keepHourly ?? 0,
          daily: options.keepDaily ?? 0,
          weekly: options.keepWeekly ?? 0,
          monthly: options.keepMonthly ?? 0,
          yearly: options.keepYearly ?? 0,
          withinMs: BigInt(options.keepWithin ?? 0),
          tags: options.keepTag ?? [],
        },
      }),
    ),
  );
  if (options.json === true) return printJson(PruneResultSchema, result);
  for (const { snapshotId, reasons } of result.keep)
    printLine(`keep    ${snapshotId.slice(0, 12)}  ${reasons.join(', ')}`);
  for (const { snapshotId, reasons } of result.remove)
    printLine(`remove  ${snapshotId.slice(0, 12)}  ${reasons.join(', ')}`);
  const freed = sizeText(Number(result.bytesFreed));
  const verb = result.dryRun ? 'would keep' : 'kept';
  printLine(
    `${verb} ${result.keep.length}, remove${result.dryRun ? '' : 'd'} ${result.remove.length}, ${freed} ${result.dryRun ? 'would be free' : 'freed'}`,
  );
  printFindings(result.findings);
}

async function remove(
  snapshotId: string,
  options: CommonOptions & { reason?: string; dryRun?: boolean; yes?: boolean },
): Promise<void> {
  const dryRun = options.dryRun ?? false;
  if (
    !dryRun &&
    options.yes !== true &&
    process.stdin.isTTY &&
    process.stdout.isTTY &&
    !(await confirmed(snapshotId))
  ) {
    return printLine('removed nothing');
  }
  const result = await withStore(storePath(options), {}, (client) =>
    client.deleteSnapshot({ snapshotId, graphId: options.graph ?? '', reason: options.reason ?? '', dryRun }),
  );
  if (options.json === true) return printJson(DeleteSnapshotResponseSchema, result);
  printLine(
    `${dryRun ? 'would remove' : 'removed'} ${result.snapshotId}${dryRun ? '' : '; the next prune frees its space'}`,
  );
}

async function confirmed(snapshotId: string): Promise<boolean> {
  const { createInterface } = await import('node:readline/promises');
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^y(es)?$/i.test(await terminal.question(`Remove snapshot ${snapshotId}? [y/N] `));
  } finally {
    terminal.close();
  }
}

async function acknowledge(snapshotId: string, options: CommonOptions & { reason?: string }): Promise<void> {
  const request = {
    snapshotId,
    graphId: options.graph ?? '',
    reason: requireValue(options.reason, '--reason'),
  };
  const result = await withStore(storePath(options), {}, (client) => client.acknowledgeSnapshot(request));
  if (options.json === true) return printJson(SnapshotSummarySchema, result);
  printLine(`acknowledged ${result.snapshotId}`);
}

async function accept(
  options: CommonOptions & {
    code?: string;
    file?: string;
    key?: string[];
    reason?: string;
    dryRun?: boolean;
  },
): Promise<void> {
  const request = {
    graphId: options.graph ?? '',
    code: options.code ?? '',
    object: options.file ?? '',
    keys: options.key ?? [],
    reason: requireValue(options.reason, '--reason'),
    dryRun: options.dryRun ?? false,
  };
  const result = await withStore(storePath(options), {}, (client) => client.acceptFindings(request));
  if (options.json === true) return printJson(AcceptFindingsResponseSchema, result);
  const { snapshotId, grade, accepted, remaining, dryRun } = result;
  const verb = dryRun ? 'would be' : 'is';
  printLine(
    `${snapshotId.slice(0, 12)} ${verb} ${Grade_Value[grade]}: ${accepted.length} accepted, ${remaining.length} left`,
  );
  printFindings(remaining);
}

async function pin(snapshotId: string, options: CommonOptions, pinned: boolean): Promise<void> {
  const result = await withStore(storePath(options), {}, (client) =>
    client.pinSnapshot({ snapshotId, graphId: options.graph ?? '', pinned }),
  );
  if (options.json === true) return printJson(SnapshotSummarySchema, result);
  printLine(`${pinned ? 'pinned' : 'unpinned'} ${result.snapshotId}`);
}

async function tag(
  snapshotId: string,
  pairs: string[],
  options: CommonOptions & { remove?: string[] },
): Promise<void> {
  const set = tagMap(pairs);
  const result = await withStore(storePath(options), {}, (client) =>
    client.tagSnapshot({ snapshotId, graphId: options.graph ?? '', set, remove: options.remove ?? [] }),
  );
  if (options.json === true) return printJson(SnapshotSummarySchema, result);
  const tags = Object.entries(result.tags).map(([name, value]) => `${name}=${value}`);
  printLine(`${result.snapshotId}: ${tags.length === 0 ? 'no tags' : tags.join(' ')}`);
}
