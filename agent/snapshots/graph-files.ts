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

/** Units are joined to chunks of this many bytes: each chunk costs something of its own. */
const CHUNK_BYTES = 256 * 1024;

/** The bytes of a file as they were captured, read from the store and hashed on the way. */
async function* bytesOf(store: Store, content: ListRoot | undefined): AsyncIterable<Buffer> {
  let parts: Buffer[] = [];
  let length = 0;
  for await (const refs of store.units(content)) {
    for (const { id } of refs) {
      const unit = await store.readUnit(id, UnitKind_Value.BYTES);
      parts.push(unit);
      length += unit.length;
      if (length < CHUNK_BYTES) continue;
      yield Buffer.concat(parts);
      parts = [];
      length = 0;
    }
  }
  if (length > 0) yield Buffer.concat(parts);
}

/** A name for the bytes of a file: two files with one are the same. */
export function contentName(content: ListRoot | undefined): string {
  return hex(content?.entries ?? new Uint8Array());
}

/** A file of a graph in a snapshot. */
export interface Content {
  readonly path: string;
  readonly content: ListRoot | undefined;
}

/** A graph's files in a snapshot, each with its units. */
export async function graphContents(store: Store, manifest: Manifest): Promise<Content[]> {
  const contents = new Map<string, ListRoot | undefined>();
  const found: Content[] = [];
  for await (const file of store.files(manifest.files)) {
    const path = pathFromBytes(file.path);
    if (file.type === FileType_Value.REGULAR) contents.set(path, file.content);
    if (!isGraphFile(path) || ![FileType_Value.REGULAR, FileType_Value.HARD_LINK].includes(file.type))
      continue;
    const content = contents.get(file.type === FileType_Value.HARD_LINK ? pathFromBytes(file.target) : path);
    found.push({ path, content });
  }
  return found;
}

/** The same, to be read. */
export async function graphFiles(store: Store, manifest: Manifest): Promise<GraphSource[]> {
  return (await graphContents(store, manifest)).map(({ path, content }) => ({
    path,
    content: contentName(content),
    units: content,
    chunks: () => bytesOf(store, content),
  }));
}

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

/** Gives a file to a reader, to its end or until that knows enough. Throws `LayoutError` for what is not UTF-8 or not in its layout. */
export async function feedAll(source: GraphSource, reader: ChunkReader, signal?: AbortSignal): Promise<void> {
  const feed = new Utf8Reader(reader);
  for await (const chunk of source.chunks()) {
    signal?.throwIfAborted();
    feed.feed(chunk);
    if (feed.isDone) return;
  }
  feed.end();
}

/** All units of a file, in order. */
export async function unitsOf(store: Store, content: ListRoot | undefined): Promise<NodeRef[]> {
  const all: NodeRef[] = [];
  for await (const refs of store.units(content)) all.push(...refs);
  return all;
}
