import { normalise } from '../../core/errors.ts';
import { type CheckContext, type CheckFinding, GraphCheck } from '../../core/lightrag/check.ts';
import { LayoutError } from '../../core/lightrag/chunk-reader.ts';
import type { GraphStats } from '../../gen/lightkeeper/v1/types_pb.ts';
import { type FileSource, readSource } from '../snapshots/graph-files.ts';

/** The findings and statistics of a graph. */
export interface GraphCheckResult {
  readonly findings: readonly CheckFinding[];
  readonly stats: GraphStats;
}

/** Checks a graph by reading all of its files. */
// Files that findings need more of are read again.
export async function checkGraph(
  sources: readonly FileSource[],
  context: CheckContext = {},
  signal?: AbortSignal,
): Promise<GraphCheckResult> {
  const check = new GraphCheck();
  for (const source of sources) {
    try {
      await readSource(source, check.reader(source.path), signal);
      check.finished(source.path);
    } catch (error) {
      if (!(error instanceof LayoutError)) throw normalise(error);
      check.failed(source.path, error);
    }
  }
  for (let rereads = check.compare(context); rereads.length > 0; rereads = check.compare(context)) {
    for (const source of sources) {
      if (!rereads.includes(source.path)) continue;
      await readSource(source, check.rereader(source.path), signal).catch((error: unknown) => {
        // A file that was whole at the first read is being written. The caller reports that it changed.
        if (!(error instanceof LayoutError)) throw error;
      });
    }
  }
  return { findings: check.findings(), stats: check.stats };
}
