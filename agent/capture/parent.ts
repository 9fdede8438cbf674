import { toBinary } from '@bufbuild/protobuf';
import { spanOf } from '../../core/list.ts';
import { pathFromBytes } from '../../core/path.ts';
import type { StoredSnapshot } from '../../core/snapshot.ts';
import { sameBytes, sha256 } from '../../core/unit.ts';
import { type FileEntry, ManifestSchema } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { FileType_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { newestSnapshot } from '../snapshots/resolve.ts';
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
  readonly snapshot: StoredSnapshot;
  /** Names in it. */
  readonly count: number;
  /** Answers for entries in order of their paths what the snapshot has of them. */
  matcher(): Promise<(entry: Entry) => Promise<Match | undefined>>;
}

/** The manifest of a snapshot, to be stored again, if its pack is gone or damaged: the index still has it. */
export function lostManifest(
  store: Store,
  { manifest, manifestUnitId, digest }: StoredSnapshot,
): { kind: UnitKind_Value; units: Uint8Array[] }[] {
  if (store.locate(manifestUnitId) !== undefined) return [];
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
  const snapshot = await newestSnapshot(store, graphId);
  const files = snapshot?.manifest.files;
  if (snapshot === undefined || files === undefined) return undefined;
  return { snapshot, count: spanOf(files), matcher: () => matcher(store, snapshot, dir) };
}

async function matcher(
  store: Store,
  { manifest, digest }: StoredSnapshot,
  dir: Uint8Array,
): Promise<(entry: Entry) => Promise<Match | undefined>> {
  const files = store.files(manifest.files)[Symbol.asyncIterator]();
  const times = new ChangeTimes(store, manifest.graphId, digest);
  // Equal times mean nothing between the files of two directories.
  const sameDir = sameBytes(manifest.source?.dir ?? new Uint8Array(), dir);
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
