import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import {
  RepairResultSchema,
  VerifyLevel_Value,
  VerifyResultSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Finding, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { sizeText } from '../../host/quantity.ts';
import { lastOf } from '../await-result.ts';
import { EXIT } from '../exit.ts';
import { addCommonOptions, type CommonOptions, requireValue, storePath } from '../options.ts';
import { printFindings, printJson, printLine } from '../print.ts';
import { withStore } from '../store.ts';

/** What each level proves. */
const LEVEL_CLAIMS: Readonly<Record<VerifyLevel_Value, string>> = {
  [VerifyLevel_Value.UNSPECIFIED]: '',
  [VerifyLevel_Value.STRUCTURE]:
    'every pack exists, and every unit that a snapshot needs is listed in a pack',
  [VerifyLevel_Value.BYTES]: 'the hash of every pack matches, and every unit decodes to the captured bytes',
  [VerifyLevel_Value.GRAPH]: 'the graphs in the snapshots are whole',
};

/** Adds `verify`, which checks a store, and `repair`, which saves what can be saved. */
export function addVerify(program: Command): void {
  addCommonOptions(program.command('verify').description('check that the store is whole'))
    .option('--snapshot <id>', 'check only what this snapshot needs')
    .addOption(
      new Option('--level <level>', 'depth of the check')
        .choices(['structure', 'bytes', 'graph'])
        .default('structure'),
    )
    .action(verify);
  addCommonOptions(
    program
      .command('repair')
      .description('rebuild the index and save the units that are whole; never delete'),
  )
    .option('--dry-run', 'print what is wrong; change nothing')
    .option(
      '--from <peer>',
      'fetch what is missing from this agent: its URL, or the name of a connected follower, or "source"',
    )
    .option('--cert <file>', 'certificate for an https URL (default: that of the running agent)')
    .option('--key <file>', 'private key of the certificate')
    .option('--ca <file>', 'certificate authority of the other agent')
    .action(repair);
}

async function verify(options: CommonOptions & { snapshot?: string; level: string }): Promise<void> {
  const level = VerifyLevel_Value[options.level.toUpperCase() as keyof typeof VerifyLevel_Value];
  const result = await withStore(storePath(options), { reading: true }, (client) =>
    lastOf(client.verifyStore({ snapshotId: options.snapshot ?? '', graphId: options.graph ?? '', level })),
  );
  // A finding that lowers a graph to DEGRADED leaves its snapshots usable.
  const lowers = ({ severity, snapshots }: Finding) =>
    level === VerifyLevel_Value.GRAPH && severity === Severity_Value.WARNING && snapshots.length > 0;
  if (result.findings.some((one) => one.severity !== Severity_Value.INFO && !lowers(one)))
    process.exitCode = EXIT.findings;
  if (options.json === true) return printJson(VerifyResultSchema, result);
  const read = result.checkedBytes > 0n ? `, ${sizeText(Number(result.checkedBytes))} read` : '';
  printLine(`${result.checkedSnapshots} snapshots, ${result.checkedPacks} packs${read}`);
  if (result.findings.length === 0) printLine(`verified: ${LEVEL_CLAIMS[level]}`);
  printFindings(result.findings);
}

interface RepairOptions extends CommonOptions {
  dryRun?: boolean;
  from?: string;
  cert?: string;
  key?: string;
  ca?: string;
}

async function repair(options: RepairOptions): Promise<void> {
  const { cert, key, ca } = options;
  const dryRun = options.dryRun ?? false;
  const request = {
    dryRun,
    from: options.from === undefined ? '' : requireValue(options.from, '--from'),
    tlsCert: absolute(cert),
    tlsKey: absolute(key),
    tlsCa: absolute(ca),
  };
  const result = await withStore(storePath(options), { recover: !dryRun }, (client) =>
    lastOf(client.repairStore(request)),
  );
  if (
    result.unhealed > 0 ||
    result.findings.some(({ code }) => code === 'pack_damaged' || code === 'pack_missing')
  ) {
    process.exitCode = EXIT.findings;
  }
  if (options.json === true) return printJson(RepairResultSchema, result);
  printLine(
    `${result.rebuilt} index entries rebuilt, ${result.healed} units saved, ${result.quarantined} packs set aside, ` +
      `${result.unhealed} units missing`,
  );
  printFindings(result.findings);
}

// The agent that has the store open may run elsewhere.
/** Returns the absolute path of a file; empty for none. */
function absolute(path: string | undefined): string {
  return path === undefined || path === '' ? '' : resolve(path);
}
