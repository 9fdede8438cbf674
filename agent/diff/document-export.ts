import { create, type JsonObject } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { LayoutError } from '../../core/lightrag/chunk-reader.ts';
import { type JsonValue, RecordPicker } from '../../core/lightrag/record-picker.ts';
import { GRAPH_FILES, type GraphFile } from '../../core/lightrag/rules.ts';
import { idOf, type StoredSnapshot } from '../../core/snapshot.ts';
import {
  type ExportDocumentPart,
  ExportDocumentPartSchema,
  ExportedDocumentSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { graphSources, readSource } from '../snapshots/graph-files.ts';
import type { Store } from '../store/store.ts';

/** Returns a record as an object; a value that is not an object is wrapped in one. */
function toObject(value: JsonValue | undefined): JsonObject | undefined {
  if (value === undefined) return undefined;
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : { value };
}

/** Yields a document of a snapshot with its status, then its chunks in order. NOT_FOUND if it does not exist. */
export async function* exportDocument(
  store: Store,
  {
    snapshot,
    documentId,
    signal,
  }: {
    readonly snapshot: StoredSnapshot;
    readonly documentId: string;
    readonly signal?: AbortSignal | undefined;
  },
): AsyncGenerator<ExportDocumentPart> {
  const endRead = store.beginRead();
  try {
    const sources = await graphSources(store, snapshot.manifest);
    const pick = async (
      file: GraphFile,
      mayWant: (id: string) => boolean,
      take: (id: string, value: JsonValue) => void,
    ) => {
      const source = sources.find(({ path }) => path === GRAPH_FILES[file]);
      if (source === undefined) return;
      await readSource(source, new RecordPicker(mayWant, take), signal).catch((error: unknown) => {
        if (!(error instanceof LayoutError)) throw error;
        const state = `"${source.path}" in it is malformed: ${error.message}`;
        throw new LightkeeperError('DAMAGED', `Cannot export the document "${documentId}": ${state}`, {
          hint: 'name another snapshot with --snapshot',
          cause: error,
        });
      });
    };
    let document: JsonObject | undefined;
    let status: JsonObject | undefined;
    const chunks: JsonObject[] = [];
    const isIt = (id: string) => id === documentId;
    await pick('documents', isIt, (_, value) => (document = toObject(value)));
    await pick('statuses', isIt, (_, value) => (status = toObject(value)));
    if (document === undefined && status === undefined) throw documentNotFound(documentId, idOf(snapshot));
    const every = () => true;
    await pick('chunks', every, (id, value) => {
      const chunk = toObject(value);
      if (chunk?.full_doc_id === documentId) chunks.push({ id, ...chunk });
    });
    chunks.sort((a, b) => Number(a.chunk_order_index ?? 0) - Number(b.chunk_order_index ?? 0));
    const exported = create(ExportedDocumentSchema, {
      snapshotId: idOf(snapshot),
      documentId,
      ...(document === undefined ? {} : { document }),
      ...(status === undefined ? {} : { status }),
    });
    yield create(ExportDocumentPartSchema, { part: { case: 'document', value: exported } });
    for (const value of chunks) yield create(ExportDocumentPartSchema, { part: { case: 'chunk', value } });
  } finally {
    endRead();
  }
}

function documentNotFound(documentId: string, snapshotId: string): LightkeeperError {
  const state = `snapshot ${snapshotId.slice(0, 12)} does not contain it`;
  return new LightkeeperError('NOT_FOUND', `Cannot export the document "${documentId}": ${state}`, {
    hint: 'name an older snapshot with --snapshot; the ids are those in kv_store_full_docs.json, such as doc-1a2b…',
  });
}
