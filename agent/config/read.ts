import { closeSync, openSync, readSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { LightkeeperError } from '../../core/errors.ts';
import { type Flags, type FromFlags, readFlags } from '../../host/config/flags.ts';
import {
  emptyMap,
  type Mapping,
  type Node,
  originText,
  overlay,
  quoted,
  withValue,
} from '../../host/config/node.ts';
import { ProblemReport, problemsError } from '../../host/config/problem.ts';
import {
  type EffectiveSetting,
  EffectiveSettings,
  formatDuration,
  formatSize,
} from '../../host/config/show.ts';
import {
  type Address,
  type Found,
  type Reading,
  readMap,
  reportWrongType,
} from '../../host/config/value-types.ts';
import { homeState } from '../../host/places.ts';
import { reportContradictions } from './conflicts.ts';
import { type FromEnvironment, readEnvironment } from './environment.ts';
import { type BuiltGraph, buildGraph } from './graph.ts';
import { GRAPH_KEYS, TOP_KEYS } from './schema.ts';
import type { AgentSettings } from './settings.ts';

/** What settings are read from beside the file. */
export interface SettingsSources {
  /** The file of YAML, as it was named. */
  readonly file?: string | undefined;
  readonly flags: Flags;
  readonly env: NodeJS.ProcessEnv;
}

/** What the machine answers while settings are read. */
export interface SettingsWorld {
  readonly cwd: string;
  /** The state folder where none is named. */
  readonly state: string;
  /** A file's text; throws what the system says. */
  readonly readText: (path: string, bytesMax: number) => string;
  /** A path without links, as far as it is there. */
  readonly realPath: (path: string) => string;
}

/** Settings that were read: what holds, what is to be known, and what is wrong. */
export interface ReadSettings {
  /** Undefined if anything is wrong. */
  readonly settings: AgentSettings | undefined;
  readonly shown: readonly EffectiveSetting[];
  readonly warnings: readonly string[];
  /** A line each. */
  readonly problems: readonly string[];
  /** All problems as one; undefined if there are none. */
  readonly error: LightkeeperError | undefined;
}

/** No settings are as long. */
const YAML_BYTES_MAX = 1 << 20;
const HTTP: Address = { host: '127.0.0.1', port: 9701 };
const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|::1)$/;
/** Keys that are of one graph and of no other. */
const OF_ONE_GRAPH = ['id', 'dir', 'instance_url'];

/** Reads the settings of an agent. Flags win over the environment, that wins over the file. */
export async function readSettings(
  { file, flags, env }: SettingsSources,
  world: SettingsWorld = machine(env),
): Promise<ReadSettings> {
  const report = new ProblemReport();
  const listing = new EffectiveSettings();
  const given = file === undefined ? emptyMap() : await readFile(file, world, report);
  const environment = await readEnvironment(env, world.cwd, report);
  const fromFlags = await readFlags(flags, report);
  const below = file === undefined ? world.cwd : dirname(resolve(world.cwd, file));
  const reading: Reading = { report, folder: (origin) => (origin.kind === 'file' ? below : world.cwd) };
  const all = overlay(overlay(given ?? emptyMap(), environment.agent), fromFlags.agent) as Mapping;
  const { graphs: graphsNode, top } = withoutGraphs(all);
  const agent = buildAgent(top, environment, { reading, listing, world });
  const graphs: BuiltGraph[] = [];
  const sources = { environment, reading, listing, readText: world.readText };
  // Of a file that cannot be read nobody knows which graphs it names.
  const nodes = given === undefined ? [] : graphNodes(graphsNode, environment, fromFlags, reading);
  for (const [i, node] of nodes.entries()) {
    const path = `graphs[${i}]`;
    const built =
      node.kind === 'map' ? buildGraph(node, path, sources) : reportWrongType(node, path, reading, 'a map');
    if (built !== undefined) graphs.push(built);
  }
  reportContradictions(graphs, world.realPath, report);
  const { warnings } = report;
  const problems = report.sorted();
  const settings = { ...agent, graphs: graphs.map((graph) => graph.settings) };
  return {
    settings: problems.length === 0 ? settings : undefined,
    shown: listing.rows,
    warnings,
    problems: problems.map(({ text }) => text),
    error: problems.length === 0 ? undefined : problemsError(problems),
  };
}

