import { resolve } from 'node:path';
import {
  booleanVariable,
  numberVariable,
  readVariables,
  type Variable,
  variableOrigin,
} from '../../host/config/environment.ts';
import type { LogLevel } from '../../host/config/log-settings.ts';
import { emptyMap, type Mapping, overlayMap, quoted, withValue } from '../../host/config/node.ts';
import type { ProblemReport } from '../../host/config/problem.ts';
import { BUCKET_VARIABLES, bucketHint, STORE_VARIABLES } from '../../host/places.ts';
import { GRAPH_KEYS, TOP_KEYS } from './schema.ts';

/** Settings that the variables of a process give. */
export interface EnvironmentSettings {
  /** Top keys. */
  readonly agent: Mapping;
  /** WORKING_DIR, with WORKSPACE. */
  readonly dir: Variable<string> | undefined;
  readonly apiKey: Variable<string> | undefined;
  readonly captures: Variable<boolean> | undefined;
  readonly continuous: Variable<boolean> | undefined;
  readonly intervalMs: Variable<number> | undefined;
  readonly retentionMs: Variable<number> | undefined;
}

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** Longest interval and longest age of a snapshot: a century. */
const HOURS_MAX = 876_000;
const DAYS_MAX = 36_500;
/** Default metrics port of the original system. */
const METRICS_PORT = '9090';

/** Levels of the original system. */
const ORIGINAL_LEVELS: ReadonlyMap<string, LogLevel> = new Map([
  ['DEBUG', 'debug'],
  ['INFO', 'info'],
  ['WARNING', 'warn'],
  ['ERROR', 'error'],
  ['CRITICAL', 'error'],
]);

/** Variables of the original system whose parts are not in this version. */
const LATER_VARIABLES = [
  'LIGHTRAG_REPLICATION_MAX_TARGETS',
  'LIGHTRAG_RECOVERY_DB_URL',
  'LIGHTRAG_RECOVERY_CHECKPOINT_INTERVAL_HOURS',
  'LIGHTRAG_RECOVERY_HEALTH_CHECK_INTERVAL_MINUTES',
  'LIGHTRAG_METRICS_COLLECTION_INTERVAL_SECONDS',
  'LIGHTRAG_METRICS_RETENTION_DAYS',
];

/** Reads the variables of Lightkeeper and of the original system. */
export async function readEnvironment(
  env: NodeJS.ProcessEnv,
  cwd: string,
  report: ProblemReport,
): Promise<EnvironmentSettings> {
  const own = await readVariables(env, TOP_KEYS, report, graphKeyState);
  for (const name of BUCKET_VARIABLES) {
    if (!env[name]) continue;
    const state = 'object stores are not in this version';
    report.problem({ origin: variableOrigin(name), path: '' }, state, { hint: bucketHint(name) });
  }
  const log = originalLogLevel(env, report);
  warnOfLater(env, report);
  const number = (name: string, scale: number, max: number) =>
    numberVariable(env, name, { scale, max, report });
  return {
    agent: withStore(env, overlayMap(log, own)),
    dir: workingDir(env, cwd, report),
    apiKey: env.LIGHTRAG_API_KEY
      ? { value: env.LIGHTRAG_API_KEY, origin: variableOrigin('LIGHTRAG_API_KEY') }
      : undefined,
    captures: booleanVariable(env, 'LIGHTRAG_BACKUP_ENABLED', report),
    continuous: booleanVariable(env, 'LIGHTRAG_BACKUP_CONTINUOUS', report),
    intervalMs: number('LIGHTRAG_BACKUP_INTERVAL_HOURS', HOUR_MS, HOURS_MAX),
    retentionMs: number('LIGHTRAG_BACKUP_RETENTION_DAYS', DAY_MS, DAYS_MAX),
  };
}

/** Returns why a key of a graph cannot be set by a variable; undefined for any other word. */
function graphKeyState(key: string): string | undefined {
  if (!Object.hasOwn(GRAPH_KEYS, key)) return undefined;
  return `keys of a graph have no variable; use --${key.replaceAll('_', '-')} or a file`;
}

/** Returns the settings with the store of the first variable that names one. */
function withStore(env: NodeJS.ProcessEnv, agent: Mapping): Mapping {
  const [name] = STORE_VARIABLES.filter((one) => env[one]);
  if (name === undefined) return agent;
  return withValue(agent, ['store'], {
    kind: 'scalar',
    value: env[name] ?? '',
    origin: variableOrigin(name),
  });
}

/** Reads the log level as the original system names it; LIGHTKEEPER_LOG_LEVEL wins over it. */
function originalLogLevel(env: NodeJS.ProcessEnv, report: ProblemReport): Mapping {
  const word = env.LIGHTRAG_LOG_LEVEL?.trim() ?? '';
  if (word === '') return emptyMap();
  const origin = variableOrigin('LIGHTRAG_LOG_LEVEL');
  const value = ORIGINAL_LEVELS.get(word.toUpperCase());
  if (value !== undefined) return withValue(emptyMap(), ['log', 'level'], { kind: 'scalar', value, origin });
  const state = `${quoted(word)} is none of ${[...ORIGINAL_LEVELS.keys()].join(', ')}`;
  report.problem({ origin, path: '' }, state);
  return emptyMap();
}

/** Returns the directory as LightRAG finds it. */
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
    const state = `${quoted(workspace)} is not the name of a folder`;
    report.problem({ origin: variableOrigin('WORKSPACE'), path: '' }, state);
    return undefined;
  }
  return { value: resolve(cwd, dir, workspace), origin: variableOrigin('WORKING_DIR') };
}

/** Warns of variables of the original system that have no effect in this version. */
function warnOfLater(env: NodeJS.ProcessEnv, report: ProblemReport): void {
  for (const name of ['LIGHTRAG_REPLICATION_ENABLED', 'LIGHTRAG_RECOVERY_ENABLED']) {
    if (booleanVariable(env, name, report)?.value === true)
      report.warn(`${name} is not used: not in this version`);
  }
  if (booleanVariable(env, 'LIGHTRAG_METRICS_ENABLED', report)?.value === false)
    report.warn('LIGHTRAG_METRICS_ENABLED is not used: turning metrics off is not in this version');
  const port = env.LIGHTRAG_METRICS_PORT?.trim() ?? '';
  if (port !== '' && !(/^[0-9]{1,5}$/.test(port) && Number(port) <= 65535)) {
    const origin = variableOrigin('LIGHTRAG_METRICS_PORT');
    report.problem({ origin, path: '' }, `a port is needed here, not ${quoted(port)}`);
  } else if (port !== '' && port !== METRICS_PORT) {
    report.warn('LIGHTRAG_METRICS_PORT is not used: not in this version; metrics are served on --http');
  }
  for (const name of LATER_VARIABLES) if (env[name]) report.warn(`${name} is not used: not in this version`);
}
