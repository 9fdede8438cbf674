import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { normalise } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import type { OnProgress } from '../../core/progress.ts';
import { gradeOf, idOf, isChangedCut, isStored, type StoredSnapshot } from '../../core/snapshot.ts';
import {
  type AcceptFindingsRequest,
  type AcceptFindingsResponseSchema,
  type GradeSnapshotsRequest,
  type GradeSnapshotsResult,
  GradeSnapshotsResultSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Finding, Grade_Value, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { SnapshotTaker } from '../graph/take-snapshot.ts';
import { missingReason } from '../snapshots/annotate.ts';
import { newestSnapshot, notFound, onlyGraph, resolveSnapshot } from '../snapshots/resolve.ts';
import { summaryView } from '../snapshots/views.ts';
import type { Store } from '../store/store.ts';

/** Conditions of a grading. */
interface GradeCall {
  /** Share of the records that may be lost without an alarm. */
  readonly lossShare: number;
  readonly onProgress: OnProgress;
  readonly signal?: AbortSignal;
}

/** Grades snapshots from their stored bytes, oldest first. What cannot be graded is a finding. */
// Each is compared with the usable ones before it, which must be graded first.
export async function gradeSnapshots(
  { store, grader }: SnapshotTaker,
  request: GradeSnapshotsRequest,
  { lossShare, onProgress, signal }: GradeCall,
): Promise<GradeSnapshotsResult> {
  const chosen = await chosenSnapshots(store, request);
  const findings: Finding[] = [];
  const graded: StoredSnapshot[] = [];
  for (const [i, snapshot] of chosen.entries()) {
    signal?.throwIfAborted();
    onProgress('grading', i, chosen.length);
    try {
      graded.unshift(await grader.gradeAgain(snapshot, lossShare, signal));
    } catch (error) {
      const { message, hint, code } = normalise(error);
      if (code === 'CANCELLED') throw error;
      findings.push(warning('not_graded', idOf(snapshot), { message, hint }));
    }
  }
  return create(GradeSnapshotsResultSchema, { snapshots: graded.map(summaryView), findings });
}

/** Returns the snapshots that a request names, oldest first. */
async function chosenSnapshots(
  store: Store,
  { snapshotIds, graphId, all }: GradeSnapshotsRequest,
): Promise<StoredSnapshot[]> {
  const chosen: StoredSnapshot[] = [];
  for (const name of snapshotIds) chosen.push(await resolveSnapshot(store, name, graphId));
  if (snapshotIds.length === 0) {
    for (const graph of graphId === '' ? await store.index.graphs() : [graphId])
      for await (const [, snapshot] of store.index.records({ graphId: graph }))
        if (isStored(snapshot) && (all || gradeOf(snapshot) === Grade_Value.UNGRADED)) chosen.push(snapshot);
  }
  const bySequence = (a: StoredSnapshot, b: StoredSnapshot) =>
    Number(a.manifest.sequence - b.manifest.sequence);
  return chosen.filter(({ manifest }) => !isChangedCut(manifest)).sort(bySequence);
}

/** Accepts errors of the newest snapshot of a graph. INVALID_ARGUMENT without a reason. */
export async function acceptFindings(
  { store, grader }: SnapshotTaker,
  { graphId, code, object, reason, dryRun, keys }: AcceptFindingsRequest,
  lossShare: number,
): Promise<MessageInitShape<typeof AcceptFindingsResponseSchema>> {
  if (reason === '') throw missingReason('accept findings');
  const snapshot = await newestSnapshot(store, graphId === '' ? await onlyGraph(store) : graphId);
  if (snapshot === undefined) throw notFound('latest', graphId);
  const isMeant = (finding: Finding) =>
    (code === '' || finding.code === code) && (object === '' || finding.object === object);
  const { graded, accepted } = await grader.accept(snapshot, isMeant, { reason, dryRun, keys, lossShare });
  const remaining = graded.findings.filter(
    ({ severity, standing }) => severity === Severity_Value.ERROR && standing?.stands !== true,
  );
  return { snapshotId: idOf(snapshot), grade: graded.grade, accepted, remaining, dryRun };
}
