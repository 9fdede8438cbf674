import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { AgentEvents, AgentSettings, ReadSettings } from '../agent/main.ts';
import type { Snapshot } from '../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value } from '../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../host/clock.ts';
import { durationText, sizeText } from '../host/quantity.ts';
import { snapshotLine } from './commands/snapshot.ts';
import { plain, printError, say, timeText } from './print.ts';

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
  await runAgent(settings, tellEvents(settings), stop.signal);
  say('stopped');
}

/** Says what an agent tells, a line each. */
function tellEvents({ graphs }: AgentSettings): AgentEvents {
  const dirOf = (id: string) =>
    plain(Buffer.from(graphs.find((one) => one.graphId === id)?.dir ?? '').toString());
  const since = new Map<string, Snapshot>();
  let failing = '';
  return {
    started: ({ graphId, store, port, socket }) => {
      say(`protecting ${dirOf(graphId)} as graph "${graphId}"`);
      say(`points are kept in ${plain(store)}`);
      say(
        `metrics and probes: http://127.0.0.1:${port}/metrics /health /readiness /liveness · socket: ${socket}`,
      );
    },
    snapshot: (snapshot) => {
      failing = '';
      const { graphId, grade } = snapshot;
      if (grade !== Grade_Value.TORN && !since.has(graphId)) since.set(graphId, snapshot);
      const first = since.get(graphId);
      const protectedSince =
        first === undefined
          ? 'not protected yet'
          : `protected since ${timeText(first.capturedAt)}, RPO ${rpoText(snapshot)}`;
      say(`${timeText(snapshot.capturedAt)} ${snapshotLine(snapshot)} · ${protectedSince}`);
    },
    pruned: ({ remove, keep, bytesFreed }) => {
      say(
        `retention: ${remove.length} points removed, ${keep.length} kept, ${sizeText(Number(bytesFreed))} freed`,
      );
    },
    waiting: () => {
      const [graph] = graphs;
      say(`waiting for ${dirOf(graph?.graphId ?? '')}, which is not there yet`);
    },
    warned: ({ message, hint }) => {
      say(`warning: ${plain(message)}`);
      say(`hint: ${plain(hint)}`);
    },
    failed: (error) => {
      // Said once, and again only when it changes: it is tried again by itself.
      if (error.message !== failing) printError(error, false);
      failing = error.message;
    },
  };
}

/** What a loss of the directory would cost at this moment. */
function rpoText(snapshot: Snapshot): string {
  return snapshot.confirmedAt === undefined
    ? '-'
    : durationText(Math.max(0, now() - timestampMs(snapshot.confirmedAt)));
}
