import { toBinary } from '@bufbuild/protobuf';
import { spanOf } from '../../core/list.ts';
import { pathFromBytes } from '../../core/path.ts';
import { sameBytes, sha256 } from '../../core/unit.ts';
import {
  type FileEntry,
  FileType_Value,
  ManifestSchema,
  type SnapshotRecord,
  UnitKind_Value,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { newestRecord } from '../snapshots/resolve.ts';
import { ChangeTimes } from '../store/index/change-times.ts';
import type { Store } from '../store/store.ts';
import { keptTime } from '../watch/names.ts';
import type { Entry } from '../watch/scan.ts';

/** How a name compares with the newest snapshot. */
export interface Match {
  readonly file: FileEntry;
  /** Its bytes are the same: size, modification and change time are. */
  readonly sameContent: boolean;
  /** Nothing about it has changed. */
  readonly same: boolean;
}

/** The newest snapshot of a graph, to compare a scan with. */
export interface PreviousState {
  readonly record: SnapshotRecord;
  /** Names in it. */
  readonly count: number;
  /** Answers for entries in order of their paths what the snapshot has of them. */
  matcher(): Promise<(entry: Entry) => Promise<Match | undefined>>;
}

/** The manifest of a snapshot, to be stored again, if its pack is gone or damaged: the index still has it. */
export function lostManifest(
  store: Store,
  { manifest, manifestUnitId, digest }: SnapshotRecord,
): { kind: UnitKind_Value; units: Uint8Array[] }[] {
  if (manifest === undefined || store.locate(manifestUnitId) !== undefined) return [];
  const bytes = toBinary(ManifestSchema, manifest);
  // Written by another version it may have been other bytes: those cannot be made again.
  return sha256(bytes).equals(digest) ? [{ kind: UnitKind_Value.MANIFEST, units: [bytes] }] : [];
}

/** Loads what a capture of `dir` compares with; undefined for a graph without a snapshot. */
export async function loadPrevious(
  store: Store,
  graphId: string,
  dir: Uint8Array,
): Promise<PreviousState | undefined> {
  const record = await newestRecord(store, graphId);
  const files = record?.manifest?.files;
  if (record === undefined || files === undefined) return undefined;
  return { record, count: spanOf(files), matcher: () => matcher(store, graphId, record, dir) };
}

async function matcher(
  store: Store,
  graphId: string,
  record: SnapshotRecord,
  dir: Uint8Array,
): Promise<(entry: Entry) => Promise<Match | undefined>> {
  const files = store.files(record.manifest?.files)[Symbol.asyncIterator]();
  const times = new ChangeTimes(store, graphId, record.digest);
  // Equal times mean nothing between the files of two directories.
  const sameDir = sameBytes(record.manifest?.source?.dir ?? new Uint8Array(), dir);
  let next = await files.next();
  let place = 0;
  return async (entry) => {
    while (next.done !== true && pathFromBytes(next.value.path) < entry.path) {
      next = await files.next();
      place += 1;
    }
    if (next.done === true || pathFromBytes(next.value.path) !== entry.path) return undefined;
    return compare(entry, next.value, sameDir ? await times.at(place) : undefined);
  };
}

function compare(entry: Entry, file: FileEntry, ctimeNs: bigint | undefined): Match {
  const metadata =
    entry.mode === file.mode &&
    entry.uid === file.uid &&
    entry.gid === file.gid &&
    keptTime(entry.mtimeNs) === file.mtimeNs;
  if (entry.type !== 'file') {
    const type = entry.type === 'dir' ? FileType_Value.DIRECTORY : FileType_Value.SYMLINK;
    const target = entry.target === pathFromBytes(file.target);
    return { file, sameContent: false, same: metadata && type === file.type && target };
  }
  if (file.type === FileType_Value.HARD_LINK) {
    return { file, sameContent: false, same: metadata && entry.links !== '' && entry.ctimeNs === ctimeNs };
  }
  const sameContent =
    file.type === FileType_Value.REGULAR &&
    BigInt(entry.size) === file.size &&
    keptTime(entry.mtimeNs) === file.mtimeNs &&
    entry.ctimeNs === ctimeNs;
  return { file, sameContent, same: sameContent && metadata };
}
