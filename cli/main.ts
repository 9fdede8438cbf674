#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { LightkeeperError, normalise } from '../core/errors.ts';
import { version } from '../host/version.ts';
import { EXIT, exitCodeOf } from './exit.ts';
import { printError } from './print.ts';

/** Commands of the contract whose part has not been built yet. */
const LATER = [
  'gate',
  'controller',
  'status',
  'graphs',
  'agents',
  'targets',
  'replicate',
  'checkpoint',
  'schedule',
  'switchover',
  'failover',
  'plan',
  'forks',
  'pause',
  'resume',
  'drill',
  'operations',
  'events',
  'audit',
  'keys',
  'ca',
  'token',
] as const;

/** Loads the commands that a word of the command line needs, and no others: each costs start-up time. */
async function addCommands(program: Command, word: string | undefined): Promise<void> {
  const all = word === undefined || word === 'help' || word.startsWith('-');
  const wants = (...words: string[]) => all || words.includes(word ?? '');
  if (wants('up')) (await import('./commands/up.ts')).addUp(program);
  if (wants('agent', 'config')) {
    const { addAgent, addConfig } = await import('./commands/agent.ts');
    await addAgent(program, word === 'agent');
    await addConfig(program, word === 'config');
  }
  if (wants('demo')) (await import('./commands/demo.ts')).addDemo(program);
  if (wants('snapshot')) (await import('./commands/snapshot.ts')).addSnapshot(program);
  if (wants('list', 'show', 'stats')) (await import('./commands/list.ts')).addReading(program);
  if (wants('diff')) (await import('./commands/diff.ts')).addDiff(program);
  if (wants('export')) (await import('./commands/export.ts')).addExport(program);
  if (wants('validate')) (await import('./commands/validate.ts')).addValidate(program);
  if (wants('restore')) (await import('./commands/restore.ts')).addRestore(program);
  if (wants('verify', 'repair')) (await import('./commands/verify.ts')).addChecking(program);
  if (wants('prune', 'delete', 'pin', 'unpin', 'tag', 'ack', 'findings'))
    (await import('./commands/retention.ts')).addKeeping(program);
  if (wants('version')) (await import('./commands/version.ts')).addVersion(program);
}

function newProgram(): Command {
  return new Command('lightkeeper')
    .description(
      'Keeps LightRAG graph instances alive: checked, deduplicated snapshots of a directory that never rests.',
    )
    .version(version, '-V, --version', 'print the version')
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .showHelpAfterError(false);
}

/** Commander's own complaints in our words. */
function usageError(error: CommanderError): LightkeeperError {
  const message = error.message.replace(/^error: /, '');
  return new LightkeeperError('INVALID_ARGUMENT', `Cannot run: ${message}`, {
    hint: 'run lightkeeper --help',
  });
}

async function run(args: readonly string[]): Promise<void> {
  const words = args.filter((argument) => !argument.startsWith('-'));
  const word = words[0] === 'help' ? (words[1] ?? 'help') : words[0];
  if ((LATER as readonly string[]).includes(word ?? '')) {
    throw new LightkeeperError('UNIMPLEMENTED', `Cannot run "${word}": not in this version`, {
      hint: 'run lightkeeper --help for what there is',
    });
  }
  const program = newProgram();
  await addCommands(program, word);
  if (args.length === 0) {
    program.outputHelp();
    return;
  }
  if (word !== undefined && program.commands.length === 0) {
    throw new LightkeeperError('INVALID_ARGUMENT', `Cannot run "${word}": there is no such command`, {
      hint: 'run lightkeeper --help',
    });
  }
  for (const command of program.commands.flatMap((one) => [one, ...one.commands]))
    command.exitOverride().configureOutput({ writeErr: () => {} });
  await program.parseAsync(args, { from: 'user' });
}

/** The answer is out: what comes now must not print a second one. */
let answered = false;

async function main(args: readonly string[]): Promise<void> {
  try {
    await run(args);
    answered = true;
  } catch (error) {
    answered = true;
    if (error instanceof CommanderError && error.exitCode === 0) return;
    const failure = error instanceof CommanderError ? usageError(error) : normalise(error);
    printError(failure, args.includes('--json'));
    if (process.env.LIGHTKEEPER_DEBUG === '1') console.error(error);
    process.exitCode = exitCodeOf(failure.code);
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // A daemon has listeners of its own and ends by itself; a command just ends: what it had not published is not there.
    if (process.listenerCount(signal) !== 1) return;
    const failure = new LightkeeperError('CANCELLED', 'Cannot finish: it was interrupted');
    if (!answered) printError(failure, process.argv.includes('--json'));
    process.exit(EXIT.interrupted);
  });
}
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // A daemon has a listener of its own, and goes on without a reader.
  if (process.stdout.listenerCount('error') !== 1) return;
  // The reader has gone: there is nothing left to do.
  if (error.code === 'EPIPE') process.exit(EXIT.done);
  throw error;
});

await main(process.argv.slice(2));
