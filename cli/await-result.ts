import { create, type JsonObject } from '@bufbuild/protobuf';
import { LightkeeperError } from '../core/errors.ts';
import {
  type ExportDocumentPart,
  type ExportedDocument,
  ExportedDocumentSchema,
  type Progress,
} from '../gen/lightkeeper/v1/agent_pb.ts';
import { progressLine } from './print.ts';

interface Event<T> {
  readonly event:
    | { case: 'progress'; value: Progress }
    | { case: 'result'; value: T }
    | { case: undefined; value?: undefined };
}

/** Shows the progress of a long call. Returns its result. */
export async function lastOf<T>(events: AsyncIterable<Event<T>>): Promise<T> {
  const line = progressLine();
  try {
    for await (const { event } of events) {
      if (event.case === 'progress') line.show(event.value);
      if (event.case === 'result') return event.value;
    }
  } finally {
    line.end();
  }
  throw new LightkeeperError('INTERNAL', 'Cannot finish: the call ended without a result');
}

/** Collects the parts of an exported document. */
export async function collectExport(
  parts: AsyncIterable<ExportDocumentPart>,
): Promise<{ exported: ExportedDocument; chunks: JsonObject[] }> {
  let exported = create(ExportedDocumentSchema);
  const chunks: JsonObject[] = [];
  for await (const { part } of parts) {
    if (part.case === 'document') exported = part.value;
    if (part.case === 'chunk') chunks.push(part.value);
  }
  return { exported, chunks };
}
