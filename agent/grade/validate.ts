import { open } from 'node:fs/promises';
import { create } from '@bufbuild/protobuf';
import { ioError } from '../../core/errors.ts';
import { errorFinding, finding } from '../../core/finding.ts';
import { isGraphFile } from '../../core/lightrag/check.ts';
import { gradeOf } from '../../core/lightrag/grade.ts';
import { bytesText, pathText } from '../../core/path.ts';
import {
  type ValidateDirectoryResponse,
  ValidateDirectoryResponseSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic } from '../../host/clock.ts';
import type { FileSource } from '../snapshots/graph-files.ts';
import { below } from '../watch/names.ts';
import { firstDifference, scan } from '../watch/scan.ts';
import { checkGraph } from './full-check.ts';

const CHUNK_BYTES = 1 << 20;

/** Returns a file of a directory as a source for the checks. */
function fileSource(dir: Uint8Array, path: string): FileSource {
  const place = below(dir, path);
  const chunks = async function* () {
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    const file = await open(place, 'r').catch((error: unknown) => {
      throw ioError('read', bytesText(place), error);
    });
    try {
      for (;;) {
        const { bytesRead } = await file.read(chunk, 0, CHUNK_BYTES, null);
        if (bytesRead === 0) return;
        yield chunk.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  };
  return { path, chunks };
}

/** Settings of one validation. */
export interface ValidateOptions {
  /** Whether the operator has stated that the instance is stopped. */
  readonly instanceStopped?: boolean;
  readonly signal?: AbortSignal;
}

/** Checks the graph in a directory as it is now. The grade is TORN if it changed meanwhile. */
export async function validateDirectory(
  dir: Uint8Array,
  { signal }: ValidateOptions = {},
): Promise<ValidateDirectoryResponse> {
  const began = monotonic();
  const options = signal === undefined ? {} : { signal };
  const before = await scan(dir, options);
  const paths = before.entries.filter(({ type, path }) => type === 'file' && isGraphFile(path));
  const { findings, stats } = await checkGraph(
    paths.map(({ path }) => fileSource(dir, path)),
    { idle: undefined },
    signal,
  );
  const changed = firstDifference(before, await scan(dir, options));
  const all = [...before.findings, ...findings];
  if (changed !== undefined) {
    const message = 'it changed while the directory was read; the findings may mix two states';
    all.unshift(
      errorFinding('changed_while_read', pathText(changed), {
        message,
        hint: 'pause the instance, or try again',
      }),
    );
  }
  if (paths.length === 0) {
    const message = 'it has no file of a LightRAG graph; there is nothing to check';
    all.push(finding('no_graph', Severity_Value.INFO, bytesText(dir), { message, hint: 'check --dir' }));
  }
  return create(ValidateDirectoryResponseSchema, {
    dir: bytesText(dir),
    grade: changed === undefined ? gradeOf(all) : Grade_Value.TORN,
    findings: all.sort((a, b) => b.severity - a.severity),
    stats,
    durationMs: BigInt(Math.round(monotonic() - began)),
  });
}
