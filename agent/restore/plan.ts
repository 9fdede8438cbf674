import { LightkeeperError } from '../../core/errors.ts';
import { type BytePath, pathFromBytes, pathMatcher } from '../../core/path.ts';
import type { CommittedSnapshot } from '../../core/snapshot.ts';
import { FileType_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { Store } from '../store/store.ts';
import type { Totals } from './tree-writer.ts';

/** How much a restore writes. */
export async function count(
  store: Store,
  order: { record: CommittedSnapshot; paths: readonly string[] },
): Promise<Totals> {
  const { totals } = order.record.manifest;
  if (order.paths.length === 0 && totals !== undefined)
    return { files: totals.files, bytes: Number(totals.rawBytes) };
  const wants = wanted(order.paths);
  let files = 0;
  let bytes = 0;
  for await (const file of store.files(order.record.manifest.files)) {
    const regular = file.type === FileType_Value.REGULAR || file.type === FileType_Value.HARD_LINK;
    if (!regular || !wants(pathFromBytes(file.path))) continue;
    files += 1;
    bytes += Number(file.size);
  }
  if (files === 0 && order.paths.length > 0) {
    throw new LightkeeperError('NOT_FOUND', `Cannot restore "${order.paths.join('", "')}": no file matches`, {
      hint: 'look at the names with lightkeeper show',
    });
  }
  return { files, bytes };
}

export function wanted(paths: readonly string[]): (path: BytePath) => boolean {
  if (paths.length === 0) return () => true;
  const matchers = paths.map(pathMatcher);
  return (path) => matchers.some((matches) => matches(path));
}

/** What is to be written below a folder, for `writeTree`. */
export function writing(order: RestoreBase, totals: Totals, base: Buffer, paths: readonly string[] = []) {
  const { record, signal, onProgress } = order;
  return {
    manifest: record.manifest,
    base,
    wants: wanted(paths),
    totals,
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  };
}

/** What every restore is asked. */
export interface RestoreBase {
  readonly record: CommittedSnapshot;
  readonly dryRun: boolean;
  readonly reserveBytes: bigint | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: (phase: string, doneBytes: number, totalBytes: number) => void;
}
