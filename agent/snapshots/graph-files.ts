import { isGraphFile } from '../../core/lightrag/check.ts';
import type { ChunkReader } from '../../core/lightrag/chunk-reader.ts';
import { Utf8Reader } from '../../core/lightrag/utf8-reader.ts';
import type { NodeRef } from '../../core/list.ts';
import { pathFromBytes } from '../../core/path.ts';
import { hex } from '../../core/unit.ts';
import type { ListRoot, Manifest } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { FileType_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { Store } from '../store/store.ts';

/** Least bytes of a chunk, but for the last one of a file. */
// Units are much smaller, and each chunk has a cost of its own.
const CHUNK_BYTES_MIN = 256 * 1024;

/** Yields the bytes of a stored file, with every unit's hash checked. */
export async function* readBytes(store: Store, content: ListRoot | undefined): AsyncIterable<Buffer> {
  let parts: Buffer[] = [];
  let length = 0;
  for await (const refs of store.units(content)) {
    for (const { id } of refs) {
      const unit = await store.readUnit(id, UnitKind_Value.BYTES);
      parts.push(unit);
      length += unit.length;
      if (length < CHUNK_BYTES_MIN) continue;
      yield Buffer.concat(parts);
      parts = [];
      length = 0;
    }
  }
  if (length > 0) yield Buffer.concat(parts);
}

/** Returns a key that is equal for files with the same bytes. */
export function contentKey(content: ListRoot | undefined): string {
  return hex(content?.entries ?? new Uint8Array());
}

/** A file of a graph in a snapshot, with its list of units. */
export interface GraphContent {
  readonly path: string;
  readonly content: ListRoot | undefined;
}

/** Lists the files of the graph in a snapshot. `onOther` receives the paths of all other regular files. */
export async function graphContents(
  store: Store,
  manifest: Manifest,
  onOther: (path: string) => void = () => {},
): Promise<GraphContent[]> {
  const contents = new Map<string, ListRoot | undefined>();
  const found: GraphContent[] = [];
  for await (const file of store.files(manifest.files)) {
    const path = pathFromBytes(file.path);
    if (file.type === FileType_Value.REGULAR) contents.set(path, file.content);
    if (![FileType_Value.REGULAR, FileType_Value.HARD_LINK].includes(file.type)) continue;
    if (!isGraphFile(path)) {
      onOther(path);
      continue;
    }
    const content = contents.get(file.type === FileType_Value.HARD_LINK ? pathFromBytes(file.target) : path);
    found.push({ path, content });
  }
  return found;
}

/** Lists the files of the graph in a snapshot as sources to read. */
export async function graphSources(store: Store, manifest: Manifest): Promise<FileSource[]> {
  return (await graphContents(store, manifest)).map(({ path, content }) => ({
    path,
    contentKey: contentKey(content),
    units: content,
    chunks: () => readBytes(store, content),
  }));
}

/** A file of a graph in a snapshot or in a directory. */
export interface FileSource {
  /** Path in the directory, with slashes. */
  readonly path: string;
  /** Key of all its bytes; undefined for a file that is not in a snapshot. */
  readonly contentKey?: string;
  /** List of its units; undefined for a file that is not in a snapshot. */
  readonly units?: ListRoot | undefined;
  /** Yields its bytes from the start. The buffer of a chunk may be reused for the next one. */
  chunks(): AsyncIterable<Buffer>;
}

/**
 * Reads a file to its end, or until the reader needs no more of it. Throws `LayoutError` for a file that is not UTF-8
 * or not in its layout.
 */
export async function readSource(
  source: FileSource,
  reader: ChunkReader,
  signal?: AbortSignal,
): Promise<void> {
  const feed = new Utf8Reader(reader);
  for await (const chunk of source.chunks()) {
    signal?.throwIfAborted();
    feed.feed(chunk);
    if (feed.isDone) return;
  }
  feed.end();
}

/** Lists all units of a file in order. */
export async function listUnits(store: Store, content: ListRoot | undefined): Promise<NodeRef[]> {
  const all: NodeRef[] = [];
  for await (const refs of store.units(content)) all.push(...refs);
  return all;
}
