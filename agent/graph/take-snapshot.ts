import { normalise } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { idOf, type StoredSnapshot } from '../../core/snapshot.ts';
import type { Snapshot } from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import {
  type CaptureRequest,
  type CaptureResult,
  captureDirectory,
  settleDirectory,
  settleLocked,
} from '../capture/capture.ts';
import { Quiesce } from '../capture/quiesce.ts';
import { learnFromGrade } from '../capture/quiet-window.ts';
import type { Grader } from '../grade/grader.ts';
import { recoverJournal } from '../restore/journal-recovery.ts';
import { tagSnapshot } from '../snapshots/annotate.ts';
import { checkCapture } from '../snapshots/source-directory.ts';
import { allFindings, snapshotView } from '../snapshots/views.ts';
import type { Store } from '../store/store.ts';
import type { Scan } from '../watch/scan.ts';

/** A request for one snapshot. */
export interface SnapshotRequest extends CaptureRequest {
  /** Share of the graph that may be lost since the last usable point without an alarm; undefined for no grading. */
  readonly lossShare: number | undefined;
}

/** The store, grader and callbacks with which snapshots are taken: one for each open store. */
export interface SnapshotTaker {
  readonly store: Store;
  readonly grader: Grader;
  /** Receives every snapshot that was taken, with the number of abandoned attempts. */
  readonly onTaken?: (snapshot: Snapshot, retries: number) => void;
  /** Receives the findings of an interrupted restore in place that was finished or undone before the capture. */
  readonly onRecovered?: (findings: readonly Finding[]) => void;
}

/** A snapshot that was taken. */
export interface TakenSnapshot {
  /** View of the snapshot in the API. */
  readonly snapshot: Snapshot;
  /** Scan of the captured directory; undefined if it was not at rest. */
  readonly scan: Scan | undefined;
  /** Milliseconds of the capture that were waits between its attempts. */
  readonly waitedMs: number;
}

/** Captures a directory and grades the snapshot. Returns the graded snapshot. */
export async function takeSnapshot(taker: SnapshotTaker, request: SnapshotRequest): Promise<TakenSnapshot> {
  // The capture checks it again: another one may add the first snapshot of the graph meanwhile.
  await checkCapture(taker.store, request);
  const captured = await captureSettled(taker, request);
  const tagged = captured.unchanged
    ? await addTags(taker.store, captured.snapshot, request)
    : captured.snapshot;
  const { snapshot, failure } = await grade(taker.grader, tagged, {
    ...request,
    unchanged: captured.unchanged,
    atRest: captured.atRest,
  });
  if (!captured.unchanged && !captured.isEarly) await learnFromGrade(taker.store, snapshot, request.quietMs);
  const view = snapshotView(snapshot, {
    unchanged: captured.unchanged,
    confirmedAtMs: await taker.store.index.local.confirmedAt(request.graphId),
    findings: allFindings(snapshot, [...captured.findings, ...(failure === undefined ? [] : [failure])]),
  });
  taker.onTaken?.(view, captured.retries);
  return { snapshot: view, scan: captured.scan, waitedMs: captured.waitedMs };
}

/** Waits for the directory to settle, then captures it with the store locked. */
// The store is not locked during the wait.
async function captureSettled(
  { store, onRecovered }: SnapshotTaker,
  request: SnapshotRequest,
): Promise<CaptureResult> {
  const quiesce = await Quiesce.begin(request);
  let result: CaptureResult;
  let late: Finding | undefined;
  try {
    let settled = await settleDirectory(store, request, quiesce);
    result = await store.exclusively(async () => {
      const endRead = store.beginRead();
      try {
        const recovered = await recoverJournal(request.dir);
        if (recovered.length > 0) {
          onRecovered?.(recovered);
          settled = await settleLocked(store, request, quiesce);
        }
        const captured = await captureDirectory(store, request, { quiesce, settled });
        return { ...captured, findings: [...recovered, ...captured.findings] };
      } finally {
        endRead();
      }
    });
  } finally {
    late = await quiesce.end();
  }
  return late === undefined ? result : { ...result, findings: [...result.findings, late] };
}

/** Adds the requested tags to a snapshot that existed before. */
async function addTags(
  store: Store,
  snapshot: StoredSnapshot,
  { tags, graphId }: SnapshotRequest,
): Promise<StoredSnapshot> {
  if (Object.keys(tags).length === 0) return snapshot;
  return await tagSnapshot(store, { snapshotId: idOf(snapshot), graphId, set: { ...tags }, remove: [] });
}

/** Grades a snapshot. Returns a failure as a finding. */
// The snapshot exists even if it cannot be graded.
async function grade(
  grader: Grader,
  snapshot: StoredSnapshot,
  { lossShare, signal, unchanged, atRest }: SnapshotRequest & Pick<CaptureResult, 'unchanged' | 'atRest'>,
): Promise<{ snapshot: StoredSnapshot; failure: Finding | undefined }> {
  if (lossShare === undefined) return { snapshot, failure: undefined };
  try {
    const graded = unchanged
      ? await grader.regrade(snapshot, lossShare, { atRest, signal })
      : await grader.grade(snapshot, lossShare, signal);
    return { snapshot: graded, failure: undefined };
  } catch (error) {
    const { message, hint } = normalise(error);
    return { snapshot, failure: warning('not_graded', idOf(snapshot), { message, hint }) };
  }
}
