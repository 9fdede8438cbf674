#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { LightkeeperError, normalise } from '../core/errors.ts';
import { version } from '../host/version.ts';
import { EXIT, exitCodeOf } from './exit.ts';
import { printError } from './print.ts';

/** Commands that are not in this version. */
const UNBUILT_COMMANDS = [
  'gate',
  'controller',
  'graphs',
  'agents',
  'checkpoint',
  'schedule',
  'switchover',
  'failover',
  'plan',
  'pause',
  'resume',
  'drill',
  'operations',
  'events',
  'audit',
  'keys',
  'token',
] as const;

// Each command costs start-up time.
/** Adds the commands that a word of the command line needs. */
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
  if (wants('list', 'show', 'stats')) (await import('./commands/list.ts')).addList(program);
  if (wants('diff')) (await import('./commands/diff.ts')).addDiff(program);
  if (wants('dump')) (await import('./commands/dump.ts')).addDump(program);
  if (wants('export')) (await import('./commands/export.ts')).addExport(program);
  if (wants('validate')) (await import('./commands/validate.ts')).addValidate(program);
  if (wants('restore')) (await import('./commands/restore.ts')).addRestore(program);
  if (wants('grade')) (await import('./commands/grade.ts')).addGrade(program);
  if (wants('verify', 'repair')) (await import('./commands/verify.ts')).addVerify(program);
  if (wants('prune', 'delete', 'pin', 'unpin', 'tag', 'ack', 'findings'))
    (await import('./commands/retention.ts')).addRetention(program);
  if (wants('targets')) (await import('./commands/targets.ts')).addTargets(program);
  if (wants('status', 'replicate')) (await import('./commands/status.ts')).addStatus(program);
  if (wants('ca')) (await import('./commands/ca.ts')).addCa(program);
  if (wants('forks')) (await import('./commands/forks.ts')).addForks(program);
  if (wants('version')) (await import('./commands/version.ts')).addVersion(program);
}

function newProgram(): Command {
  return new Command('lightkeeper')
    .description(
      'Keeps LightRAG graph instances alive: takes checked, deduplicated snapshots while they are written.',
    )
    .version(version, '-V, --version', 'print the version')
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .showHelpAfterError(false);
}

/** Returns an error of commander as ours. */
function usageError(error: CommanderError): LightkeeperError {
  const message = error.message.replace(/^error: /, '');
  return new LightkeeperError('INVALID_ARGUMENT', `Cannot run: ${message}`, {
    hint: 'run lightkeeper --help',
  });
}

async function run(args: readonly string[]): Promise<void> {
  const words = args.filter((argument) => !argument.startsWith('-'));
  const word = words[0] === 'help' ? (words[1] ?? 'help') : words[0];
  if ((UNBUILT_COMMANDS as readonly string[]).includes(word ?? '')) {
    throw new LightkeeperError('UNIMPLEMENTED', `Cannot run "${word}": not in this version`, {
      hint: 'run lightkeeper --help to list the commands',
    });
  }
  const program = newProgram();
  await addCommands(program, word);
  if (args.length === 0) {
    program.outputHelp();
    return;
  }
  if (word !== undefined && program.commands.length === 0) {
    throw new LightkeeperError('INVALID_ARGUMENT', `Cannot run "${word}": it is not a command`, {
      hint: 'run lightkeeper --help',
    });
  }
  for (const command of program.commands.flatMap((one) => [one, ...one.commands]))
    command.exitOverride().configureOutput({ writeErr: () => {} });
  await program.parseAsync(args, { from: 'user' });
}

// An interrupt must not print a second document.
/** Whether the command has printed its result or its error. */
let isReported = false;

async function main(args: readonly string[]): Promise<void> {
  try {
    await run(args);
    isReported = true;
  } catch (error) {
    isReported = true;
    if (error instanceof CommanderError && error.exitCode === 0) return;
    const failure = error instanceof CommanderError ? usageError(error) : normalise(error);
    printError(failure, args.includes('--json'));
    if (process.env.LIGHTKEEPER_DEBUG === '1') console.error(error);
    process.exitCode = exitCodeOf(failure.code);
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // A daemon has its own listeners and ends by itself. A command may end at any time: nothing unfinished is stored.
    if (process.listenerCount(signal) !== 1) return;
    const failure = new LightkeeperError('CANCELLED', 'Cannot finish: it was interrupted');
    if (!isReported) printError(failure, process.argv.includes('--json'));
    process.exit(EXIT.interrupted);
  });
}
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // A daemon has its own listener, and goes on without a reader.
  if (process.stdout.listenerCount('error') !== 1) return;
  // Without a reader there is nothing left to do.
  if (error.code === 'EPIPE') process.exit(EXIT.done);
  throw error;
});

await main(process.argv.slice(2));
