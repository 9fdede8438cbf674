import { Command, CommanderError } from 'commander';
import { LightkeeperError, normalise } from '../core/errors.ts';
import { version } from '../host/version.ts';

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

/**
 * Runs one command line, which prints its result. Throws what it failed with as a `LightkeeperError`; a help text that was
 * asked for is no failure. "Done with findings" is left in `process.exitCode`.
 */
export async function runCommand(args: readonly string[]): Promise<void> {
  try {
    await run(args);
  } catch (error) {
    if (!(error instanceof CommanderError)) throw normalise(error);
    if (error.exitCode !== 0) throw usageError(error);
  }
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
