import { create } from '@bufbuild/protobuf';
import { parseAckMode } from '../../core/following/protection.ts';
import { defaultGraphId } from '../../core/graph-id.ts';
import type { GraphLimits } from '../../core/limits.ts';
import { isEmptyPolicy } from '../../core/retention.ts';
import { type RetentionPolicy, RetentionPolicySchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Fields, type Reading, readMap } from '../../host/config/keys.ts';
import { DEFAULT, type Mapping, type Origin } from '../../host/config/node.ts';
import { type EffectiveSettings, formatDuration, formatPercent } from '../../host/config/show.ts';
import { nearest } from '../../host/config/suggest.ts';
import type { CaptureHooks } from '../instance/hooks.ts';
import type { InstanceSettings } from '../instance/probe.ts';
import type { EnvironmentSettings } from './environment.ts';
import { GRAPH_KEYS, type RETENTION_KEYS, TOP_KEYS, type WORKSPACE_KEYS } from './schema.ts';
import { defaultRetention, GRAPH_DEFAULTS, type GraphSettings } from './settings.ts';

const HOOK_TIMEOUT_MS = 30_000;
// The key is sent as one header of a request.
const KEY_CHARACTERS = /^[\x21-\x7e]{1,4096}$/;
const KEY_FILE_BYTES_MAX = 8192;

type GraphFields = Fields<typeof GRAPH_KEYS>;
type RetentionFields = Fields<typeof RETENTION_KEYS>;

/** What building the settings of a graph needs. */
export interface GraphSources {
  readonly environment: EnvironmentSettings;
  readonly reading: Reading;
  readonly effective: EffectiveSettings;
  readonly readText: (path: string, bytesMax: number) => string;
  /** Returns a path without links, as far as it exists. */
  readonly realPath: (path: string) => string;
}

/** The settings of a graph, with the origins of those that may conflict with another graph. */
export interface BuiltGraph {
  readonly settings: GraphSettings;
  /** Its key: `graphs[0]`. */
  readonly path: string;
  /** Undefined if there is no directory, which has been reported. */
  readonly dir: { readonly value: string; readonly origin: Origin } | undefined;
  /** Origin of the id, or of the directory that it is derived from; undefined if there is neither. */
  readonly idOrigin: Origin | undefined;
  /** URL of the agent that it is followed at; undefined if this one captures it. */
  readonly follow: string | undefined;
}

/** Builds the settings of a graph; problems are reported. */
export function buildGraph(node: Mapping, path: string, sources: GraphSources): BuiltGraph {
  const { reading, effective } = sources;
  const fields = readMap(GRAPH_KEYS, node, path, reading, (name) =>
    Object.hasOwn(TOP_KEYS, name) ? 'at the top' : undefined,
  );
  const { dir, follow } = fields;
  const at = (name: string) => `${path}.${name}`;
  if (dir === undefined) {
    if (follow === undefined && !isDirMistaken(node)) reportMissingDir(node, at('dir'), reading);
    if (follow !== undefined && fields.id === undefined)
      reading.report.problem(follow, 'there is no id of the graph to follow', { hint: 'name it with id' });
  } else {
    effective.add(at('dir'), dir.value, dir.origin);
  }
  const place = dir?.value ?? '';
  const shown = <T>(value: T) => value;
  const graphId = effective.take(
    at('id'),
    fields.id,
    defaultGraphId(Buffer.from(sources.realPath(place))),
    shown,
  );
  const allowPartial = effective.take(at('allow_partial'), fields.allow_partial, false, shown);
  const settings: GraphSettings = {
    graphId,
    isIdGiven: fields.id !== undefined,
    dir: Buffer.from(place),
    exclude: effective.take(at('exclude'), fields.exclude, GRAPH_DEFAULTS.exclude, shown),
    quietMs: effective.take(at('quiet'), fields.quiet, GRAPH_DEFAULTS.quietMs, formatDuration),
    minIntervalMs: effective.take(
      at('min_interval'),
      fields.min_interval,
      GRAPH_DEFAULTS.minIntervalMs,
      formatDuration,
    ),
    split: effective.take(at('split'), fields.split, GRAPH_DEFAULTS.split, shown),
    lossShare: effective.take(at('alarm_loss'), fields.alarm_loss, GRAPH_DEFAULTS.lossShare, formatPercent),
    instance: instanceOf(fields, path, { ...sources, allowPartial }),
    workspaceInstances: workspaceInstances(fields, { ...sources, allowPartial }),
    hooks: hooksOf(fields, path, effective),
    retention: retentionOf(fields, node, path, sources),
    ack: parseAckMode(effective.take(at('ack'), fields.ack, 'async', shown)),
    limits: limitsOf(fields, effective, at),
  };
  if (follow !== undefined) effective.add(at('follow'), follow.value, follow.origin);
  return { settings, path, dir, idOrigin: (fields.id ?? dir)?.origin, follow: follow?.value };
}

/** Whether a directory was given wrongly, which has been reported. */
function isDirMistaken({ entries }: Mapping): boolean {
  const known = Object.keys(GRAPH_KEYS);
  return entries.has('dir') || [...entries.keys()].some((name) => nearest(name, known) === 'dir');
}

function reportMissingDir({ entries, origin }: Mapping, path: string, { report }: Reading): void {
  const state =
    entries.size === 0 && origin.kind === 'default'
      ? 'there is no directory to protect'
      : 'there is no directory';
  report.problem({ origin, path: origin.kind === 'default' ? '' : path }, state, {
    hint: 'name it with --dir, WORKING_DIR, or graphs in a file',
  });
}

