import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { snapshotIdOf } from '../../core/manifest.ts';
import { bytesText, isUtf8, pathFromBytes, pathText } from '../../core/path.ts';
import { positionView } from '../../core/position.ts';
import {
  alarmsOf,
  gradeHintOf,
  gradeOf,
  idOf,
  isAlarming,
  isDamaged,
  isUsable,
  type StoredSnapshot,
} from '../../core/snapshot.ts';
import type { FileEntry, Manifest } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import {
  type Alarm,
  AlarmSchema,
  type File,
  FileSchema,
  type Snapshot,
  SnapshotSchema,
  type SnapshotSummary,
  SnapshotSummarySchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { FileType_Value, type Finding, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';

function parentId(manifest: Manifest): string {
  return manifest.parentDigest.length === 0 ? '' : snapshotIdOf(manifest.parentDigest);
}

/** Returns the alarms and findings of a snapshot and its grade, errors first. */
export function allFindings(
  stored: StoredSnapshot,
  captured: readonly Finding[] = stored.manifest.findings,
): Finding[] {
  const all = [...alarmsOf(stored), ...(stored.graded?.findings ?? []), ...captured];
  const isError = ({ severity }: Finding) => severity === Severity_Value.ERROR;
  return [...all.filter(isError), ...all.filter((finding) => !isError(finding))];
}

/** Returns the alarms of a snapshot as the API shows them. */
function alarmViews(stored: StoredSnapshot): Alarm[] {
  const { manifest, acknowledged } = stored;
  return alarmsOf(stored).map(({ code, message, hint }) => {
    const alarm = create(AlarmSchema, { code, message, hint });
    alarm.acknowledged = acknowledged !== undefined;
    alarm.reason = acknowledged?.reason ?? '';
    if (manifest.capturedAt !== undefined) alarm.since = manifest.capturedAt;
    return alarm;
  });
}

/** Returns what is known of the server that wrote a snapshot, and the counts of its graph. */
export function writtenBy({ manifest, graded }: StoredSnapshot) {
  const instance = manifest.source?.instance;
  return {
    ...(instance === undefined ? {} : { instance: { ...instance, version: instance.coreVersion } }),
    ...(graded?.stats === undefined ? {} : { stats: graded.stats }),
  };
}

/** Returns the fields that the full view and the summary of a snapshot share. */
function commonView(stored: StoredSnapshot) {
  const { manifest, measured } = stored;
  const gradeHint = gradeHintOf(stored);
  return {
    snapshotId: idOf(stored),
    graphId: manifest.graphId,
    position: positionView(manifest, stored.digest),
    parentId: parentId(manifest),
    grade: gradeOf(stored),
    usable: isUsable(stored),
    damaged: isDamaged(stored),
    alarms: alarmViews(stored),
    rawBytes: manifest.totals?.rawBytes ?? 0n,
    newBytes: measured?.newBytes ?? 0n,
    storedBytes: measured?.storedBytes ?? 0n,
    tags: { ...stored.tags },
    pinned: stored.pinned,
    fork: stored.forked === undefined ? '' : snapshotIdOf(stored.forked.headDigest),
    ...(gradeHint === undefined ? {} : { gradeHint }),
    ...writtenBy(stored),
  };
}

/** Returns a snapshot as the API shows it. */
export function snapshotView(
  stored: StoredSnapshot,
  more: { unchanged?: boolean; confirmedAtMs?: number | undefined; findings?: readonly Finding[] } = {},
): Snapshot {
  const { manifest, measured, graded } = stored;
  const { source, totals, capturedAt } = manifest;
  const snapshot = create(SnapshotSchema, {
    ...commonView(stored),
    cutMethod: manifest.cutMethod,
    atRest: manifest.atRest,
    durationMs: measured?.durationMs ?? 0n,
    unchanged: more.unchanged ?? false,
    files: totals?.files ?? 0,
    units: totals?.units ?? 0n,
    newUnits: measured?.newUnits ?? 0,
    findings: [...(more.findings ?? allFindings(stored))],
    description: manifest.description,
    host: source?.host ?? '',
    dir: source === undefined ? '' : bytesText(source.dir),
    gradeMs: graded?.durationMs ?? 0n,
    summary: graded?.summary ?? '',
    acknowledged: stored.acknowledged?.reason ?? '',
  });
  if (capturedAt !== undefined) snapshot.capturedAt = capturedAt;
  if (more.confirmedAtMs !== undefined) snapshot.confirmedAt = timestampFromMs(more.confirmedAtMs);
  return snapshot;
}

/** Returns a snapshot as a list of the API shows it. */
export function summaryView(stored: StoredSnapshot): SnapshotSummary {
  const { manifest, graded } = stored;
  const summary = create(SnapshotSummarySchema, {
    ...commonView(stored),
    summary: [manifest.description, graded?.summary ?? ''].filter((text) => text !== '').join('; '),
    alarming: isAlarming(stored),
  });
  if (manifest.capturedAt !== undefined) summary.capturedAt = manifest.capturedAt;
  return summary;
}

/** Returns a file of a snapshot as the API shows it. */
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