/** What a file says; undefined if it cannot be read, which is reported. */
async function readFile(
  file: string,
  world: SettingsWorld,
  report: ProblemReport,
): Promise<Mapping | undefined> {
  const at = { origin: { kind: 'environment', name: file } as const, path: '' };
  let text: string;
  try {
    text = world.readText(resolve(world.cwd, file), YAML_BYTES_MAX);
  } catch (error) {
    report.problem(at, `the file cannot be read: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
  const { parseYaml } = await import('../../host/config/yaml.ts');
  const before = report.problems.length;
  const node = parseYaml(text, { kind: 'file', name: file }, report);
  if (node?.kind === 'map') return node;
  if (node === undefined || (node.kind === 'scalar' && node.value === null))
    return report.problems.length > before ? undefined : emptyMap();
  report.problem(at, 'the file holds no map of settings');
  return undefined;
}

function withoutGraphs(all: Mapping): { graphs: Node | undefined; top: Mapping } {
  const entries = new Map(all.entries);
  const graphs = entries.get('graphs');
  entries.delete('graphs');
  const isSet = graphs !== undefined && !(graphs.kind === 'scalar' && graphs.value === null);
  return { graphs: isSet ? graphs : undefined, top: { ...all, entries } };
}

/** The graphs, with what variables and flags say of them. */
function graphNodes(
  graphs: Node | undefined,
  environment: FromEnvironment,
  flags: FromFlags,
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
    for (const name of OF_ONE_GRAPH) {
      const flag = flags.graph.entries.get(name);
      const state = `there are ${given.length} graphs, and this is of one`;
      if (flag !== undefined) report.problem({ origin: flag.origin, path: name }, state);
    }
  }
  const shared = new Map(flags.graph.entries);
  if (given.length > 1) for (const name of OF_ONE_GRAPH) shared.delete(name);
  const upper: Mapping = { ...flags.graph, entries: shared };
  return given.map((node) => {
    if (node.kind !== 'map') return node;
    const own = given.length === 1 && dir !== undefined ? withDir(node, dir, flags, reading) : node;
    return { ...(overlay(own, upper) as Mapping), origin: node.origin };
  });
}

function withDir(
  node: Mapping,
  dir: NonNullable<FromEnvironment['dir']>,
  flags: FromFlags,
  { report }: Reading,
): Mapping {
  const before = node.entries.get('dir');
  if (before !== undefined && !flags.graph.entries.has('dir'))
    report.warn(`WORKING_DIR is used, not the directory of ${originText(before.origin)}`);
  return withValue(node, ['dir'], { kind: 'scalar', ...dir });
}

function buildAgent(
  top: Mapping,
  { captures, continuous, intervalMs }: FromEnvironment,
  { reading, listing, world }: { reading: Reading; listing: EffectiveSettings; world: SettingsWorld },
): Omit<AgentSettings, 'graphs'> {
  const fields = readMap(TOP_KEYS, top, '', reading, (name) =>
    Object.hasOwn(GRAPH_KEYS, name) ? 'to a graph: put it below graphs' : undefined,
  );
  const shown = <T>(value: T) => value;
  const state = listing.take('state', fields.state, world.state, shown);
  const store = listing.take('store', fields.store, join(state, 'store'), shown);
  const http = httpOf(fields.http, listing, reading.report);
  const reserve = fields.disk_reserve;
  const formula = 'max(1GiB, 2 × the largest file, 5 %)';
  listing.add('disk_reserve', reserve === undefined ? formula : formatSize(reserve.value), reserve?.origin);
  const settings = {
    store,
    http,
    reserveBytes: reserve?.value,
    captures: listing.take('captures', captures, true, shown),
    continuous: listing.take('continuous', continuous, true, shown),
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
  listing.add('interval', formatDuration(intervalMs.value), intervalMs.origin);
  return { ...settings, intervalMs: intervalMs.value };
}

function httpOf(
  found: Found<Address> | undefined,
  listing: EffectiveSettings,
  report: ProblemReport,
): AgentSettings['http'] {
  const { host, port } = listing.take('http', found, HTTP, (one) =>
    one.host.includes(':') ? `[${one.host}]:${one.port}` : `${one.host}:${one.port}`,
  );
  if (found !== undefined && !LOOPBACK.test(host)) {
    const state = `cannot listen on ${quoted(`${host}:${port}`)} without TLS and keys: only loopback addresses`;
    report.problem(found, state, {
      code: 'REFUSED',
      hint: 'listen on 127.0.0.1 and let a proxy that has TLS forward to it',
    });
  }
  return { host, port, fallback: found === undefined };
}

/** The machine that this process runs on. */
function machine(env: NodeJS.ProcessEnv): SettingsWorld {
  return { cwd: process.cwd(), state: homeState(env), readText: readBounded, realPath };
}

/** A file's text, at most so long; also of a pipe. */
function readBounded(path: string, bytesMax: number): string {
  const descriptor = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(bytesMax + 1);
    let length = 0;
    for (let read = -1; read !== 0 && length < bytes.length; length += read)
      read = readSync(descriptor, bytes, length, bytes.length - length, null);
    if (length > bytesMax) throw new Error(`it is longer than ${bytesMax} bytes`);
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, length));
  } finally {
    closeSync(descriptor);
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    // It is not there yet, or not to be seen: what is above it may be a link.
    const above = dirname(path);
    return above === path ? path : join(realPath(above), basename(path));
  }
}
