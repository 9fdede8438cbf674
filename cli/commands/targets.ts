import { dirname, resolve } from 'node:path';
import type { Command } from 'commander';
import {
  CheckTargetsResponseSchema,
  HealthState_Value,
  ListTargetsResponseSchema,
  RemoveTargetResponseSchema,
  type Target,
  TargetSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { parseRate, sizeText } from '../../host/quantity.ts';
import { EXIT } from '../exit.ts';
import { addCommonOptions, type CommonOptions, collectValue, storePath } from '../options.ts';
import { escapeControls, printJson, printLine } from '../print.ts';
import { withStore } from '../store.ts';
import { followerLine } from './status.ts';

interface AddOptions extends CommonOptions {
  readonly certificate?: string;
  readonly graphs?: string[];
  readonly bandwidth?: bigint;
  readonly standby?: boolean;
}

/** Adds `targets`: the agents that may follow graphs of this one. */
export function addTargets(program: Command): void {
  const targets = program.command('targets').description('the agents that may follow graphs of this one');
  addCommonOptions(
    targets.command('add').description('add a target, or replace the one of this name').argument('<name>'),
  )
    .option('--certificate <name>', 'common name in its certificate (default: its name)')
    .option('--graphs <id>', 'a graph that it may follow; may be repeated (default: all)', collectValue)
    .option('--bandwidth <rate>', 'highest rate of sending, such as 50MB/s', parseRate)
    .option('--no-standby', 'its copies do not count for ack')
    .action(add);
  addCommonOptions(targets.command('list').description('list the targets and their streams')).action(list);
  addCommonOptions(
    targets.command('remove').description('remove a target, and end its streams').argument('<name>'),
  ).action(remove);
  addCommonOptions(
    targets
      .command('check')
      .description('check whether targets are connected and hold what they should')
      .argument('[name]'),
  )
    .option('--deep', 'also compare the points of both ends by their digests')
    .action(check);
}

/** Returns the options for calls about targets: where no agent runs, they are kept in the state folder. */
function connection(options: CommonOptions): { state: string } {
  return { state: options.state === undefined ? dirname(storePath(options)) : resolve(options.state) };
}

async function add(name: string, options: AddOptions): Promise<void> {
  // Where --graph is known from other commands, it means the same here.
  const graphIds = [...(options.graphs ?? []), ...(options.graph === undefined ? [] : [options.graph])];
  const request = {
    name,
    certificate: options.certificate ?? '',
    graphIds,
    bandwidth: options.bandwidth ?? 0n,
    noStandby: options.standby === false,
  };
  const target = await withStore(storePath(options), { ...connection(options), create: true }, (client) =>
    client.addTarget(request),
  );
  if (options.json === true) return printJson(TargetSchema, target);
  printLine(`added ${targetLine(target)}`);
}

async function list(options: CommonOptions): Promise<void> {
  const result = await withStore(storePath(options), { ...connection(options), reading: true }, (client) =>
    client.listTargets({}),
  );
  if (options.json === true) return printJson(ListTargetsResponseSchema, result);
  for (const target of result.targets) {
    printLine(targetLine(target));
    for (const follower of target.followers)
      printLine(`  ${escapeControls(follower.graphId)}: ${followerLine(follower)}`);
  }
  if (result.targets.length === 0) printLine('no targets');
}

function targetLine({ name, certificate, graphIds, bandwidth, standby, fromSettings }: Target): string {
  const graphs = graphIds.length === 0 ? 'all graphs' : graphIds.join(', ');
  const parts = [
    graphs,
    ...(certificate === name ? [] : [`certificate ${certificate}`]),
    ...(bandwidth === 0n ? [] : [`at most ${sizeText(Number(bandwidth))}/s`]),
    ...(standby ? [] : ['no standby']),
    ...(fromSettings ? ['from the settings'] : []),
  ];
  return escapeControls(`${name}: ${parts.join(', ')}`);
}

async function remove(name: string, options: CommonOptions): Promise<void> {
  const result = await withStore(storePath(options), connection(options), (client) =>
    client.removeTarget({ name }),
  );
  if (options.json === true) return printJson(RemoveTargetResponseSchema, result);
  printLine(`removed ${escapeControls(name)}`);
}

async function check(name: string | undefined, options: CommonOptions & { deep?: boolean }): Promise<void> {
  const request = { name: name ?? '', deep: options.deep ?? false };
  const result = await withStore(storePath(options), connection(options), (client) =>
    client.checkTargets(request),
  );
  if (result.targets.some(({ health }) => health !== HealthState_Value.HEALTHY))
    process.exitCode = EXIT.findings;
  if (options.json === true) return printJson(CheckTargetsResponseSchema, result);
  for (const { name: own, health, reasons, held, snapshots } of result.targets) {
    const counted = snapshots === undefined ? '' : `, holds ${held ?? 0n} of ${snapshots} points`;
    const why = reasons.length === 0 ? '' : `: ${reasons.join('; ')}`;
    printLine(escapeControls(`${own}  ${HealthState_Value[health]}${counted}${why}`));
  }
  if (result.targets.length === 0) printLine('no targets');
}
