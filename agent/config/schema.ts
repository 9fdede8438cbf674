import { isIP } from 'node:net';
import { LightkeeperError } from '../../core/errors.ts';
import { checkGraphId } from '../../core/graph-id.ts';
import { flagsOfKeys, type SettingFlag } from '../../host/config/flags.ts';
import type { SettingsJsonSchema } from '../../host/config/json-schema.ts';
import { type Keys, key, settingsJsonSchema, type ValueType } from '../../host/config/keys.ts';
import { LOG_KEYS } from '../../host/config/log-settings.ts';
import { quoted } from '../../host/config/node.ts';
import {
  address,
  boolean,
  count,
  duration,
  later,
  list,
  map,
  namedMaps,
  oneOf,
  path,
  percent,
  rate,
  size,
  text,
} from '../../host/config/value-types.ts';

/** Returns why a graph id cannot be used. */
function graphIdState(id: string): string | undefined {
  try {
    checkGraphId(id);
    return undefined;
  } catch (error) {
    if (!(error instanceof LightkeeperError)) throw error;
    return `${quoted(id)} is not a graph id; ${error.hint}`;
  }
}

const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/;

/** Returns why a text cannot be the name of an agent. */
function nameState(name: string): string | undefined {
  if (NAME.test(name)) return undefined;
  return `${quoted(name)} is no name; use 1 to 64 letters, digits, dots, underscores and hyphens`;
}

/** Returns why a text cannot be a Host header. */
function hostState(host: string): string | undefined {
  const isName = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$/.test(host);
  if (host === '*' || isName || isIP(host) !== 0) return undefined;
  return `${quoted(host)} is neither a host name, an IP address nor *; leave out the port`;
}

