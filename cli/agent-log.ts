import { timestampDate, timestampMs } from '@bufbuild/protobuf/wkt';
import type { AgentEvents } from '../agent/main.ts';
import type { LightkeeperError } from '../core/errors.ts';
import type { Snapshot } from '../gen/lightkeeper/v1/agent_pb.ts';
import {
  CutMethod_Value,
  type Finding,
  Grade_Value,
  Severity_Value,
} from '../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../host/clock.ts';
import type { Log, LogFields } from '../host/log.ts';

/** Most findings that the line of a snapshot names. */
const FINDINGS_LOGGED = 3;

/** Returns events that write a line each to the log. */
export function loggedEvents(log: Log): AgentEvents {
  const since = new Map<string, string>();
  const failing = new Map<string, string>();
  return {
    started: ({ store, http, grpc, socket }) =>
      log.info('serving', {
        store,
        http: served(http),
        ...(grpc === undefined ? {} : { grpc: served(grpc) }),
        socket,
      }),
    guarding: (graph, dir) => log.info('protecting', { graph, dir: Buffer.from(dir).toString() }),
    snapshot: (snapshot) => {
      const { graphId: graph, unchanged, capturedAt } = snapshot;
      failing.delete(graph);
      if (snapshot.usable && !since.has(graph) && capturedAt !== undefined)
        since.set(graph, timestampDate(capturedAt).toISOString());
      const protectedSince = since.get(graph);
      const fields = {
        ...snapshotFields(snapshot),
        ...(protectedSince === undefined ? {} : { protectedSince, ...rpoFields(snapshot) }),
        ...reasonFields(snapshot),
      };
      const write = snapshot.usable && snapshot.alarms.length === 0 ? log.info : log.warn;
      write(unchanged ? 'directory unchanged' : 'snapshot taken', fields);
    },
    pruned: (graph, { remove, keep, bytesFreed }) =>
      log.info('snapshots pruned', {
        graph,
        removed: remove.length,
        kept: keep.length,
        bytesFreed: Number(bytesFreed),
      }),
    waiting: (graph) => log.warn('waiting for the directory, which is not there yet', { graph }),
    warned: (graph, finding) => log.warn(finding.message, { graph, ...findingFields(finding) }),
    instance: (graph, { message, hint, isWell }) =>
      (isWell ? log.info : log.warn)(message, { graph, ...(hint === '' ? {} : { hint }) }),
    certificate: ({ message, hint, isWell }) =>
      (isWell ? log.info : log.warn)(message, hint === '' ? {} : { hint }),
    settled: (findings) => {
      for (const finding of findings) {
        const write = finding.severity === Severity_Value.INFO ? log.info : log.warn;
        write(finding.message, findingFields(finding));
      }
    },
    healed: (graph, { snapshotIds, units, from }) =>
      log.info('damaged snapshots are whole again', {
        graph,
        snapshots: snapshotIds.length,
        newest: snapshotIds[0] ?? '',
        units,
        ...(from.length === 0 ? {} : { from: from.join(', ') }),
      }),
    failed: (graph, error) => {
      // The agent tries again by itself: the same failure is logged once.
      if (error.message !== failing.get(graph)) log.error(error.message, { graph, ...errorFields(error) });
      failing.set(graph, error.message);
    },
  };
}

/** Returns the address of a URL; that of TLS keeps its scheme. */
function served(url: string): string {
  return url.replace(/^http:\/\//, '');
}

function snapshotFields(snapshot: Snapshot): LogFields {
  const { graphId, snapshotId, grade, cutMethod, files, rawBytes } = snapshot;
  const { unchanged, newBytes, storedBytes, durationMs, gradeMs, summary } = snapshot;
  return {
    graph: graphId,
    snapshot: snapshotId,
    grade: Grade_Value[grade],
    cutMethod: CutMethod_Value[cutMethod],
    files,
    rawBytes: Number(rawBytes),
    ...(unchanged
      ? {}
      : { newBytes: Number(newBytes), storedBytes: Number(storedBytes), durationMs, gradeMs }),
    ...(summary === '' ? {} : { summary }),
  };
}

/** Returns the time whose changes a loss of the directory would cost now. */
function rpoFields({ confirmedAt }: Snapshot): LogFields {
  return confirmedAt === undefined ? {} : { rpoMs: Math.max(0, now() - timestampMs(confirmedAt)) };
}

/** Returns why a snapshot is below VALID or has alarms. */
function reasonFields({ grade, alarms, acknowledged, findings }: Snapshot): LogFields {
  const alarmCodes = acknowledged === '' ? alarms.map(({ code }) => code) : [];
  const isGood = grade === Grade_Value.VALID && alarmCodes.length === 0;
  return {
    ...(alarmCodes.length === 0 ? {} : { alarms: alarmCodes }),
    ...(isGood || findings.length === 0
      ? {}
      : { findings: findings.length, why: findings.slice(0, FINDINGS_LOGGED).map(findingText) }),
  };
}

function findingText({ code, object, message }: Finding): string {
  return object === '' ? `${code}: ${message}` : `${code} ${object}: ${message}`;
}

function findingFields({ code, object, hint }: Finding): LogFields {
  return { code, ...(object === '' ? {} : { object }), ...(hint === '' ? {} : { hint }) };
}

function errorFields({ code, hint }: LightkeeperError): LogFields {
  return { code, ...(hint === '' ? {} : { hint }) };
}
