import type { Command, OptionValues } from 'commander';
import { LightkeeperError } from '../../core/errors.ts';
import { EXIT } from '../exit.ts';
import { escapeControls, printLine, printTable } from '../print.ts';
import { printError } from '../print-error.ts';
import { addSettingFlags, flagsOf } from '../settings.ts';

/** Flags of these commands that are not settings. */
const OWN_FLAGS = ['--config', '--json', '--take-over'];

// The flags of the settings load the agent, which takes time.
/** Adds `agent`, which protects graphs; with `whole` also the flags of all settings. */
export async function addAgent(program: Command, whole: boolean): Promise<void> {
  const command = program
    .command('agent')
    .description('protect graphs, with settings from a file, environment variables and flags')
    .argument('[command...]')
    .option('--config <file>', 'settings file (YAML)')
    .option('--take-over', 'go on with graphs that another store captured')
    .action(runAgentCommand);
  if (whole) await addFlags(command);
}

/** Adds `config check` and `config schema`. */
export async function addConfig(program: Command, whole: boolean): Promise<void> {
  const config = program
    .command('config')
    .description('check the settings of an agent, or print their JSON Schema');
  const check = config
    .command('check')
    .description('print the effective settings, their origins and all problems')
    .option('--config <file>', 'settings file (YAML)')
    .option('--json', 'print exactly one JSON document')
    .action(checkConfig);
  config
    .command('schema')
    .description('print a JSON Schema of the settings file, for editors')
    .action(printSchema);
  config.action(() => {
    throw new LightkeeperError('INVALID_ARGUMENT', 'Cannot run "config" alone', {
      hint: 'run lightkeeper config check or lightkeeper config schema',
    });
  });
  if (whole) await addFlags(check);
}

async function addFlags(command: Command): Promise<void> {
  const { settingFlags } = await import('../../agent/main.ts');
  addSettingFlags(command, await settingFlags());
}

async function printSchema(): Promise<void> {
  const { settingsJsonSchema } = await import('../../agent/main.ts');
  process.stdout.write(`${JSON.stringify(await settingsJsonSchema(), null, 2)}\n`);
}

async function read(values: OptionValues, command: Command) {
  const { readSettings } = await import('../../agent/main.ts');
  const file: unknown = values.config;
  const flags = flagsOf(values, command, OWN_FLAGS);
  return await readSettings({ file: typeof file === 'string' ? file : undefined, flags, env: process.env });
}

async function runAgentCommand(
  words: readonly string[],
  values: OptionValues,
  command: Command,
): Promise<void> {
  if (words.length > 0) {
    throw new LightkeeperError(
      'UNIMPLEMENTED',
      `Cannot supervise "${words.join(' ')}": not in this version`,
      {
        hint: 'start the instance beside the agent',
      },
    );
  }
  const { runUntilStopped } = await import('../run-agent.ts');
  await runUntilStopped(await read(values, command), { output: 'log', takeOver: values.takeOver === true });
}

async function checkConfig(values: OptionValues, command: Command): Promise<void> {
  const { shown, warnings, problems, error } = await read(values, command);
  if (values.json === true) {
    process.stdout.write(`${JSON.stringify({ settings: shown, warnings, problems }, null, 2)}\n`);
  } else {
    const rows = shown.map(({ key, value, origin }) => [key, valueText(value), `(${origin})`]);
    printTable(rows.map((row) => row.map(escapeControls)));
    for (const warning of warnings) printLine(`warning: ${escapeControls(warning)}`);
    if (error === undefined) printLine('the settings are valid');
  }
  if (error === undefined) return;
  // The JSON document has been printed, and there must be only one.
  printError(error, false);
  process.exitCode = EXIT.usage;
}

function valueText(value: string | number | boolean | readonly string[]): string {
  return typeof value === 'object' ? `[${value.join(', ')}]` : String(value);
}
