import { mayStand } from '../../core/lightrag/grade.ts';
import { learnTorn, windowBefore } from '../../core/quiet.ts';
import { gradeOf, isChangedCut, type StoredSnapshot } from '../../core/snapshot.ts';
import { Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { Store } from '../store/store.ts';

/** Lengthens the quiet window of a graph after a snapshot proved to be cut inside a flush. */
export async function learnFromGrade(store: Store, snapshot: StoredSnapshot, quietMs: number): Promise<void> {
  const { manifest, digest, graded } = snapshot;
  // An error that was seen before does not come from this cut.
  const isNew = graded?.findings.some((finding) => mayStand(finding) && finding.standing?.captures === 1);
  if (isNew !== true || isChangedCut(manifest) || gradeOf(snapshot) !== Grade_Value.TORN) return;
  const { index } = store;
  const known = await index.local.quietRecord(manifest.graphId);
  const batch = index.batch();
  index.local.putQuietRecord(
    batch,
    manifest.graphId,
    learnTorn(known, digest, windowBefore(quietMs, known, digest)),
  );
  await index.write('index:quiet', batch);
}
