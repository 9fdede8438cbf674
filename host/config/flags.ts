import { LightkeeperError } from '../../core/errors.ts';
import type { Keys } from './keys.ts';
import { emptyMap, type Mapping, type Node, type Origin, withValue } from './node.ts';
import type { ProblemReport } from './problem.ts';

/** The flag of a key. */
export interface SettingFlag<S extends string = string> {
  /** `--min-interval` */
  readonly name: string;
  /** Table that the key is in. */
  readonly scope: S;
  /** Keys that lead to the value. */
  readonly path: readonly string[];
  /** Placeholder of the value; empty for a flag without one: `--split`, `--no-split`. */
  readonly word: string;
  readonly about: string;
  readonly repeats: boolean;
  readonly structure: boolean;
  /** Whether the help leaves it out: its part is not in this version, or it is a second name. */
  readonly hidden: boolean;
}

/** Returns the flags of a table of keys. `otherNames` has the preferred flag of a key, instead of its own name. */
export function flagsOfKeys<S extends string>(
  scope: S,
  keys: Keys,
  otherNames: Readonly<Record<string, string>> = {},
): SettingFlag<S>[] {
  return Object.entries(keys).flatMap(([name, one]) => {
    const flags = flagsBelow(scope, { [name]: one }, [], false);
    const [first] = flags;
    const preferred = Object.hasOwn(otherNames, name) ? otherNames[name] : undefined;
    if (first === undefined || preferred === undefined) return flags;
    return [{ ...first, name: preferred }, { ...first, hidden: true }, ...flags.slice(1)];
  });
}

function flagsBelow<S extends string>(
  scope: S,
  keys: Keys,
  above: readonly string[],
  isLater: boolean,
): SettingFlag<S>[] {
  return Object.entries(keys).flatMap(([key, one]) => {
    const path = [...above, key];
    const { word, about, repeats = false, structure = false } = one;
    const hidden = isLater || one.later === true;
    const name = `--${path.join('-').replaceAll('_', '-')}`;
    const below = one.keys === undefined ? [] : flagsBelow(scope, one.keys, path, hidden);
    return [{ name, scope, path, word, about, repeats, structure, hidden }, ...below];
  });
}

/** Given flags by name (`--min-interval`). The value of a flag without one is true or false. */
export type Flags = Readonly<Record<string, string | readonly string[] | boolean>>;

/** Reads given flags into one map per scope. Structures are written as YAML. */
export async function readFlags<S extends string>(
  flags: Flags,
  known: readonly SettingFlag<S>[],
  report: ProblemReport,
): Promise<ReadonlyMap<S, Mapping>> {
  const byName = new Map(known.map((flag) => [flag.name, flag]));
  const maps = new Map<S, Mapping>();
  // Structures first: the flags of their keys win over them.
  const given = Object.entries(flags)
    .map(([name, value]) => ({ flag: byName.get(name) ?? refuseFlag(name), value }))
    .sort((a, b) => a.flag.path.length - b.flag.path.length);
  for (const { flag, value } of given) {
    const node = await nodeOfFlag(flag, value, report);
    if (node !== undefined)
      maps.set(flag.scope, withValue(maps.get(flag.scope) ?? emptyMap(), flag.path, node));
  }
  return maps;
}

function refuseFlag(name: string): never {
  throw new LightkeeperError('INTERNAL', `Cannot use the flag "${name}": no key has it`);
}

async function nodeOfFlag(
  { name, structure }: SettingFlag,
  value: string | readonly string[] | boolean,
  report: ProblemReport,
): Promise<Node | undefined> {
  const origin: Origin = { kind: 'flag', name: value === false ? name.replace(/^--/, '--no-') : name };
  if (typeof value === 'string' && structure) {
    const { parseYaml } = await import('./yaml.ts');
    return parseYaml(value, { kind: 'flag', name }, report);
  }
  if (typeof value === 'string' || typeof value === 'boolean') return { kind: 'scalar', value, origin };
  return { kind: 'list', items: value.map((one) => ({ kind: 'scalar', value: one, origin })), origin };
}
