import type { Key, Keys } from './keys.ts';
import { emptyMap, type Mapping, type Node, type Origin, quoted, withValue } from './node.ts';
import type { ProblemReport } from './problem.ts';
import { nearest } from './suggest.ts';
import { parseBoolean } from './value-types.ts';

/** A variable in use, as the value it gives. */
export interface Variable<T> {
  readonly value: T;
  readonly origin: Origin;
}

/** Returns the origin of a variable. */
export function variableOrigin(name: string): Origin {
  return { kind: 'environment', name };
}

/** Prefix of the variables of settings: `LIGHTKEEPER_DISK_RESERVE` is `disk_reserve`. */
const PREFIX = 'LIGHTKEEPER_';
/** Words after the prefix that are no settings: of the command line, of tests, and of hooks. */
const OTHER_WORDS: ReadonlySet<string> = new Set(['KEY', 'DEBUG', 'FAULT', 'GRAPH', 'DIR', 'VERSION']);
// Kubernetes sets these in every container beside a service that is named lightkeeper.
const KUBERNETES_WORD = /(?:^|_)(?:SERVICE_(?:HOST|PORT)|PORT_\d+_(?:TCP|UDP|SCTP))/;
const KUBERNETES_VALUE = /^(?:tcp|udp|sctp):\/\//;

/** A key that a variable can set. */
interface VariableKey {
  readonly path: readonly string[];
  readonly key: Key<unknown>;
}

/** Returns the keys that variables can set, by word: the top ones, and those of maps at the top. */
function variableKeys(keys: Keys): ReadonlyMap<string, VariableKey> {
  const found = new Map<string, VariableKey>();
  for (const [name, key] of Object.entries(keys)) {
    found.set(name.toUpperCase(), { path: [name], key });
    // A key of a part that is not in this version has no variable either.
    if (key.later === true) continue;
    for (const [below, one] of Object.entries(key.keys ?? {}))
      found.set(`${name}_${below}`.toUpperCase(), { path: [name, below], key: one });
  }
  return found;
}

/** Reads the variables of a table of keys. `elsewhere` returns why a word of another table has no variable. */
export async function readVariables(
  env: NodeJS.ProcessEnv,
  keys: Keys,
  report: ProblemReport,
  elsewhere: (key: string) => string | undefined = () => undefined,
): Promise<Mapping> {
  const known = variableKeys(keys);
  let map = emptyMap();
  const given = Object.entries(env).filter(([name, value]) => name.startsWith(PREFIX) && value);
  // A structure sorts before its keys, whose variables win over it.
  for (const [name, value = ''] of given.sort(([a], [b]) => (a < b ? -1 : 1))) {
    const word = name.slice(PREFIX.length);
    const one = known.get(word);
    if (one === undefined) {
      if (!KUBERNETES_VALUE.test(value)) reportUnknown(word, { known: known.keys(), report, elsewhere });
      continue;
    }
    const { structure = false, repeats = false } = one.key;
    const isYaml = structure || (repeats && value.startsWith('['));
    const node: Node | undefined = isYaml
      ? (await import('./yaml.ts')).parseYaml(value, { kind: 'environment', name }, report)
      : { kind: 'scalar', value, origin: variableOrigin(name) };
    if (node !== undefined) map = withValue(map, one.path, node);
  }
  return map;
}

/** Reports an unknown variable: a near miss is a problem, anything else a warning. */
function reportUnknown(
  word: string,
  {
    known,
    report,
    elsewhere,
  }: { known: Iterable<string>; report: ProblemReport; elsewhere: (key: string) => string | undefined },
): void {
  if (KUBERNETES_WORD.test(word)) return;
  const name = `${PREFIX}${word}`;
  const why = elsewhere(word.toLowerCase());
  if (why !== undefined) {
    report.warn(`${name} is not used: ${why}`);
    return;
  }
  if (OTHER_WORDS.has(word)) return;
  const near = nearest(word, known);
  if (near === undefined) {
    report.warn(`${name} is not used: there is no such setting`);
    return;
  }
  const state = `unknown variable; did you mean ${PREFIX}${near}?`;
  report.problem({ origin: variableOrigin(name), path: '' }, state);
}

/** Reads a variable that is true or false; undefined if it is unset, or wrong, which is reported. */
export function booleanVariable(
  env: NodeJS.ProcessEnv,
  name: string,
  report: ProblemReport,
): Variable<boolean> | undefined {
  const word = env[name]?.trim() ?? '';
  if (word === '') return undefined;
  const value = parseBoolean(word);
  if (value !== undefined) return { value, origin: variableOrigin(name) };
  const state = `true or false is needed here, not ${quoted(word)}`;
  report.problem({ origin: variableOrigin(name), path: '' }, state);
  return undefined;
}

/** Reads a variable that is a number above 0; undefined if it is unset, or wrong, which is reported. */
export function numberVariable(
  env: NodeJS.ProcessEnv,
  name: string,
  { max, scale, report }: { max: number; scale: number; report: ProblemReport },
): Variable<number> | undefined {
  const word = env[name]?.trim() ?? '';
  if (word === '') return undefined;
  const value = /^[0-9]{1,9}(?:\.[0-9]{1,6})?$/.test(word) ? Number(word) : undefined;
  if (value !== undefined && value > 0 && value <= max) {
    return { value: Math.max(1, Math.round(value * scale)), origin: variableOrigin(name) };
  }
  const state = `a number above 0, up to ${max}, is needed here, not ${quoted(word)}`;
  report.problem({ origin: variableOrigin(name), path: '' }, state);
  return undefined;
}
