import { resolve } from 'node:path';
import { emptyMap, type Mapping, type Node, type Origin, quoted, withValue } from '../../host/config/node.ts';
import type { ProblemReport } from '../../host/config/problem.ts';
import { nearest } from '../../host/config/suggest.ts';
import { type Key, parseBoolean } from '../../host/config/value-types.ts';
import { BUCKET_VARIABLES, bucketHint, STORE_VARIABLES } from '../../host/places.ts';
import { GRAPH_KEYS, TOP_KEYS } from './schema.ts';

/** A variable that was used, and what it says. */
export interface Variable<T> {
  readonly value: T;
  readonly origin: Origin;
}

/** What the variables of a process say. */
export interface FromEnvironment {
  /** Keys of the agent. */
  readonly agent: Mapping;
  /** WORKING_DIR, with WORKSPACE. */
  readonly dir: Variable<string> | undefined;
  readonly apiKey: Variable<string> | undefined;
  readonly captures: Variable<boolean> | undefined;
  readonly continuous: Variable<boolean> | undefined;
  readonly intervalMs: Variable<number> | undefined;
  readonly retentionMs: Variable<number> | undefined;
}

const PREFIX = 'LIGHTKEEPER_';
/** Ours, but no settings: of the command line, for tests, and what hooks are told. */
const NO_SETTINGS = new Set(['KEY', 'DEBUG', 'FAULT', 'GRAPH', 'DIR', 'VERSION']);
/** Kubernetes tells every container of a service that is named lightkeeper. */
const OF_KUBERNETES = /(?:^|_)(?:SERVICE_(?:HOST|PORT)|PORT_\d+_(?:TCP|UDP|SCTP))/;
const KUBERNETES_ADDRESS = /^(?:tcp|udp|sctp):\/\//;

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** What a point's age or an interval may be: a century. */
const HOURS_MAX = 876_000;
const DAYS_MAX = 36_500;
/** The original system's port of metrics. */
const METRICS_PORT = '9090';
const LOG_LEVELS = ['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'];
/** Variables of the original system whose parts are not in this version: they concern what does not happen. */
const LATER = [
  'LIGHTRAG_REPLICATION_MAX_TARGETS',
  'LIGHTRAG_RECOVERY_DB_URL',
  'LIGHTRAG_RECOVERY_CHECKPOINT_INTERVAL_HOURS',
  'LIGHTRAG_RECOVERY_HEALTH_CHECK_INTERVAL_MINUTES',
  'LIGHTRAG_METRICS_COLLECTION_INTERVAL_SECONDS',
  'LIGHTRAG_METRICS_RETENTION_DAYS',
];

/** Reads the variables that are ours, and those of the original system. */
export async function readEnvironment(
  env: NodeJS.ProcessEnv,
  cwd: string,
  report: ProblemReport,
): Promise<FromEnvironment> {
  let agent = await ownVariables(env, report);
  const [store] = STORE_VARIABLES.filter((name) => env[name]);
  if (store !== undefined) {
    const node: Node = { kind: 'scalar', value: env[store] ?? '', origin: originOf(store) };
    agent = withValue(agent, ['store'], node);
  }
  for (const name of BUCKET_VARIABLES) {
    if (!env[name]) continue;
    const state = 'object stores are not in this version';
    report.problem({ origin: originOf(name), path: '' }, state, { hint: bucketHint(name) });
  }
  warnOfLater(env, report);
  const number = (name: string, scale: number, most: number) => numberOf(env, name, { scale, most }, report);
  return {
    agent,
    dir: workingDir(env, cwd, report),
    apiKey: env.LIGHTRAG_API_KEY
      ? { value: env.LIGHTRAG_API_KEY, origin: originOf('LIGHTRAG_API_KEY') }
      : undefined,
    captures: truth(env, 'LIGHTRAG_BACKUP_ENABLED', report),
    continuous: truth(env, 'LIGHTRAG_BACKUP_CONTINUOUS', report),
    intervalMs: number('LIGHTRAG_BACKUP_INTERVAL_HOURS', HOUR_MS, HOURS_MAX),
    retentionMs: number('LIGHTRAG_BACKUP_RETENTION_DAYS', DAY_MS, DAYS_MAX),
  };
}

function originOf(name: string): Origin {
  return { kind: 'environment', name };
}

async function ownVariables(env: NodeJS.ProcessEnv, report: ProblemReport): Promise<Mapping> {
  let agent = emptyMap();
  for (const [name, value] of Object.entries(env).sort()) {
    if (!name.startsWith(PREFIX) || value === undefined || value === '') continue;
    const word = name.slice(PREFIX.length);
    const key = word.toLowerCase();
    const known = word === word.toUpperCase() && Object.hasOwn(TOP_KEYS, key);
    if (!known) {
      if (!KUBERNETES_ADDRESS.test(value)) noteUnknown(name, word, report);
      continue;
    }
    const { structure = false, repeats = false }: Key<unknown> = TOP_KEYS[key as keyof typeof TOP_KEYS];
    const many = structure || (repeats && value.startsWith('['));
    const node: Node | undefined = many
      ? (await import('../../host/config/yaml.ts')).parseYaml(value, { kind: 'environment', name }, report)
      : { kind: 'scalar', value, origin: originOf(name) };
    if (node !== undefined) agent = withValue(agent, [key], node);
  }
  return agent;
}

