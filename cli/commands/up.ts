import type { Command, OptionValues } from 'commander';
import { collectValue } from '../options.ts';
import { flagsOf } from '../settings.ts';

/** Adds `up`, which protects a directory until stopped. */
export function addUp(program: Command): void {
  program
    .command('up')
    .description('protect a directory until stopped (the main job)')
    .option('--dir <dir>', 'directory (required)')
    .option('--graph <id>', "graph id (default: the directory's name)")
    .option('--state <dir>', 'state folder of this agent')
    .option('--store <dir>', 'folder of the store (default: STATE/store)')
    .option('--http <host:port>', 'address of metrics and probes (default: 127.0.0.1:9701, or a free port)')
    .option(
      '--grpc <host:port>',
      'address for calls of other agents (default: 127.0.0.1:9702, or a free port)',
    )
    .option('--exclude <pattern>', 'names that are not captured; may be given several times', collectValue)
    .option(
      '--quiet <duration>',
      'shortest time without a change before a capture (default: 300ms; the agent may learn a longer one)',
    )
    .option('--min-interval <duration>', 'shortest time between the starts of two captures (default: 1s)')
    .option('--instance-url <url>', 'URL of the instance: captures wait until it is idle')
    .option('--api-key-file <file>', 'file with the API key of the instance (default: LIGHTRAG_API_KEY)')
    .option('--allow-partial', 'protect the files of an instance that stores a part of the graph elsewhere')
    .option('--no-split', 'protect workspaces in subfolders as a part of this graph')
    .option('--disk-reserve <size>', 'free space that must remain; 0 turns the check off')
    .option('--take-over', 'go on with a graph that another store captured')
    .option('--log-format <format>', 'log to standard error, as text or json')
    .option('--log-level <level>', 'lowest level that is logged: debug, info, warn or error')
    .action(run);
}

async function run(flags: OptionValues, command: Command): Promise<void> {
  const { readSettings } = await import('../../agent/main.ts');
  const read = await readSettings({ flags: flagsOf(flags, command, ['--take-over']), env: process.env });
  // A named format is for a log collector, so the lines for people are left out.
  const { runUntilStopped } = await import('../run-agent.ts');
  await runUntilStopped(read, {
    output: read.log.isFormatGiven ? 'log' : 'print',
    takeOver: flags.takeOver === true,
  });
}
