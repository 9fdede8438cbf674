import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { snapshotIdOf } from '../../core/manifest.ts';
import { bytesText, isUtf8, pathFromBytes, pathText } from '../../core/path.ts';
import { alarmsOf, type CommittedSnapshot, gradeOf, idOf, isAlarming } from '../../core/snapshot.ts';
import { hex } from '../../core/unit.ts';
import {
  type File,
  FileSchema,
  type Snapshot,
  SnapshotSchema,
  type SnapshotSummary,
  SnapshotSummarySchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import {
  type FileEntry,
  FileType_Value,
  type Finding,
  type Manifest,
  type Position,
  PositionSchema,
  Severity_Value,
} from '../../gen/lightkeeper/v1/types_pb.ts';

function position(record: CommittedSnapshot): Position {
  const { epoch, mintId, sequence } = record.manifest;
  return create(PositionSchema, { epoch, mintId: hex(mintId), sequence, digest: hex(record.digest) });
}

function parentId(manifest: Manifest): string {
  return manifest.parentDigest.length === 0 ? '' : snapshotIdOf(manifest.parentDigest);
}

/** Findings of a capture, and of the graph in what it took, errors first. */
export function allFindings(
  record: CommittedSnapshot,
  captured: readonly Finding[] = record.manifest.findings,
): Finding[] {
  const all = [...alarmsOf(record), ...(record.graded?.findings ?? []), ...captured];
  const isError = ({ severity }: Finding) => severity === Severity_Value.ERROR;
  return [...all.filter(isError), ...all.filter((finding) => !isError(finding))];
}

/** A snapshot as people see it. */
export function snapshotView(
  record: CommittedSnapshot,
  more: { unchanged?: boolean; confirmedAtMs?: number | undefined; findings?: readonly Finding[] } = {},
): Snapshot {
  const { manifest, measured, graded } = record;
  const { source, totals, capturedAt } = manifest;
  const snapshot = create(SnapshotSchema, {
    snapshotId: idOf(record),
    graphId: manifest.graphId,
    position: position(record),
    parentId: parentId(manifest),
    grade: gradeOf(record),
    cutMethod: manifest.cutMethod,
    durationMs: measured?.durationMs ?? 0,
    unchanged: more.unchanged ?? false,
    files: totals?.files ?? 0,
    rawBytes: totals?.rawBytes ?? 0n,
    newBytes: measured?.newBytes ?? 0n,
    storedBytes: measured?.storedBytes ?? 0n,
    units: totals?.units ?? 0n,
    newUnits: measured?.newUnits ?? 0,
    findings: [...(more.findings ?? allFindings(record))],
    tags: record.tags,
    pinned: record.pinned,
    description: manifest.description,
    host: source?.host ?? '',
    dir: source === undefined ? '' : bytesText(source.dir),
    gradeMs: graded?.durationMs ?? 0,
    summary: graded?.summary ?? '',
    alarms: [...alarmsOf(record)],
    acknowledged: record.acknowledged?.reason ?? '',
  });
  if (graded?.stats !== undefined) snapshot.stats = graded.stats;
  if (capturedAt !== undefined) snapshot.capturedAt = capturedAt;
  if (source?.instance !== undefined) snapshot.instance = source.instance;
  if (more.confirmedAtMs !== undefined) snapshot.confirmedAt = timestampFromMs(more.confirmedAtMs);
  return snapshot;
}

/** A snapshot as one line of a list. */
export function summaryView(record: CommittedSnapshot): SnapshotSummary {
  const { manifest, measured, graded } = record;
  const summary = create(SnapshotSummarySchema, {
    snapshotId: idOf(record),
    graphId: manifest.graphId,
    position: position(record),
    parentId: parentId(manifest),
    grade: gradeOf(record),
    rawBytes: manifest.totals?.rawBytes ?? 0n,
    newBytes: measured?.newBytes ?? 0n,
    storedBytes: measured?.storedBytes ?? 0n,
    tags: record.tags,
    pinned: record.pinned,
    summary: [manifest.description, graded?.summary ?? ''].filter((text) => text !== '').join('; '),
    alarming: isAlarming(record),
  });
  if (manifest.capturedAt !== undefined) summary.capturedAt = manifest.capturedAt;
  return summary;
}

/** A file of a snapshot as people see it. */
export function fileView(file: FileEntry): File {
  const path = pathFromBytes(file.path);
  const seconds = file.mtimeNs / 1_000_000_000n;
  const nanos = file.mtimeNs % 1_000_000_000n;
  const floor = nanos < 0n ? 1n : 0n;
  const view = create(FileSchema, {
    path: pathText(path),
    type: file.type,
    size: file.size,
    mode: file.mode,
    mtime: { seconds: seconds - floor, nanos: Number(nanos + floor * 1_000_000_000n) },
    units: file.content?.count ?? 0n,
  });
  if (!isUtf8(path)) view.pathBytes = file.path;
  if (file.type === FileType_Value.SYMLINK || file.type === FileType_Value.HARD_LINK) {
    view.target = bytesText(file.target);
  }
  return view;
}