/** A slip of the pen is refused; what may be somebody else's is told of. */
function noteUnknown(name: string, word: string, report: ProblemReport): void {
  if (OF_KUBERNETES.test(word)) return;
  if (Object.hasOwn(GRAPH_KEYS, word.toLowerCase())) {
    const flag = `--${word.toLowerCase().replaceAll('_', '-')}`;
    report.warn(`${name} is not used: keys of a graph have no variable; use ${flag} or a file`);
    return;
  }
  if (NO_SETTINGS.has(word)) return;
  const near = nearest(word, Object.keys(TOP_KEYS));
  if (near === undefined) {
    report.warn(`${name} is not used: there is no such setting`);
    return;
  }
  const meant = `${PREFIX}${near.toUpperCase()}`;
  report.problem({ origin: originOf(name), path: '' }, `unknown variable; did you mean ${meant}?`);
}

/** The directory as LightRAG finds it. */
function workingDir(
  env: NodeJS.ProcessEnv,
  cwd: string,
  report: ProblemReport,
): Variable<string> | undefined {
  const { WORKING_DIR: dir = '', WORKSPACE: workspace = '' } = env;
  if (dir === '') {
    if (workspace !== '') report.warn('WORKSPACE is not used: WORKING_DIR is not set');
    return undefined;
  }
  if (/^\.{1,2}$|[/\\]/.test(workspace)) {
    const state = `${quoted(workspace)} is no name of a folder`;
    report.problem({ origin: originOf('WORKSPACE'), path: '' }, state);
    return undefined;
  }
  return { value: resolve(cwd, dir, workspace), origin: originOf('WORKING_DIR') };
}

function truth(env: NodeJS.ProcessEnv, name: string, report: ProblemReport): Variable<boolean> | undefined {
  const word = env[name]?.trim() ?? '';
  if (word === '') return undefined;
  const value = parseBoolean(word);
  if (value !== undefined) return { value, origin: originOf(name) };
  report.problem({ origin: originOf(name), path: '' }, `true or false is needed here, not ${quoted(word)}`);
  return undefined;
}

function numberOf(
  env: NodeJS.ProcessEnv,
  name: string,
  { scale, most }: { scale: number; most: number },
  report: ProblemReport,
): Variable<number> | undefined {
  const word = env[name]?.trim() ?? '';
  if (word === '') return undefined;
  const value = /^[0-9]{1,9}(?:\.[0-9]{1,6})?$/.test(word) ? Number(word) : undefined;
  if (value !== undefined && value > 0 && value <= most) {
    return { value: Math.max(1, Math.round(value * scale)), origin: originOf(name) };
  }
  report.problem(
    { origin: originOf(name), path: '' },
    `a number above 0, up to ${most}, is needed here, not ${quoted(word)}`,
  );
  return undefined;
}

/** Tells of what was set for the original system and does nothing here yet. */
function warnOfLater(env: NodeJS.ProcessEnv, report: ProblemReport): void {
  for (const name of ['LIGHTRAG_REPLICATION_ENABLED', 'LIGHTRAG_RECOVERY_ENABLED']) {
    if (truth(env, name, report)?.value === true) report.warn(`${name} is not used: not in this version`);
  }
  if (truth(env, 'LIGHTRAG_METRICS_ENABLED', report)?.value === false)
    report.warn('LIGHTRAG_METRICS_ENABLED is not used: turning metrics off is not in this version');
  const port = env.LIGHTRAG_METRICS_PORT?.trim() ?? '';
  if (port !== '' && !(/^[0-9]{1,5}$/.test(port) && Number(port) <= 65535)) {
    const origin = originOf('LIGHTRAG_METRICS_PORT');
    report.problem({ origin, path: '' }, `a port is needed here, not ${quoted(port)}`);
  } else if (port !== '' && port !== METRICS_PORT) {
    report.warn('LIGHTRAG_METRICS_PORT is not used: not in this version; metrics are served on --http');
  }
  for (const name of LATER) if (env[name]) report.warn(`${name} is not used: not in this version`);
  const level = env.LIGHTRAG_LOG_LEVEL?.trim() ?? '';
  if (level !== '' && !LOG_LEVELS.includes(level.toUpperCase())) {
    const origin = originOf('LIGHTRAG_LOG_LEVEL');
    report.problem({ origin, path: '' }, `${quoted(level)} is none of ${LOG_LEVELS.join(', ')}`);
  }
}
