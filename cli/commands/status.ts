import type { Command } from 'commander';
import {
  type ExceededLimit,
  type FollowerStatus,
  FollowState_Value,
  GetStatusResponseSchema,
  type GraphStatus,
  LimitKind_Value,
  ReplicateGraphResponseSchema,
  type SourceStatus,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Lag, Role_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { durationText, sizeText } from '../../host/quantity.ts';
import { EXIT } from '../exit.ts';
import { addCommonOptions, type CommonOptions, durationArgument, storePath } from '../options.ts';
import { escapeControls, printFindings, printJson, printLine, timeText } from '../print.ts';
import { withStore } from '../store.ts';

/** Adds `status` and `replicate`. */
export function addStatus(program: Command): void {
  addCommonOptions(
    program.command('status').description('show each graph, the age of its points, and who follows whom'),
  ).action(status);
  addCommonOptions(
    program
      .command('replicate')
      .description('wait until the followers of a graph hold its newest snapshot, or this follower has it'),
  )
    .option('--target <name>', 'only this follower')
    .option('--timeout <duration>', 'longest time to wait (default: 60s)', durationArgument)
    .action(replicate);
}

async function status(options: CommonOptions): Promise<void> {
  const result = await withStore(storePath(options), {}, (client) => client.getStatus({}));
  if (options.graph !== undefined)
    result.graphs = result.graphs.filter(({ graphId }) => graphId === options.graph);
  if (result.graphs.some(({ exceededLimits }) => exceededLimits.length > 0)) process.exitCode = EXIT.findings;
  if (options.json === true) return printJson(GetStatusResponseSchema, result);
  printLine(`store ${escapeControls(result.store)}`);
  for (const graph of result.graphs) printGraph(graph);
  if (result.graphs.length === 0) printLine('no graphs');
}

function printGraph(graph: GraphStatus): void {
  const { graphId, role, snapshots, lastUsableId, lastUsableAt, rpoMs, protectedId, followers, source } =
    graph;
  const name = role === Role_Value.UNSPECIFIED ? 'no agent' : Role_Value[role];
  printLine(
    `${graphId}  ${name}  ${snapshots} points${graph.dir === '' ? '' : `  ${escapeControls(graph.dir)}`}`,
  );
  printLine(
    lastUsableId === undefined
      ? '  no usable point'
      : `  last usable ${lastUsableId.slice(0, 12)} of ${timeText(lastUsableAt)}, RPO ${durationText(Number(rpoMs ?? 0n))}`,
  );
  if (followers.length > 0)
    printLine(`  protected ${protectedId === undefined ? 'none' : protectedId.slice(0, 12)}`);
  for (const follower of followers) printLine(`  → ${followerLine(follower)}`);
  if (source !== undefined) printLine(`  ← ${sourceLine(source)}`);
  for (const limit of graph.exceededLimits) printLine(`  OUTSIDE ITS LIMITS: ${limitText(limit)}`);
  printFindings(graph.findings);
}

function limitText({ kind, limitMs, actualMs, follower }: ExceededLimit): string {
  const what = kind === LimitKind_Value.RPO ? 'the RPO' : 'the lag';
  const of = follower === '' ? '' : ` of ${escapeControls(follower)}`;
  const none = kind === LimitKind_Value.RPO ? 'there is no usable point' : 'nothing was acknowledged';
  const actual = actualMs === undefined ? none : `it is ${durationText(Number(actualMs))}`;
  return `${what}${of} may be ${durationText(Number(limitMs))}, and ${actual}`;
}

/** Returns one line about a follower. */
export function followerLine({
  name,
  address,
  state,
  lag,
  bytesPerSecond,
  sentBytes,
  acknowledgedMsAgo,
  lastError,
  standby,
  held,
}: FollowerStatus): string {
  const acknowledged =
    acknowledgedMsAgo !== undefined
      ? `acknowledged ${durationText(Number(acknowledgedMsAgo))} ago`
      : held === undefined
        ? 'nothing acknowledged'
        : `acknowledged ${held.digest.slice(0, 12)} before this start`;
  const about = [...(address === '' ? [] : [address]), ...(standby ? [] : ['no standby'])].join(', ');
  const error = lastError === '' ? '' : `, ${escapeControls(lastError)}`;
  return `${escapeControls(name)}${about === '' ? '' : ` (${escapeControls(about)})`}  ${stateText(state)}${lagText(lag)}, ${acknowledged}, ${sizeText(Number(sentBytes))} sent, ${sizeText(Number(bytesPerSecond))}/s${error}`;
}

function sourceLine({
  url,
  agent,
  state,
  lag,
  roundTripMs,
  receivedBytes,
  bytesPerSecond,
  lastError,
}: SourceStatus): string {
  const error = lastError === '' ? '' : `, ${escapeControls(lastError)}`;
  const name = agent === '' ? '' : ` (${escapeControls(agent)})`;
  return `${escapeControls(url)}${name}  ${stateText(state)}${lagText(lag)}, round trip ${roundTripMs} ms, ${sizeText(Number(receivedBytes))} received, ${sizeText(Number(bytesPerSecond))}/s${error}`;
}

function stateText(state: FollowState_Value): string {
  return FollowState_Value[state].toLowerCase().replaceAll('_', ' ');
}

function lagText(lag: Lag | undefined): string {
  if (lag === undefined || lag.snapshots === 0n) return '';
  return `, ${lag.snapshots} points (${sizeText(Number(lag.bytes))}, ${durationText(Number(lag.ms))}) behind`;
}

async function replicate(options: CommonOptions & { target?: string; timeout?: number }): Promise<void> {
  const request = {
    graphId: options.graph ?? '',
    target: options.target ?? '',
    timeoutMs: BigInt(options.timeout ?? 0),
  };
  const result = await withStore(storePath(options), {}, (client) => client.replicateGraph(request));
  if (options.json === true) return printJson(ReplicateGraphResponseSchema, result);
  const head = result.head === undefined ? 'no snapshot' : result.head.digest.slice(0, 12);
  printLine(`${result.graphId}: ${head} is held by ${result.followers.length} followers`);
  for (const follower of result.followers) printLine(`  → ${followerLine(follower)}`);
  if (result.source !== undefined) printLine(`  ← ${sourceLine(result.source)}`);
}
