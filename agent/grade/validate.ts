import { open } from 'node:fs/promises';
import { create } from '@bufbuild/protobuf';
import { ioError } from '../../core/errors.ts';
import { errorFinding, finding } from '../../core/finding.ts';
import { isGraphFile, unsplitFinding } from '../../core/lightrag/check.ts';
import { gradeAlone, UNCHANGED_MS } from '../../core/lightrag/grade.ts';
import { bytesText, pathText } from '../../core/path.ts';
import { isUsableGrade } from '../../core/snapshot.ts';
import {
  type ValidateDirectoryResponse,
  ValidateDirectoryResponseSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Finding, Grade_Value, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, now } from '../../host/clock.ts';
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

/** Options of a check of a directory. */
export interface ValidateOptions {
  readonly signal?: AbortSignal | undefined;
  /** Whether the operator says that the instance is stopped: the directory is then at rest. */
  readonly instanceStopped?: boolean;
  /** Whether the workspaces below the directory are checked on their own. */
  readonly split?: boolean;
}

/**
 * Checks the graph in a directory as it is now. The grade is TORN if it changed meanwhile.
 *
 * With `instanceStopped` the directory counts as at rest. Otherwise it does if nothing changed for a minute.
 */
export async function validateDirectory(
  dir: Uint8Array,
  { signal, instanceStopped = false, split = false }: ValidateOptions = {},
): Promise<ValidateDirectoryResponse> {
  const began = monotonic();
  const options = signal === undefined ? {} : { signal };
  const before = await scan(dir, options);
  const paths = before.entries.filter(({ type, path }) => type === 'file' && isGraphFile(path));
  const { findings, stats } = await checkGraph(
    paths.map(({ path }) => fileSource(dir, path)),
    {},
    signal,
  );
  const changed = firstDifference(before, await scan(dir, options));
  const all = [...before.findings, ...findings.map(({ finding }) => finding)];
  const unsplit = split ? undefined : unsplitFinding(before.entries.map(({ path }) => path));
  if (unsplit !== undefined) all.push(unsplit);
  const unchangedMs = now() - Number(before.newestNs / 1_000_000n);
  const atRest = instanceStopped || unchangedMs >= UNCHANGED_MS;
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
    grade: changed === undefined ? gradeChecked(all, { atRest, unsplit }) : Grade_Value.TORN,
    findings: all.sort((a, b) => b.severity - a.severity),
    stats,
    durationMs: BigInt(Math.round(monotonic() - began)),
  });
}

/** Returns the grade of a directory that did not change; UNGRADED where a part of a whole one was not checked. */
function gradeChecked(
  findings: readonly Finding[],
  { atRest, unsplit }: { readonly atRest: boolean; readonly unsplit: Finding | undefined },
): Grade_Value {
  const grade = gradeAlone(findings, atRest);
  return unsplit !== undefined && isUsableGrade(grade) ? Grade_Value.UNGRADED : grade;
}
