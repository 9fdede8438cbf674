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
  type CommonOptions,
  collect,
  duration,
  required,
  storeOf,
  tagMap,
  wholeNumber,
  withCommon,
} from '../options.ts';
import { printFindings, printJson, say } from '../print.ts';
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

/** `prune`, `delete`, `pin`, `unpin`, `tag`: what stays and what goes. */
export function addKeeping(program: Command): void {
  withCommon(program.command('prune').description('remove what no rule keeps, and give back its space'))
    .option('--keep-last <n>', 'the newest n', wholeNumber)
    .option('--keep-hourly <n>', 'the newest of each of the last n hours that have one', wholeNumber)
    .option('--keep-daily <n>', 'the same for days', wholeNumber)
    .option('--keep-weekly <n>', 'the same for weeks', wholeNumber)
    .option('--keep-monthly <n>', 'the same for months', wholeNumber)
    .option('--keep-yearly <n>', 'the same for years', wholeNumber)
    .option('--keep-within <duration>', 'all that are at most this much older than the newest', duration)
    .option('--keep-tag <tag>', 'all with this tag (key or key=value); may be given several times', collect)
    .option('--dry-run', 'print the plan and change nothing')
    .action(prune);
  withCommon(program.command('delete').description('remove one snapshot').argument('<snapshot>'))
    .option('--reason <text>', 'why, for those who ask later')
    .option('--dry-run', 'say what would go')
    .option('--yes', 'do not ask')
    .action(remove);
  withCommon(program.command('pin').description('never remove a snapshot').argument('<snapshot>')).action(
    (snapshotId: string, options: CommonOptions) => pin(snapshotId, options, true),
  );
  withCommon(
    program.command('unpin').description('let the policy decide again').argument('<snapshot>'),
  ).action((snapshotId: string, options: CommonOptions) => pin(snapshotId, options, false));
  withCommon(
    program
      .command('tag')
      .description('set or remove tags')
      .argument('<snapshot>')
      .argument('[tags...]', 'key=value'),
  )
    .option('--remove <key>', 'a tag to remove; may be given several times', collect)
    .action(tag);
  withCommon(
    program
      .command('ack')
      .description(
        'say that the alarms of a snapshot have been seen: it then counts in retention as any other',
      )
      .argument('<snapshot>'),
  )
    .option('--reason <text>', 'why that is right (required)')
    .action(acknowledge);
  const findings = program.command('findings').description('what is wrong with a graph, and may stay so');
  withCommon(
    findings
      .command('accept')
      .description('have errors of the newest snapshot stand: they lower its grade to DEGRADED, no further'),
  )
    .option('--code <word>', 'only errors of this kind')
    .option('--file <path>', 'only errors of this file')
    .option('--reason <text>', 'why that is right (required)')
    .option('--dry-run', 'say what would be accepted')
    .action(accept);
}

async function prune(options: PruneOptions): Promise<void> {
  const result = await withStore(storeOf(options), {}, (client) =>
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
    say(`keep    ${snapshotId.slice(0, 12)}  ${reasons.join(', ')}`);
  for (const { snapshotId, reasons } of result.remove)
    say(`remove  ${snapshotId.slice(0, 12)}  ${reasons.join(', ')}`);
  const freed = sizeText(Number(result.bytesFreed));
  const verb = result.dryRun ? 'would keep' : 'kept';
  say(
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
    return say('nothing was removed');
  }
  const result = await withStore(storeOf(options), {}, (client) =>
    client.deleteSnapshot({ snapshotId, graphId: options.graph ?? '', reason: options.reason ?? '', dryRun }),
  );
  if (options.json === true) return printJson(DeleteSnapshotResponseSchema, result);
  say(
    `${dryRun ? 'would remove' : 'removed'} ${result.snapshotId}${dryRun ? '' : '; the next prune gives its space back'}`,
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
  const request = { snapshotId, graphId: options.graph ?? '', reason: required(options.reason, '--reason') };
  const result = await withStore(storeOf(options), {}, (client) => client.acknowledgeSnapshot(request));
  if (options.json === true) return printJson(SnapshotSummarySchema, result);
  say(`acknowledged ${result.snapshotId}`);
}

async function accept(
  options: CommonOptions & { code?: string; file?: string; reason?: string; dryRun?: boolean },
): Promise<void> {
  const request = {
    graphId: options.graph ?? '',
    code: options.code ?? '',
    object: options.file ?? '',
    reason: required(options.reason, '--reason'),
    dryRun: options.dryRun ?? false,
  };
  const result = await withStore(storeOf(options), {}, (client) => client.acceptFindings(request));
  if (options.json === true) return printJson(AcceptFindingsResponseSchema, result);
  const { snapshotId, grade, accepted, remaining, dryRun } = result;
  const verb = dryRun ? 'would be' : 'is';
  say(
    `${snapshotId.slice(0, 12)} ${verb} ${Grade_Value[grade]}: ${accepted.length} accepted, ${remaining.length} left`,
  );
  printFindings(remaining);
}

async function pin(snapshotId: string, options: CommonOptions, pinned: boolean): Promise<void> {
  const result = await withStore(storeOf(options), {}, (client) =>
    client.pinSnapshot({ snapshotId, graphId: options.graph ?? '', pinned }),
  );
  if (options.json === true) return printJson(SnapshotSummarySchema, result);
  say(`${pinned ? 'pinned' : 'unpinned'} ${result.snapshotId}`);
}

async function tag(
  snapshotId: string,
  pairs: string[],
  options: CommonOptions & { remove?: string[] },
): Promise<void> {
  const set = tagMap(pairs);
  const result = await withStore(storeOf(options), {}, (client) =>
    client.tagSnapshot({ snapshotId, graphId: options.graph ?? '', set, remove: options.remove ?? [] }),
  );
  if (options.json === true) return printJson(SnapshotSummarySchema, result);
  const tags = Object.entries(result.tags).map(([name, value]) => `${name}=${value}`);
  say(`${result.snapshotId}: ${tags.length === 0 ? 'no tags' : tags.join(' ')}`);
}
