import { isUtf8 } from 'node:buffer';
import { normalise } from '../core/errors.ts';
import { type CheckContext, GraphCheck } from '../core/lightrag/check.ts';
import { type ChunkReader, LayoutError } from '../core/lightrag/text.ts';
import type { GraphStats } from '../gen/lightkeeper/v1/agent_pb.ts';
import type { Finding } from '../gen/lightkeeper/v1/types_pb.ts';

/** A file of a graph, from wherever its bytes come. */
export interface GraphSource {
  /** From the directory, with slashes. */
  readonly path: string;
  /** A name for all its bytes, where there is one. */
  readonly content?: string;
  /** Its bytes, from the start; each chunk may be used again for the next. */
  chunks(): AsyncIterable<Buffer>;
}

/** What the checks say of a graph. */
export interface Inspection {
  readonly findings: readonly Finding[];
  readonly stats: GraphStats;
}

/** Longest sequence of UTF-8, in bytes. */
const SEQUENCE_MAX = 4;

/** Says whether bytes that come in chunks are UTF-8: the checks take texts as they are, and Python would not. */
class Utf8Check {
  #rest: Buffer = Buffer.alloc(0);

  feed(chunk: Buffer): boolean {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const whole = wholeCharacters(bytes);
    this.#rest = Buffer.from(bytes.subarray(whole));
    return isUtf8(bytes.subarray(0, whole));
  }

  end(): boolean {
    return this.#rest.length === 0;
  }
}

/** How many bytes there are up to a character at the end that may not be whole. */
function wholeCharacters(bytes: Buffer): number {
  for (let back = 1; back < SEQUENCE_MAX && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back] as number;
    if (byte < 0x80) return bytes.length;
    const needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 0;
    if (needed > 0) return needed > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

/** Gives a file to a reader, to its end. Throws `LayoutError` for what is not UTF-8 or not in its layout. */
export async function feedAll(source: GraphSource, reader: ChunkReader, signal?: AbortSignal): Promise<void> {
  const utf8 = new Utf8Check();
  let at = 0;
  for await (const chunk of source.chunks()) {
    signal?.throwIfAborted();
    if (!utf8.feed(chunk)) throw new LayoutError('malformed', at, 'it is not UTF-8');
    reader.feed(chunk);
    at += chunk.length;
  }
  // What is cut in a character is cut.
  reader.end();
  if (!utf8.end()) throw new LayoutError('malformed', at, 'it is not UTF-8');
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
