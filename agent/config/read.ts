import { dirname, join, resolve } from 'node:path';
import type { LightkeeperError } from '../../core/errors.ts';
import { readSettingsFile, type SettingsMachine, settingsMachine } from '../../host/config/file.ts';
import { type Flags, readFlags } from '../../host/config/flags.ts';
import { type Fields, type Reading, readMap, reportWrongType } from '../../host/config/keys.ts';
import { buildLogSettings, type GivenLogSettings } from '../../host/config/log-settings.ts';
import {
  DEFAULT,
  emptyMap,
  type Mapping,
  type Node,
  originText,
  overlayMap,
  withValue,
} from '../../host/config/node.ts';
import { ProblemReport, problemsError } from '../../host/config/problem.ts';
import {
  type EffectiveSetting,
  EffectiveSettings,
  formatDuration,
  formatSize,
} from '../../host/config/show.ts';
import { reportConflicts } from './conflicts.ts';
import { type EnvironmentSettings, readEnvironment } from './environment.ts';
import { type BuiltGraph, buildGraph } from './graph.ts';
import { buildListeners } from './listeners.ts';
import { GRAPH_KEYS, settingFlags, TOP_KEYS } from './schema.ts';
import { type AgentSettings, SCRUB_MS, type TargetSettings } from './settings.ts';

/** Sources of the settings of an agent. */
export interface SettingsSources {
  /** Path of the YAML file, as given. */
  readonly file?: string | undefined;
  readonly flags: Flags;
  readonly env: NodeJS.ProcessEnv;
}

/** Settings of an agent that were read, with warnings and problems. */
export interface ReadSettings {
  /** Undefined if there are problems. */
  readonly settings: AgentSettings | undefined;
  readonly log: GivenLogSettings;
  readonly shown: readonly EffectiveSetting[];
  readonly warnings: readonly string[];
  /** One line per problem. */
  readonly problems: readonly string[];
  /** All problems as one error; undefined if there are none. */
  readonly error: LightkeeperError | undefined;
}

/** Keys that differ between graphs: their flags cannot be shared. */
const UNSHARED_KEYS = ['id', 'dir', 'instance_url', 'workspaces'];

/** Reads the settings of an agent. Flags win over the environment, which wins over the file. */
export async function readSettings(
  { file, flags, env }: SettingsSources,
  machine: SettingsMachine = settingsMachine(env),
): Promise<ReadSettings> {
  const report = new ProblemReport();
  const effective = new EffectiveSettings();
  const given = file === undefined ? emptyMap() : await readSettingsFile(file, machine, report);
  const environment = await readEnvironment(env, machine.cwd, report);
  const fromFlags = await readFlags(flags, settingFlags(), report);
  const below = file === undefined ? machine.cwd : dirname(resolve(machine.cwd, file));
  const reading: Reading = { report, folder: (origin) => (origin.kind === 'file' ? below : machine.cwd) };
  const agentFlags = fromFlags.get('agent') ?? emptyMap();
  const graphFlags = fromFlags.get('graph') ?? emptyMap();
  const all = overlayMap(overlayMap(given ?? emptyMap(), environment.agent), agentFlags);
  const { graphs: graphsNode, top } = withoutGraphs(all);
  const { log, ...agent } = buildAgent(top, environment, { reading, effective, machine });
  const graphs: BuiltGraph[] = [];
  const sources = { environment, reading, effective, readText: machine.readText, realPath: machine.realPath };
  // Which graphs an unreadable file names is unknown.
  const nodes = given === undefined ? [] : graphNodes(graphsNode, environment, graphFlags, reading);
  for (const [i, node] of nodes.entries()) {
    const path = `graphs[${i}]`;
    const built =
      node.kind === 'map' ? buildGraph(node, path, sources) : reportWrongType(node, path, reading, 'a map');
    if (built !== undefined) graphs.push(built);
  }
  reportConflicts(graphs, machine.realPath, report);
  const { warnings } = report;
  const problems = report.sorted();
  const settings = {
    ...agent,
    graphs: graphs.filter(({ follow }) => follow === undefined).map((graph) => graph.settings),
    followed: graphs.flatMap(({ settings: { graphId, split, lossShare, retention, limits }, follow }) =>
      follow === undefined ? [] : [{ graphId, split, lossShare, retention, limits, follow }],
    ),
  };
  return {
    settings: problems.length === 0 ? settings : undefined,
    log,
    shown: effective.rows,
    warnings,
    problems: problems.map(({ text }) => text),
    error: problems.length === 0 ? undefined : problemsError(problems),
  };
}

function withoutGraphs(all: Mapping): { graphs: Node | undefined; top: Mapping } {
  const entries = new Map(all.entries);
  const graphs = entries.get('graphs');
  entries.delete('graphs');
  const isSet = graphs !== undefined && !(graphs.kind === 'scalar' && graphs.value === null);
  return { graphs: isSet ? graphs : undefined, top: { ...all, entries } };
}

