import { normalise } from '../../core/errors.ts';
import { type CheckContext, GraphCheck } from '../../core/lightrag/check.ts';
import { type ChunkReader, LayoutError } from '../../core/lightrag/chunk-reader.ts';
import { Feed } from '../../core/lightrag/utf8-reader.ts';
import type { Finding, GraphStats, ListRoot } from '../../gen/lightkeeper/v1/types_pb.ts';

/** A file of a graph, from wherever its bytes come. */
export interface GraphSource {
  /** From the directory, with slashes. */
  readonly path: string;
  /** A name for all its bytes, where there is one. */
  readonly content?: string;
  /** Its units, where it is in a snapshot. */
  readonly units?: ListRoot | undefined;
  /** Its bytes, from the start; each chunk may be used again for the next. */
  chunks(): AsyncIterable<Buffer>;
}

/** What the checks say of a graph. */
export interface Inspection {
  readonly findings: readonly Finding[];
  readonly stats: GraphStats;
}

/** Gives a file to a reader, to its end or until that knows enough. Throws `LayoutError` for what is not UTF-8 or not in its layout. */
export async function feedAll(source: GraphSource, reader: ChunkReader, signal?: AbortSignal): Promise<void> {
  const feed = new Feed(reader);
  for await (const chunk of source.chunks()) {
    signal?.throwIfAborted();
    feed.feed(chunk);
    if (feed.isDone) return;
  }
  feed.end();
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
      check.read(source.path);
    } catch (error) {
      if (!(error instanceof LayoutError)) throw normalise(error);
      check.failed(source.path, error);
    }
  }
  const again = new Set(check.compare(context));
  for (const source of sources) {
    if (!again.has(source.path)) continue;
    await feedAll(source, check.naming(source.path), signal).catch((error: unknown) => {
      // A file that was whole at the first look is being written: whoever reads it says that it changed.
      if (!(error instanceof LayoutError)) throw error;
    });
  }
  return { findings: check.findings(), stats: check.stats };
}