// The URL may hold a password: it is not repeated.
/** Returns why the URL of a server cannot be used. */
function urlState(url: string): string | undefined {
  if (!/^https?:\/\//i.test(url) || !URL.canParse(url)) return 'it is not a URL like http://127.0.0.1:9621';
  const { username, password } = new URL(url);
  return username + password === '' ? undefined : 'it holds a password; name a file with api_key_file';
}

const graphId = () => text('<id>', graphIdState, { pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$' });
const url = () => text('<url>', urlState, { pattern: '^[Hh][Tt]{2}[Pp][Ss]?://' });
const lines = () => list(text('<command>'));
const ACK_MODE = /^(?:async|all|quorum\([1-9][0-9]?\))$/;
// An older time is no valid date.
const CENTURY_MS = 100 * 365 * 86_400_000;

/** Keys of the retention of a graph. */
export const RETENTION_KEYS = {
  last: key(count(), 'keep the newest n points'),
  hourly: key(count(), 'keep the newest point of each of the last n hours that have one'),
  daily: key(count(), 'the same for days'),
  weekly: key(count(), 'the same for weeks'),
  monthly: key(count(), 'the same for months'),
  yearly: key(count(), 'the same for years'),
  keep_within: key(
    duration({ longestMs: CENTURY_MS }),
    'keep all points that are at most this much older than the newest',
  ),
  tags: key(list(text('<tag>')), 'keep all points with this tag (key or key=value)'),
} as const satisfies Keys;

const HOOK_KEYS = {
  pre_capture: key(lines(), 'shell line that runs before each capture'),
  post_capture: key(lines(), 'shell line that runs after each capture'),
  promote: key(later(lines(), some), 'shell line that runs when this agent becomes primary'),
  demote: key(later(lines(), some), 'shell line that runs when this agent is no longer primary'),
  fence: key(later(lines(), some), 'shell line that stops another primary'),
  timeout: key(duration({ atLeastMs: 1 }), 'time limit of each shell line (default: 30s)'),
} as const satisfies Keys;

const LIMIT_KEYS = {
  rpo: key(duration({ atLeastMs: 1 }), 'how old the newest usable point may be'),
  lag: key(duration({ atLeastMs: 1 }), 'how far a follower may be behind'),
} as const satisfies Keys;

/** Keys of one workspace. */
export const WORKSPACE_KEYS = {
  instance_url: key(url(), 'URL of the instance that serves the workspace'),
  api_key_file: key(path('<file>'), 'file with the API key of that instance (default: LIGHTRAG_API_KEY)'),
} as const satisfies Keys;

/** Returns why a name cannot be that of a workspace's folder. */
function workspaceState(name: string): string | undefined {
  return name === '' || /^\.{1,2}$|[/\0]/.test(name)
    ? `${quoted(name)} is not the name of a folder`
    : undefined;
}

/** Keys of one graph. */
export const GRAPH_KEYS = {
  id: key(graphId(), "the graph's name (default: the directory's)"),
  dir: key(path('<dir>'), 'the directory to protect'),
  instance_url: key(url(), 'URL of the instance: captures wait until it is idle'),
  api_key_file: key(path('<file>'), 'file with the API key of the instance (default: LIGHTRAG_API_KEY)'),
  workspaces: key(
    namedMaps(WORKSPACE_KEYS, workspaceState),
    'instances of workspaces by the names of their folders: {NAME: {instance_url, api_key_file}}',
  ),
  quiet: key(
    duration(),
    'shortest time without a change before a capture (default: 300ms; may be learned to be longer)',
  ),
  min_interval: key(duration(), 'shortest time between the starts of two captures (default: 1s)'),
  exclude: key(list(text('<pattern>')), 'names that are not captured'),
  split: key(boolean(), 'guard each workspace as a graph of its own (default: true)'),
  allow_partial: key(boolean(), 'guard the files of an instance that stores a part of the graph elsewhere'),
  hooks: key(map(HOOK_KEYS), 'shell lines that run around captures'),
  alarm_loss: key(
    percent(),
    'share of documents or entities that may disappear between two points without an alarm (default: 25%)',
  ),
  retention: key(
    map(RETENTION_KEYS),
    'which points are kept (default: keep_within 1h, hourly 48, daily 30, weekly 8, monthly 12)',
  ),
  ack: key(ackMode(), 'when a point counts as protected: async, quorum(n) or all (default: async)'),
  follow: key(url(), 'URL of the agent that holds the graph: this one follows it and captures nothing'),
  limits: key(map(LIMIT_KEYS), 'outside of these, status exits with 3 and readiness says so (default: none)'),
} as const satisfies Keys;

function some(values: readonly unknown[]): boolean {
  return values.length > 0;
}

function ackMode(): ValueType<string> {
  const state = (mode: string) =>
    ACK_MODE.test(mode) ? undefined : `${quoted(mode)} is none of async, quorum(1), all`;
  return text('<mode>', state, { pattern: ACK_MODE.source });
}

/** Keys of one target. */
export const TARGET_KEYS = {
  name: key(text('<name>'), 'name of the target'),
  certificate: key(text('<name>'), 'name in the certificate of the target (default: its name)'),
  graphs: key(list(graphId()), 'graphs that the target may follow, with their workspaces (default: all)'),
  bandwidth: key(rate(), 'highest rate of sending (default: none)'),
  standby: key(boolean(), 'whether its copies count for ack (default: true)'),
} as const satisfies Keys;

function anything(fields: object): boolean {
  return Object.keys(fields).length > 0;
}

/** Keys of the certificate of an agent. */
export const TLS_KEYS = {
  cert: key(path('<file>'), 'file with the certificate of this agent'),
  key: key(path('<file>'), 'file with its private key'),
  ca: key(path('<file>'), 'file with the certificate authority of the peers'),
} as const satisfies Keys;

const LISTENER_NAMES = ['http', 'grpc'] as const;
export type ListenerName = (typeof LISTENER_NAMES)[number];

/** Keys of the listeners of an agent. */
export const LISTENER_KEYS = {
  http: key(address(), 'address of metrics and probes (default: 127.0.0.1:9701, or a free port)'),
  grpc: key(address(), 'address for calls of other agents (default: 127.0.0.1:9702, or a free port)'),
  tls: key(map(TLS_KEYS), 'the certificate of this agent'),
  insecure: key(
    list(oneOf('<listener>', LISTENER_NAMES)),
    'listeners that speak plaintext off loopback too: http, grpc',
  ),
  hosts: key(
    list(text('<host>', hostState)),
    "Host headers that are answered off loopback; * is any (default: the machine's own addresses and names)",
  ),
} as const satisfies Keys;

/** Top keys of an agent. */
export const TOP_KEYS = {
  name: key(text('<name>', nameState), 'name by which peers know this agent (default: the host name)'),
  state: key(path('<dir>'), 'state folder of this agent'),
  store: key(path('<dir>'), 'folder of the points (default: STATE/store)'),
  graphs: key(list(map(GRAPH_KEYS)), 'the graphs, if there are several'),
  targets: key(list(map(TARGET_KEYS)), 'agents that may follow graphs of this one'),
  ...LISTENER_KEYS,
  gateway: key(
    later(
      map({
        listen: key(address(), 'address of the gateway'),
        to: key(address(), 'address of the instance'),
      }),
      anything,
    ),
    'gateway to the instance of the primary',
  ),
  controller: key(
    later(
      map({
        url: key(url(), 'URL of the controller'),
        token_file: key(path('<file>'), 'file with the join token'),
        ca: key(path('<file>'), 'file with the certificate authority of the controller'),
      }),
      anything,
    ),
    'the controller of this agent',
  ),
  profile: key(
    later(oneOf('<profile>', ['normal', 'fast', 'safe']), (profile) => profile !== 'normal'),
    'speed against safety: normal, fast or safe',
  ),
  log: key(map(LOG_KEYS), 'the log, on standard error'),
  disk_reserve: key(size(), 'free space that must remain; 0 turns the check off'),
  scrub: key(
    duration({ longestMs: CENTURY_MS }),
    'time in which every pack is read again; 0 turns that off (default: 14d)',
  ),
  restore_roots: key(later(list(path('<dir>')), some), 'folders that calls may restore into'),
  graph_roots: key(later(list(path('<dir>')), some), 'folders whose directories calls may add as graphs'),
} as const satisfies Keys;

/** Table that a flag belongs to. */
export type FlagScope = 'agent' | 'graph';
export type AgentFlag = SettingFlag<FlagScope>;

// Other commands call the id of a graph --graph.
const GRAPH_FLAG_NAMES = { id: '--graph' };

/** Returns the flags of all keys: those of a graph, then those of the agent. */
export function settingFlags(): readonly AgentFlag[] {
  return [
    ...flagsOfKeys<FlagScope>('graph', GRAPH_KEYS, GRAPH_FLAG_NAMES),
    ...flagsOfKeys<FlagScope>('agent', TOP_KEYS),
  ];
}

/** Returns the JSON Schema of an agent's settings file. */
export function agentJsonSchema(): SettingsJsonSchema {
  return settingsJsonSchema('Settings of a Lightkeeper agent', TOP_KEYS);
}