/** Returns the graphs, overlaid with their variables and flags. */
function graphNodes(
  graphs: Node | undefined,
  environment: EnvironmentSettings,
  flags: Mapping,
  reading: Reading,
): readonly Node[] {
  const { report } = reading;
  if (graphs !== undefined && graphs.kind !== 'list') {
    reportWrongType(graphs, 'graphs', reading, 'a list');
    return [];
  }
  const { dir } = environment;
  const given = graphs?.items ?? [emptyMap()];
  if (given.length === 0 && graphs !== undefined)
    report.problem({ origin: graphs.origin, path: 'graphs' }, 'there is no graph');
  if (given.length > 1) {
    if (dir !== undefined) report.warn('WORKING_DIR is not used: there are several graphs');
    for (const name of UNSHARED_KEYS) {
      const flag = flags.entries.get(name);
      const state = `there are ${given.length} graphs, and this is of one`;
      if (flag !== undefined) report.problem({ origin: flag.origin, path: name }, state);
    }
  }
  const shared = new Map(flags.entries);
  if (given.length > 1) for (const name of UNSHARED_KEYS) shared.delete(name);
  const upper: Mapping = { ...flags, entries: shared };
  return given.map((node) => {
    if (node.kind !== 'map') return node;
    const own = given.length === 1 && dir !== undefined ? withDir(node, dir, flags, reading) : node;
    return { ...overlayMap(own, upper), origin: node.origin };
  });
}

function withDir(
  node: Mapping,
  dir: NonNullable<EnvironmentSettings['dir']>,
  flags: Mapping,
  { report }: Reading,
): Mapping {
  const before = node.entries.get('dir');
  if (before !== undefined && !flags.entries.has('dir'))
    report.warn(`WORKING_DIR is used, not the directory of ${originText(before.origin)}`);
  return withValue(node, ['dir'], { kind: 'scalar', ...dir });
}

function buildAgent(
  top: Mapping,
  { captures, continuous, intervalMs }: EnvironmentSettings,
  {
    reading,
    effective,
    machine,
  }: { reading: Reading; effective: EffectiveSettings; machine: SettingsMachine },
): Omit<AgentSettings, 'graphs' | 'followed'> & { log: GivenLogSettings } {
  const fields = readMap(TOP_KEYS, top, '', reading, (name) =>
    Object.hasOwn(GRAPH_KEYS, name) ? 'to a graph: put it below graphs' : undefined,
  );
  const shown = <T>(value: T) => value;
  const state = effective.take('state', fields.state, machine.state, shown);
  const store = effective.take('store', fields.store, join(state, 'store'), shown);
  const name = effective.take('name', fields.name, machine.hostName, shown);
  const listeners = buildListeners(fields, effective, reading.report);
  const log = buildLogSettings(fields.log, effective);
  const reserve = fields.disk_reserve;
  const formula = 'max(1GiB, 2 × the largest file, 5 %)';
  effective.add('disk_reserve', reserve === undefined ? formula : formatSize(reserve.value), reserve?.origin);
  const scrubMs = effective.take('scrub', fields.scrub, SCRUB_MS, formatDuration);
  const settings = {
    log,
    name,
    state,
    store,
    ...listeners,
    reserveBytes: reserve?.value,
    scrubMs,
    targets: targetsOf(fields.targets, effective, reading.report),
    captures: effective.take('captures', captures, true, shown),
    continuous: effective.take('continuous', continuous, true, shown),
  };
  if (continuous?.value === false && intervalMs === undefined) {
    reading.report.problem(
      { origin: continuous.origin, path: '' },
      'there is no interval, so nothing would be captured',
      {
        hint: 'set LIGHTRAG_BACKUP_INTERVAL_HOURS too',
      },
    );
  }
  if (intervalMs === undefined) return settings;
  effective.add('interval', formatDuration(intervalMs.value), intervalMs.origin);
  return { ...settings, intervalMs: intervalMs.value };
}

/** Builds the targets; problems are reported. */
function targetsOf(
  found: Fields<typeof TOP_KEYS>['targets'],
  effective: EffectiveSettings,
  report: ProblemReport,
): TargetSettings[] {
  const targets: TargetSettings[] = [];
  for (const [i, { name, certificate, graphs, bandwidth, standby }] of (found?.value ?? []).entries()) {
    const at = { origin: found?.origin ?? DEFAULT, path: `targets[${i}]` };
    if (name === undefined) {
      report.problem(at, 'there is no name');
      continue;
    }
    if (targets.some((other) => other.name === name.value))
      report.problem(name, 'another target has this name');
    effective.add(`targets[${i}].name`, name.value, name.origin);
    targets.push({
      name: name.value,
      certificate: certificate?.value ?? name.value,
      graphs: graphs?.value ?? [],
      bytesPerSecond: bandwidth === undefined ? undefined : Number(bandwidth.value),
      standby: standby?.value ?? true,
    });
  }
  return targets;
}
