import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { AgentEvents, ReadSettings } from '../agent/main.ts';
import type { Snapshot } from '../gen/lightkeeper/v1/agent_pb.ts';
import { now } from '../host/clock.ts';
import { durationText, sizeText } from '../host/quantity.ts';
import { snapshotLine } from './commands/snapshot.ts';
import { isUsable } from './exit.ts';
import { plain, printError, printFindings, say, timeText } from './print.ts';

/** Runs an agent with these settings until SIGINT or SIGTERM, and tells what it does. */
export async function runUntilStopped({ settings, warnings, error }: ReadSettings): Promise<void> {
  if (settings === undefined) throw error;
  const stop = new AbortController();
  const stopNow = () => {
    say('stopping: a last look at the directory');
    stop.abort();
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, stopNow);
  for (const warning of warnings) say(`warning: ${plain(warning)}`);
  const { runAgent } = await import('../agent/main.ts');
  await runAgent(settings, agentEvents(), stop.signal);
  say('stopped');
}

/** Findings of a point that is not usable, or has alarms. */
const FINDINGS_TOLD = 3;

/** Says what an agent does, a line for each thing; with several graphs each line names its own. */
export function agentEvents(): AgentEvents {
  const dirs = new Map<string, string>();
  const since = new Map<string, Snapshot>();
  const failing = new Map<string, string>();
  const ofGraph = (graphId: string) => (dirs.size > 1 ? `${graphId}: ` : '');
  return {
    started: ({ store, port, socket }) => {
      say(`points are kept in ${plain(store)}`);
      say(
        `metrics and probes: http://127.0.0.1:${port}/metrics /health /readiness /liveness · socket: ${socket}`,
      );
    },
    guarding: (graphId, dir) => {
      dirs.set(graphId, plain(Buffer.from(dir).toString()));
      say(`protecting ${dirs.get(graphId)} as graph "${graphId}"`);
    },
    snapshot: (snapshot) => {
      const { graphId } = snapshot;
      failing.delete(graphId);
      if (isUsable(snapshot.grade) && !since.has(graphId)) since.set(graphId, snapshot);
      const first = since.get(graphId);
      const protectedSince =
        first === undefined
          ? 'not protected yet'
          : `protected since ${timeText(first.capturedAt)}, RPO ${rpoText(snapshot)}`;
      const time = timeText(snapshot.capturedAt);
      say(`${time} ${ofGraph(graphId)}${snapshotLine(snapshot)} · ${protectedSince}`);
      if (!isUsable(snapshot.grade) || snapshot.alarms.length > 0)
        printFindings(snapshot.findings, FINDINGS_TOLD);
    },
    pruned: (graphId, { remove, keep, bytesFreed }) => {
      const freed = sizeText(Number(bytesFreed));
      say(
        `${ofGraph(graphId)}retention: ${remove.length} points removed, ${keep.length} kept, ${freed} freed`,
      );
    },
    waiting: (graphId) => say(`waiting for ${dirs.get(graphId)}, which is not there yet`),
    warned: (graphId, { message, hint }) => {
      say(`warning: ${ofGraph(graphId)}${plain(message)}`);
      say(`hint: ${plain(hint)}`);
    },
    settled: (findings) => printFindings(findings),
    failed: (graphId, error) => {
      // Said once, and again only when it changes: it is tried again by itself.
      if (error.message !== failing.get(graphId)) printError(error, false);
      failing.set(graphId, error.message);
    },
  };
}

/** What a loss of the directory would cost at this moment. */
function rpoText(snapshot: Snapshot): string {
  return snapshot.confirmedAt === undefined
    ? '-'
    : durationText(Math.max(0, now() - timestampMs(snapshot.confirmedAt)));
}
