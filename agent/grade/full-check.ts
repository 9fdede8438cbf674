import { normalise } from '../../core/errors.ts';
import { type CheckContext, GraphCheck } from '../../core/lightrag/check.ts';
import { LayoutError } from '../../core/lightrag/chunk-reader.ts';
import type { Finding, GraphStats } from '../../gen/lightkeeper/v1/types_pb.ts';
import { feedAll, type GraphSource } from '../snapshots/graph-files.ts';

/** What the checks say of a graph. */
export interface Inspection {
  readonly findings: readonly Finding[];
  readonly stats: GraphStats;
}

/** Runs the checks on the files of a graph: each is read once, and those with something to name once more. */
export async function inspect(
  sources: readonly GraphSource[],
  context: CheckContext,
  signal?: AbortSignal,
): Promise<Inspection> {
  const check = new GraphCheck();
  for (const source of sources) {
    try {
      await feedAll(source, check.reader(source.path), signal);
      check.finished(source.path);
    } catch (error) {
      if (!(error instanceof LayoutError)) throw normalise(error);
      check.failed(source.path, error);
    }
  }
  const again = new Set(check.compare(context));
  for (const source of sources) {
    if (!again.has(source.path)) continue;
    await feedAll(source, check.nameReader(source.path), signal).catch((error: unknown) => {
      // A file that was whole at the first look is being written: whoever reads it says that it changed.
      if (!(error instanceof LayoutError)) throw error;
    });
  }
  return { findings: check.findings(), stats: check.stats };
}
