import { LightkeeperError } from '../../core/errors.ts';
import { type BytePath, pathFromBytes, pathMatcher } from '../../core/path.ts';
import type { StoredSnapshot } from '../../core/snapshot.ts';
import { FileType_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { Store } from '../store/store.ts';
import type { Totals } from './tree-writer.ts';

/** Counts the files and bytes that a restore writes. */
export async function countTotals(
  store: Store,
  order: { snapshot: StoredSnapshot; paths: readonly string[] },
): Promise<Totals> {
  const { totals } = order.snapshot.manifest;
  if (order.paths.length === 0 && totals !== undefined)
    return { files: totals.files, bytes: Number(totals.rawBytes) };
  const wants = pathFilter(order.paths);
  let files = 0;
  let bytes = 0;
  for await (const file of store.files(order.snapshot.manifest.files)) {
    const regular = file.type === FileType_Value.REGULAR || file.type === FileType_Value.HARD_LINK;
    if (!regular || !wants(pathFromBytes(file.path))) continue;
    files += 1;
    bytes += Number(file.size);
  }
  if (files === 0 && order.paths.length > 0) {
    throw new LightkeeperError('NOT_FOUND', `Cannot restore "${order.paths.join('", "')}": no file matches`, {
      hint: 'list the names with lightkeeper show',
    });
  }
  return { files, bytes };
}

/** Returns a test for the paths that match one of the patterns; all match an empty list. */
export function pathFilter(paths: readonly string[]): (path: BytePath) => boolean {
  if (paths.length === 0) return () => true;
  const matchers = paths.map(pathMatcher);
  return (path) => matchers.some((matches) => matches(path));
}

/** Returns the order for `writeTree` to write a snapshot below a folder. */
export function writeOrder(order: RestoreBase, totals: Totals, base: Buffer, paths: readonly string[] = []) {
  const { snapshot, signal, onProgress } = order;
  return {
    manifest: snapshot.manifest,
    base,
    wants: pathFilter(paths),
    totals,
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  };
}

/** Part of an order that every restore has. */
export interface RestoreBase {
  readonly snapshot: StoredSnapshot;
  readonly dryRun: boolean;
  /** Bytes that must stay free; undefined is the formula, 0 is no check. */
  readonly reserveBytes: bigint | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: (phase: string, doneBytes: number, totalBytes: number) => void;
}
