import { type SettingFlag, settingFlags } from '../../agent/config/schema.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { emptyMap, type Mapping, type Node, type Origin, withValue } from './node.ts';
import type { ProblemReport } from './problem.ts';

/** Flags as they were given, by their names (`--min-interval`); a flag without a value is true or false. */
export type Flags = Readonly<Record<string, string | readonly string[] | boolean>>;

/** What flags say, of the agent and of its one graph. */
export interface FromFlags {
  readonly agent: Mapping;
  readonly graph: Mapping;
}

/** Reads flags; a structure is written as YAML. */
export async function readFlags(flags: Flags, report: ProblemReport): Promise<FromFlags> {
  const known = new Map(settingFlags().map((flag) => [flag.name, flag]));
  const maps = { agent: emptyMap(), graph: emptyMap() };
  // A structure first: the flags of its keys win over it.
  const given = Object.entries(flags)
    .map(([name, value]) => ({ flag: known.get(name) ?? unknownFlag(name), value }))
    .sort((a, b) => a.flag.path.length - b.flag.path.length);
  for (const { flag, value } of given) {
    const node = await nodeOf(flag, value, report);
    if (node !== undefined) maps[flag.scope] = withValue(maps[flag.scope], flag.path, node);
  }
  return maps;
}

function unknownFlag(name: string): never {
  throw new LightkeeperError('INTERNAL', `Cannot use the flag "${name}": no key has it`);
}

async function nodeOf(
  flag: SettingFlag,
  value: string | readonly string[] | boolean,
  report: ProblemReport,
): Promise<Node | undefined> {
  const { name } = flag;
  const origin: Origin = { kind: 'flag', name: value === false ? name.replace(/^--/, '--no-') : name };
  if (typeof value === 'string' && flag.structure) {
    const { parseYaml } = await import('./yaml.ts');
    return parseYaml(value, { kind: 'flag', name }, report);
  }
  if (typeof value === 'string' || typeof value === 'boolean') return { kind: 'scalar', value, origin };
  return { kind: 'list', items: value.map((one) => ({ kind: 'scalar', value: one, origin })), origin };
}
