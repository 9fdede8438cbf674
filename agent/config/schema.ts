import { LightkeeperError } from '../../core/errors.ts';
import { checkGraphId } from '../../core/manifest.ts';
import { quoted } from '../../host/config/node.ts';
import {
  address,
  boolean,
  count,
  duration,
  type Keys,
  key,
  later,
  list,
  map,
  path,
  percent,
  rate,
  size,
  text,
} from '../../host/config/value-types.ts';

function graphIdState(id: string): string | undefined {
  try {
    checkGraphId(id);
    return undefined;
  } catch (error) {
    if (!(error instanceof LightkeeperError)) throw error;
    return `${quoted(id)} is no graph id; ${error.hint}`;
  }
}

/** Why an address of a server cannot be used. The address itself may hold a password: it is not repeated. */
function urlState(url: string): string | undefined {
  if (!/^https?:\/\//i.test(url) || !URL.canParse(url)) return 'it is no URL like http://127.0.0.1:9621';
  const { username, password } = new URL(url);
  return username + password === '' ? undefined : 'it holds a password; name a file with api_key_file';
}

function oneOf(...words: readonly string[]): (value: string) => string | undefined {
  return (value) => (words.includes(value) ? undefined : `${quoted(value)} is none of ${words.join(', ')}`);
}

const url = () => text('<url>', urlState);
const lines = () => list(text('<command>'));
/** Beyond it a point in time is not a date any more. */
const CENTURY_MS = 100 * 365 * 86_400_000;

/** What is kept, of a graph. */
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
  pre_capture: key(lines(), 'a shell line that is run before each capture'),
  post_capture: key(lines(), 'a shell line that is run after each capture'),
  promote: key(later(lines(), some), 'run when this agent becomes primary'),
  demote: key(later(lines(), some), 'run when this agent is no longer primary'),
  fence: key(later(lines(), some), 'run to stop another primary'),
  timeout: key(duration({ atLeastMs: 1 }), 'what each line may take (default: 30s)'),
} as const satisfies Keys;

/** The keys of one graph. */
export const GRAPH_KEYS = {
  id: key(text('<id>', graphIdState), "the graph's name (default: the directory's)"),
  dir: key(path('<dir>'), 'the directory'),
  instance_url: key(url(), 'where the instance serves: it is asked whether it is idle'),
  api_key_file: key(path('<file>'), 'its key (default: LIGHTRAG_API_KEY)'),
  quiet: key(duration(), 'the least time without a change (default: 300ms; longer where learned)'),
  min_interval: key(duration(), 'captures start this far apart, at least (default: 1s)'),
  exclude: key(list(text('<pattern>')), 'names to leave out'),
  split: key(boolean(), 'guard each workspace as a graph of its own (default)'),
  allow_partial: key(boolean(), 'guard the files of an instance that keeps a part of the graph elsewhere'),
  hooks: key(map(HOOK_KEYS), 'shell lines that are run around captures'),
  alarm_loss: key(
    percent(),
    'what may be lost of documents or entities from one point to the next without an alarm (default: 25%)',
  ),
  retention: key(map(RETENTION_KEYS), 'which points are kept'),
  ack: key(
    later(text('<mode>', ackState), (mode) => mode !== 'async'),
    'how many copies a point needs',
  ),
  follow: key(later(url()), 'where the source of a standby is'),
} as const satisfies Keys;

function some(values: readonly unknown[]): boolean {
  return values.length > 0;
}

function ackState(mode: string): string | undefined {
  return /^(?:async|all|quorum\([1-9][0-9]?\))$/.test(mode)
    ? undefined
    : `${quoted(mode)} is none of async, quorum(1), all`;
}

const TARGET_KEYS = {
  name: key(text('<name>'), 'its name'),
  certificate: key(text('<name>'), 'the name in its certificate'),
  graphs: key(list(text('<id>', graphIdState)), 'the graphs that it holds too'),
  bandwidth: key(rate(), 'what it may be sent'),
} as const satisfies Keys;

function anything(fields: object): boolean {
  return Object.keys(fields).length > 0;
}

/** The keys of an agent. */
export const TOP_KEYS = {
  state: key(path('<dir>'), 'where this agent keeps what is its own'),
  store: key(path('<dir>'), 'where the points are kept (default: STATE/store)'),
  graphs: key(list(map(GRAPH_KEYS)), 'the graphs, where they are several'),
  targets: key(later(list(map(TARGET_KEYS)), some), 'agents that hold the points too'),
  http: key(address(), 'metrics and probes (default: 127.0.0.1:9701, or a free port)'),
  grpc: key(later(address()), 'calls of other agents'),
  gateway: key(
    later(
      map({ listen: key(address(), 'its port'), to: key(address(), 'the port of the instance') }),
      anything,
    ),
    'a port that leads to the instance of the primary',
  ),
  controller: key(
    later(
      map({
        url: key(url(), 'where it serves'),
        token_file: key(path('<file>'), 'the token to join with'),
        ca: key(path('<file>'), 'who signed its certificate'),
      }),
      anything,
    ),
    'the controller of this agent',
  ),
  tls: key(
    later(
      map({
        cert: key(path('<file>'), 'the certificate'),
        key: key(path('<file>'), 'its key'),
        ca: key(path('<file>'), 'who signs those of others'),
      }),
      anything,
    ),
    'the certificate of this agent',
  ),
  profile: key(
    later(text('<profile>', oneOf('normal', 'fast', 'safe')), (profile) => profile !== 'normal'),
    'how eager it is',
  ),
  disk_reserve: key(size(), 'free space that must remain; 0 turns the check off'),
  restore_roots: key(later(list(path('<dir>')), some), 'where restores may be asked for'),
  graph_roots: key(later(list(path('<dir>')), some), 'where graphs may be added'),
} as const satisfies Keys;

/** A flag of a key. */
export interface SettingFlag {
  /** `--min-interval` */
  readonly name: string;
  readonly scope: 'agent' | 'graph';
  /** The keys that lead to its value. */
  readonly path: readonly string[];
  /** What it takes; empty if it takes nothing: `--split`, `--no-split`. */
  readonly word: string;
  readonly about: string;
  readonly repeats: boolean;
  readonly structure: boolean;
  /** Not in the help: its part is not in this version, or it is another name. */
  readonly hidden: boolean;
}

/** `--graph` is what other commands call it. */
const OTHER_NAMES: Readonly<Record<string, string>> = { id: '--graph' };

function flagsOf(
  scope: 'agent' | 'graph',
  keys: Keys,
  above: readonly string[],
  isLater: boolean,
): SettingFlag[] {
  return Object.entries(keys).flatMap(([name, one]) => {
    const place = [...above, name];
    const { word, about, repeats = false, structure = false } = one;
    const hidden = isLater || one.later === true;
    const flag = `--${place.join('-').replaceAll('_', '-')}`;
    const own = { scope, path: place, word, about, repeats, structure };
    const names = above.length === 0 && OTHER_NAMES[name] !== undefined ? [OTHER_NAMES[name], flag] : [flag];
    const below = one.keys === undefined ? [] : flagsOf(scope, one.keys, place, hidden);
    return [...names.map((each, i) => ({ ...own, name: each, hidden: hidden || i > 0 })), ...below];
  });
}

/** The flags of all keys: those of a graph, then those of the agent. */
export function settingFlags(): readonly SettingFlag[] {
  return [...flagsOf('graph', GRAPH_KEYS, [], false), ...flagsOf('agent', TOP_KEYS, [], false)];
}
