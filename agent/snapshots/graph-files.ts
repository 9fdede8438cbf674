import { create } from '@bufbuild/protobuf';
import { normalise } from '../../core/errors.ts';
import { isGraphFile } from '../../core/lightrag/check.ts';
import { pathFromBytes } from '../../core/path.ts';
import { hex } from '../../core/unit.ts';
import {
  CutMethod_Value,
  FileType_Value,
  type Finding,
  FindingSchema,
  type ListRoot,
  type Manifest,
  UnitKind_Value,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { type GraphSource, inspect } from '../grade/full-check.ts';
import type { Store } from '../store/store.ts';
import { type Found, idOf, isTorn } from './resolve.ts';

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

/** What the checks say of the graphs in snapshots; each finding names those that it is of. */
export async function inspectSnapshots(
  store: Store,
  records: AsyncIterable<Found>,
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
