import { create } from '@bufbuild/protobuf';
import { normalise } from '../../core/errors.ts';
import { type CommittedSnapshot, idOf, isTorn } from '../../core/snapshot.ts';
import { CutMethod_Value, type Finding, FindingSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { graphFiles } from '../snapshots/graph-files.ts';
import type { Store } from '../store/store.ts';
import { inspect } from './full-check.ts';

/** What the checks say of the graphs in snapshots; each finding names those that it is of. */
export async function inspectSnapshots(
  store: Store,
  records: AsyncIterable<CommittedSnapshot>,
  signal?: AbortSignal,
): Promise<Finding[]> {
  const endRead = store.beginRead();
  const found = new Map<string, Finding>();
  const enter = (finding: Finding, snapshotId: string) => {
    const { code, object, message } = finding;
    const key = `${code}\0${object}\0${message}`;
    const known = found.get(key) ?? create(FindingSchema, finding);
    known.snapshots.push(snapshotId);
    found.set(key, known);
  };
  let last: { name: string; findings: readonly Finding[] } | undefined;
  try {
    for await (const record of records) {
      signal?.throwIfAborted();
      if (isTorn(record.manifest)) continue;
      try {
        const sources = await graphFiles(store, record.manifest);
        const name = sources.map(({ path, content }) => `${path} ${content}`).join('\n');
        if (last?.name !== name) {
          const idle = record.manifest.cutMethod === CutMethod_Value.IDLE ? true : undefined;
          last = { name, findings: (await inspect(sources, { idle }, signal)).findings };
        }
        for (const finding of last.findings) enter(finding, idOf(record));
      } catch (error) {
        // What cannot be read is the store's damage: that has been said with the packs.
        if (normalise(error).code !== 'DAMAGED') throw error;
      }
    }
  } finally {
    endRead();
  }
  return [...found.values()];
}
