import { create, type JsonObject } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { LayoutError } from '../../core/lightrag/chunk-reader.ts';
import { type JsonValue, RecordPicker } from '../../core/lightrag/record-picker.ts';
import { GRAPH_FILES, type GraphFile } from '../../core/lightrag/rules.ts';
import { type CommittedSnapshot, idOf } from '../../core/snapshot.ts';
import {
  type ExportDocumentResponse,
  ExportDocumentResponseSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { feedAll, graphFiles } from '../snapshots/graph-files.ts';
import type { Store } from '../store/store.ts';

/** A record, or what is told of something else in its place. */
function object(value: JsonValue | undefined): JsonObject | undefined {
  if (value === undefined) return undefined;
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : { value };
}

/** A document as a snapshot has it: its text, its status and its chunks in order. NOT_FOUND if it is not there. */
export async function exportDocument(
  store: Store,
  record: CommittedSnapshot,
  documentId: string,
  signal?: AbortSignal,
): Promise<ExportDocumentResponse> {
  const endRead = store.beginRead();
  try {
    const sources = await graphFiles(store, record.manifest);
    const pick = async (
      file: GraphFile,
      mayWant: (id: string) => boolean,
      take: (id: string, value: JsonValue) => void,
    ) => {
      const source = sources.find(({ path }) => path === GRAPH_FILES[file]);
      if (source === undefined) return;
      await feedAll(source, new RecordPicker(mayWant, take), signal).catch((error: unknown) => {
        if (!(error instanceof LayoutError)) throw error;
        const state = `"${source.path}" in it is not whole: ${error.message}`;
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
    await pick('documents', isIt, (_, value) => (document = object(value)));
    await pick('statuses', isIt, (_, value) => (status = object(value)));
    if (document === undefined && status === undefined) throw notThere(documentId, idOf(record));
    const every = () => true;
    await pick('chunks', every, (id, value) => {
      const chunk = object(value);
      if (chunk?.full_doc_id === documentId) chunks.push({ id, ...chunk });
    });
    chunks.sort((a, b) => Number(a.chunk_order_index ?? 0) - Number(b.chunk_order_index ?? 0));
    return create(ExportDocumentResponseSchema, {
      snapshotId: idOf(record),
      documentId,
      chunks,
      ...(document === undefined ? {} : { document }),
      ...(status === undefined ? {} : { status }),
    });
  } finally {
    endRead();
  }
}

function notThere(documentId: string, snapshotId: string): LightkeeperError {
  const state = `snapshot ${snapshotId.slice(0, 12)} does not have it`;
  return new LightkeeperError('NOT_FOUND', `Cannot export the document "${documentId}": ${state}`, {
    hint: 'name an older snapshot with --snapshot; its id is that of kv_store_full_docs.json, such as doc-1a2b…',
  });
}
