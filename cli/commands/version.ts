import type { Command } from 'commander';
import { GetVersionResponseSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { printJson, printLine, printTable } from '../print.ts';

/** Adds `version`, which prints the build and the formats that it supports. */
export function addVersion(program: Command): void {
  program
    .command('version')
    .description('print the version, the commit, Node, the store formats and the protocols between agents')
    .option('--json', 'print exactly one JSON document')
    .action(run);
}

async function run({ json }: { readonly json?: boolean }): Promise<void> {
  const { versionInfo } = await import('../../agent/main.ts');
  const info = await versionInfo();
  if (json === true) return printJson(GetVersionResponseSchema, info);
  printLine(`lightkeeper ${info.version}`);
  const { commit, node, storeFormats, protocolMin, protocolMax } = info;
  printTable([
    ['commit', commit === '' ? 'unknown' : commit],
    ['node', node],
    ['store formats', storeFormats.join(', ')],
    ['protocols', `${protocolMin} to ${protocolMax}`],
  ]);
}
