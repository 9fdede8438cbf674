import { type Command, Option } from 'commander';
import { LightkeeperError } from '../../core/errors.ts';
import {
  RepairResultSchema,
  VerifyLevel_Value,
  VerifyResultSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Finding, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { sizeText } from '../../host/quantity.ts';
import { lastOf } from '../await-result.ts';
import { EXIT } from '../exit.ts';
import { type CommonOptions, storeOf, withCommon } from '../options.ts';
import { printFindings, printJson, say } from '../print.ts';
import { withStore } from '../store.ts';

const PROVES: Readonly<Record<VerifyLevel_Value, string>> = {
  [VerifyLevel_Value.UNSPECIFIED]: '',
  [VerifyLevel_Value.STRUCTURE]: 'every pack is there, and every snapshot refers to units that packs list',
  [VerifyLevel_Value.BYTES]: 'every byte of every pack hashes, and every unit decodes to what was captured',
  [VerifyLevel_Value.GRAPH]: 'the graphs inside are whole',
};

/** `verify` and `repair`: whether a store holds what it says, and the mend. */
export function addChecking(program: Command): void {
  withCommon(program.command('verify').description('prove that the store holds what it says'))
    .option('--snapshot <id>', 'only what this snapshot needs')
    .addOption(
      new Option('--level <level>', 'how deep to look')
        .choices(['structure', 'bytes', 'graph'])
        .default('structure'),
    )
    .action(verify);
  withCommon(
    program.command('repair').description('rebuild the index, save what can be saved; deletes nothing'),
  )
    .option('--dry-run', 'say what is wrong and change nothing')
    .addOption(new Option('--from <peer>').hideHelp())
    .action(repair);
}

async function verify(options: CommonOptions & { snapshot?: string; level: string }): Promise<void> {
  const level = VerifyLevel_Value[options.level.toUpperCase() as keyof typeof VerifyLevel_Value];
  const result = await withStore(storeOf(options), { reading: true }, (client) =>
    lastOf(client.verifyStore({ snapshotId: options.snapshot ?? '', graphId: options.graph ?? '', level })),
  );
  // What lowers a graph to DEGRADED leaves its points usable.
  const lowers = ({ severity, snapshots }: Finding) =>
    level === VerifyLevel_Value.GRAPH && severity === Severity_Value.WARNING && snapshots.length > 0;
  if (result.findings.some((one) => one.severity !== Severity_Value.INFO && !lowers(one)))
    process.exitCode = EXIT.findings;
  if (options.json === true) return printJson(VerifyResultSchema, result);
  const read = result.checkedBytes > 0n ? `, ${sizeText(Number(result.checkedBytes))} read` : '';
  say(`${result.checkedSnapshots} snapshots, ${result.checkedPacks} packs${read}`);
  if (result.findings.length === 0) say(`all holds: ${PROVES[level]}`);
  printFindings(result.findings);
}

async function repair(options: CommonOptions & { dryRun?: boolean; from?: string }): Promise<void> {
  if (options.from !== undefined) {
    throw new LightkeeperError('UNIMPLEMENTED', 'Cannot repair from a peer: not in this version', {
      hint: 'leave --from out: repair saves what this store still has',
    });
  }
  const dryRun = options.dryRun ?? false;
  const result = await withStore(storeOf(options), { recover: !dryRun }, (client) =>
    lastOf(client.repairStore({ dryRun })),
  );
  if (
    result.unhealed > 0 ||
    result.findings.some(({ code }) => code === 'pack_damaged' || code === 'pack_missing')
  ) {
    process.exitCode = EXIT.findings;
  }
  if (options.json === true) return printJson(RepairResultSchema, result);
  say(
    `${result.rebuilt} index entries rebuilt, ${result.healed} units saved, ${result.quarantined} packs set aside, ` +
      `${result.unhealed} units missing`,
  );
  printFindings(result.findings);
}
