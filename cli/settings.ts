import { type Command, Option, type OptionValues } from 'commander';
import type { Flags, SettingFlag } from '../agent/main.ts';
import { collectValue } from './options.ts';

/** Adds the flags of all settings to a command; flags of parts that are not in this version are hidden. */
export function addSettingFlags(command: Command, flags: readonly SettingFlag[]): void {
  for (const { name, word, about, repeats, hidden } of flags) {
    const several = repeats ? `${about}; may be given several times` : about;
    const option = new Option(word === '' ? name : `${name} ${word}`, several).hideHelp(hidden);
    if (repeats) option.argParser(collectValue);
    command.addOption(option);
    if (word === '') command.addOption(new Option(name.replace(/^--/, '--no-'), `not: ${about}`));
  }
}

/** Returns the flags that were given to a command, by name. */
export function flagsOf(values: OptionValues, command: Command, others: readonly string[] = []): Flags {
  const flags: Record<string, string | string[] | boolean> = {};
  for (const { long, negate } of command.options) {
    const name = negate ? (long ?? '').replace(/^--no-/, '--') : (long ?? '');
    const value: unknown = values[optionKey(name)];
    if (others.includes(name) || command.getOptionValueSource(optionKey(name)) !== 'cli') continue;
    if (typeof value === 'string' || typeof value === 'boolean') flags[name] = value;
    else if (Array.isArray(value)) flags[name] = value.map(String);
  }
  return flags;
}

/** Returns the name that commander has for the value of a flag. */
function optionKey(name: string): string {
  return name.replace(/^--/, '').replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
