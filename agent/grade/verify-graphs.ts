import { create } from '@bufbuild/protobuf';
import { normalise } from '../../core/errors.ts';
import { idOf, isChangedCut, type StoredSnapshot } from '../../core/snapshot.ts';
import { type Finding, FindingSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { graphSources } from '../snapshots/graph-files.ts';
import type { Store } from '../store/store.ts';
import { checkGraph } from './full-check.ts';

/** Checks the graphs in snapshots. Each finding names the snapshots that have it. */
export async function verifyGraphs(
  store: Store,
  snapshots: AsyncIterable<StoredSnapshot>,
  signal?: AbortSignal,
): Promise<Finding[]> {
  const endRead = store.beginRead();
  const found = new Map<string, Finding>();
  const addFinding = (finding: Finding, snapshotId: string) => {
    const { code, object, message } = finding;
    const kind = `${code}\0${object}\0${message}`;
    const known = found.get(kind) ?? create(FindingSchema, finding);
    known.snapshots.push(snapshotId);
    found.set(kind, known);
  };
  let last: { key: string; findings: readonly Finding[] } | undefined;
  try {
    for await (const snapshot of snapshots) {
      signal?.throwIfAborted();
      if (isChangedCut(snapshot.manifest)) continue;
      try {
        const sources = await graphSources(store, snapshot.manifest);
        const key = sources.map(({ path, contentKey }) => `${path} ${contentKey}`).join('\n');
        if (last?.key !== key) {
          const { findings } = await checkGraph(sources, {}, signal);
          last = { key, findings: findings.map(({ finding }) => finding) };
        }
        for (const finding of last.findings) addFinding(finding, idOf(snapshot));
      } catch (error) {
        // Damage of the store is reported with its packs.
        if (normalise(error).code !== 'DAMAGED') throw error;
      }
    }
  } finally {
    endRead();
  }
  return [...found.values()];
}
