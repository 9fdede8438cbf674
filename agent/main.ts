import type { GetVersionResponse, ValidateDirectoryResponse } from '../gen/lightkeeper/v1/agent_pb.ts';
import type { SettingsJsonSchema } from '../host/config/json-schema.ts';
import type { ReadSettings, SettingsSources } from './config/read.ts';
import type { AgentFlag } from './config/schema.ts';
import type { AgentSettings } from './config/settings.ts';
import type { ValidateOptions } from './grade/validate.ts';
import type { AgentEvents } from './run/agent.ts';
import type { GraphPlace } from './watch/workspaces.ts';

export { type AgentClient, type ConnectOptions, withStore } from './api/client.ts';
export type { GraphPlace } from './watch/workspaces.ts';

/** A graph, and each workspace below it as a graph of its own: `ID.W`. */
export async function splitGraph(place: GraphPlace): Promise<GraphPlace[]> {
  const workspaces = await import('./watch/workspaces.ts');
  return workspaces.splitGraph(place);
}

/** Runs the checks of a graph on a directory as it is; see `validate.ts`, which is loaded only for this. */
export async function validateDirectory(
  dir: Uint8Array,
  options: ValidateOptions = {},
): Promise<ValidateDirectoryResponse> {
  const validate = await import('./grade/validate.ts');
  return await validate.validateDirectory(dir, options);
}

export type { Flags, SettingFlag } from '../host/config/flags.ts';
export type { LogSettings } from '../host/config/log-settings.ts';
export type { ReadSettings, SettingsSources } from './config/read.ts';
export type { AgentSettings, GraphSettings } from './config/settings.ts';
export type { HealedSnapshots } from './graph/graph.ts';
export type { AgentEvents } from './run/agent.ts';

/** Guards graphs until the signal; loads `run/agent.ts` only for this. */
export async function runAgent(
  settings: AgentSettings,
  events: AgentEvents,
  signal: AbortSignal,
): Promise<void> {
  const agent = await import('./run/agent.ts');
  await agent.runAgent(settings, events, signal);
}

/** Reads the settings of an agent from a file, variables and flags. */
export async function readSettings(sources: SettingsSources): Promise<ReadSettings> {
  const config = await import('./config/read.ts');
  return await config.readSettings(sources);
}

/** Returns the flags of all settings. */
export async function settingFlags(): Promise<readonly AgentFlag[]> {
  const schema = await import('./config/schema.ts');
  return schema.settingFlags();
}

/** Returns the JSON Schema of an agent's settings file. */
export async function settingsJsonSchema(): Promise<SettingsJsonSchema> {
  const schema = await import('./config/schema.ts');
  return schema.agentJsonSchema();
}

/** Returns the build, and the formats and protocols that it supports. */
export async function versionInfo(): Promise<GetVersionResponse> {
  const version = await import('./api/version.ts');
  return version.versionInfo();
}
