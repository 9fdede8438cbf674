import type { Command, OptionValues } from 'commander';
import { collect } from '../options.ts';
import { runUntilStopped } from '../run-agent.ts';
import { flagsOf } from '../settings.ts';

/** `up`: protect a directory until stopped. */
export function addUp(program: Command): void {
  program
    .command('up')
    .description('protect a directory until stopped: the main job')
    .option('--dir <dir>', 'the directory (required)')
    .option('--graph <id>', "the graph's name (default: the directory's)")
    .option('--state <dir>', 'where this agent keeps what is its own')
    .option('--store <dir>', 'where the points are kept (default: STATE/store)')
    .option('--http <host:port>', 'metrics and probes (default: 127.0.0.1:9701, or a free port)')
    .option('--exclude <pattern>', 'names to leave out; may be given several times', collect)
    .option('--quiet <duration>', 'the least time without a change (default: 300ms; longer where learned)')
    .option('--min-interval <duration>', 'captures start this far apart, at least (default: 1s)')
    .option('--instance-url <url>', 'where the instance serves: it is asked whether it is idle')
    .option('--api-key-file <file>', 'its key (default: LIGHTRAG_API_KEY)')
    .option('--allow-partial', 'guard the files of an instance that keeps a part of the graph elsewhere')
    .option('--no-split', 'guard workspaces in subfolders as a part of this graph')
    .option('--disk-reserve <size>', 'free space that must remain; 0 turns the check off')
    .action(run);
}

async function run(flags: OptionValues, command: Command): Promise<void> {
  const { readSettings } = await import('../../agent/main.ts');
  await runUntilStopped(await readSettings({ flags: flagsOf(flags, command), env: process.env }));
}
