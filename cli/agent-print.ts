import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { AgentEvents } from '../agent/main.ts';
import type { Snapshot } from '../gen/lightkeeper/v1/agent_pb.ts';
import { now } from '../host/clock.ts';
import { durationText, sizeText } from '../host/quantity.ts';
import { snapshotLine } from './commands/snapshot.ts';
import { escapeControls, printFindings, printLine, timeText } from './print.ts';
import { printError } from './print-error.ts';

/** Most findings that are printed for a snapshot that is not usable, or has alarms. */
const FINDINGS_PRINTED = 3;

/** Returns events that print a line each for people; with several graphs a line names its graph. */
export function printedEvents(): AgentEvents {
  const dirs = new Map<string, string>();
  const since = new Map<string, Snapshot>();
  const failing = new Map<string, string>();
  const graphPrefix = (graphId: string) => (dirs.size > 1 ? `${graphId}: ` : '');
  return {
    started: ({ store, http, grpc, socket }) => {
      printLine(`snapshots are stored in ${escapeControls(store)}`);
      printLine(`metrics and probes: ${http}/metrics /health /readiness /liveness · socket: ${socket}`);
      if (grpc !== undefined) printLine(`calls of other agents: ${grpc}`);
    },
    guarding: (graphId, dir) => {
      dirs.set(graphId, escapeControls(Buffer.from(dir).toString()));
      printLine(`protecting ${dirs.get(graphId)} as graph "${graphId}"`);
    },
    snapshot: (snapshot) => {
      const { graphId } = snapshot;
      failing.delete(graphId);
      if (snapshot.usable && !since.has(graphId)) since.set(graphId, snapshot);
      const first = since.get(graphId);
      const protectedSince =
        first === undefined
          ? 'not protected yet'
          : `protected since ${timeText(first.capturedAt)}, RPO ${rpoText(snapshot)}`;
      const time = timeText(snapshot.capturedAt);
      printLine(`${time} ${graphPrefix(graphId)}${snapshotLine(snapshot)} · ${protectedSince}`);
      if (!snapshot.usable || snapshot.alarms.length > 0) printFindings(snapshot.findings, FINDINGS_PRINTED);
    },
    pruned: (graphId, { remove, keep, bytesFreed }) => {
      const freed = sizeText(Number(bytesFreed));
      printLine(
        `${graphPrefix(graphId)}retention: ${remove.length} snapshots removed, ${keep.length} kept, ${freed} freed`,
      );
    },
    waiting: (graphId) => printLine(`waiting for ${dirs.get(graphId)}, which is not there yet`),
    warned: (graphId, { message, hint }) => {
      printLine(`warning: ${graphPrefix(graphId)}${escapeControls(message)}`);
      printLine(`hint: ${escapeControls(hint)}`);
    },
    instance: (graphId, { message, hint, isWell }) => {
      printLine(`${isWell ? '' : 'warning: '}${graphPrefix(graphId)}${escapeControls(message)}`);
      if (hint !== '') printLine(`hint: ${escapeControls(hint)}`);
    },
    certificate: ({ message, hint, isWell }) => {
      printLine(`${isWell ? '' : 'warning: '}${escapeControls(message)}`);
      if (hint !== '') printLine(`hint: ${escapeControls(hint)}`);
    },
    settled: (findings) => printFindings(findings),
    healed: (graphId, { snapshotIds, units, from }) => {
      const source =
        from.length === 0 ? '' : `: ${units} units came from ${from.map(escapeControls).join(', ')}`;
      printLine(
        `${graphPrefix(graphId)}healed: ${snapshotIds.length} damaged snapshots are whole again${source}`,
      );
    },
    failed: (graphId, error) => {
      // The agent tries again by itself: the same failure is printed once.
      if (error.message !== failing.get(graphId)) printError(error, false);
      failing.set(graphId, error.message);
    },
  };
}

/** Formats the time whose changes a loss of the directory would cost now. */
function rpoText(snapshot: Snapshot): string {
  return snapshot.confirmedAt === undefined
    ? '-'
    : durationText(Math.max(0, now() - timestampMs(snapshot.confirmedAt)));
}