/** Builds the instances of the workspaces; problems are reported. */
function workspaceInstances(
  { workspaces, split }: GraphFields,
  sources: InstanceSources,
): ReadonlyMap<string, InstanceSettings> {
  const instances = new Map<string, InstanceSettings>();
  const { report } = sources.reading;
  if (workspaces !== undefined && split?.value === false)
    report.warn(`${workspaces.path} is not used: split is off`);
  for (const [name, { value, origin, path }] of workspaces?.value ?? []) {
    const instance = instanceOf(value, path, sources);
    if (instance !== undefined) instances.set(name, instance);
    else if (value.instance_url === undefined) report.problem({ origin, path }, 'there is no instance_url');
  }
  return instances;
}

interface InstanceSources extends GraphSources {
  readonly allowPartial: boolean;
}

function instanceOf(
  { instance_url: url, api_key_file: file }: Fields<typeof WORKSPACE_KEYS>,
  path: string,
  { environment, reading, effective, readText, allowPartial }: InstanceSources,
): InstanceSettings | undefined {
  const { report } = reading;
  let apiKey: { value: string; origin: Origin } | undefined = environment.apiKey;
  if (file !== undefined) {
    effective.add(file.path, file.value, file.origin);
    apiKey = {
      value: readKey(file.value, (state) => report.problem(file, state), readText),
      origin: file.origin,
    };
  }
  if (url === undefined) {
    if (file !== undefined) report.warn(`${file.path} is not used: there is no instance_url`);
    return undefined;
  }
  effective.add(url.path, url.value, url.origin);
  effective.add(`${path}.api_key`, apiKey === undefined ? 'not set' : 'set', apiKey?.origin ?? DEFAULT);
  if (apiKey !== undefined && file === undefined && !KEY_CHARACTERS.test(apiKey.value)) {
    report.problem(
      { origin: apiKey.origin, path: '' },
      'this is not a key: one line of visible characters is needed',
    );
  }
  return { url: url.value, apiKey: apiKey?.value ?? '', allowPartial };
}

// The content of the file is never repeated.
/** Reads the key in a file. */
function readKey(file: string, problem: (state: string) => void, readText: GraphSources['readText']): string {
  try {
    const key = readText(file, KEY_FILE_BYTES_MAX).trim();
    if (key === '') problem('the file is empty');
    else if (!KEY_CHARACTERS.test(key))
      problem('the file holds no key: one line of visible characters is needed');
    return key;
  } catch (error) {
    problem(`the file cannot be read: ${error instanceof Error ? error.message : String(error)}`);
    return '';
  }
}

function hooksOf(
  { hooks }: GraphFields,
  path: string,
  effective: EffectiveSettings,
): CaptureHooks | undefined {
  const { pre_capture: pre, post_capture: post, timeout } = hooks?.value ?? {};
  const preCapture = effective.take(`${path}.hooks.pre_capture`, pre, [], (lines) => lines);
  const postCapture = effective.take(`${path}.hooks.post_capture`, post, [], (lines) => lines);
  const timeoutMs = effective.take(`${path}.hooks.timeout`, timeout, HOOK_TIMEOUT_MS, formatDuration);
  return preCapture.length + postCapture.length === 0 ? undefined : { preCapture, postCapture, timeoutMs };
}

function limitsOf(
  { limits }: GraphFields,
  effective: EffectiveSettings,
  at: (name: string) => string,
): GraphLimits {
  const { rpo, lag } = limits?.value ?? {};
  const shown = (ms: number | undefined) => (ms === undefined ? 'none' : formatDuration(ms));
  return {
    rpoMs: effective.take(at('limits.rpo'), rpo, undefined, shown),
    lagMs: effective.take(at('limits.lag'), lag, undefined, shown),
  };
}

function retentionOf(
  { retention }: GraphFields,
  { entries }: Mapping,
  path: string,
  { environment: { retentionMs }, reading, effective }: GraphSources,
): RetentionPolicy {
  const policy =
    retention !== undefined
      ? policyOf(retention.value)
      : retentionMs !== undefined
        ? create(RetentionPolicySchema, { withinMs: BigInt(retentionMs.value) })
        : defaultRetention();
  const raw = entries.get('retention');
  // With a wrong rule it is unknown what the others would keep.
  const whole = raw?.kind === 'map' && raw.entries.size === Object.keys(retention?.value ?? {}).length;
  if (retention !== undefined && whole && isEmptyPolicy(policy)) {
    reading.report.problem(retention, 'it would keep nothing', {
      hint: 'give a number above 0, or leave it out',
    });
  }
  const origin = retention?.origin ?? retentionMs?.origin ?? DEFAULT;
  const add = (name: string, value: number | string | string[], isSet: boolean) => {
    const own = (retention?.value as Record<string, { origin: Origin }> | undefined)?.[name]?.origin;
    if (isSet) effective.add(`${path}.retention.${name}`, value, own ?? origin);
  };
  for (const name of ['last', 'hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const)
    add(name, policy[name], policy[name] > 0);
  add('keep_within', formatDuration(Number(policy.withinMs)), policy.withinMs > 0n);
  add('tags', policy.tags, policy.tags.length > 0);
  return policy;
}

function policyOf(fields: RetentionFields): RetentionPolicy {
  const { last, hourly, daily, weekly, monthly, yearly, keep_within, tags } = fields;
  return create(RetentionPolicySchema, {
    last: last?.value ?? 0,
    hourly: hourly?.value ?? 0,
    daily: daily?.value ?? 0,
    weekly: weekly?.value ?? 0,
    monthly: monthly?.value ?? 0,
    yearly: yearly?.value ?? 0,
    withinMs: BigInt(keep_within?.value ?? 0),
    tags: [...(tags?.value ?? [])],
  });
}
